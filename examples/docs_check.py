"""Repeat the quick measurements behind the numbers of the docs, and compare.

    python -m examples.docs_check

Takes about ten minutes. Numbers of runs that took hours are compared with the stored results by
the tests (`tests/docs/test_numbers.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from examples import references
from examples.reproduce.measure import evaluations
from examples.reproduce.published import PUBLISHED
from metarl.config_files import load_config
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.evaluate import evaluate
from metarl.runs.result import Evaluation
from metarl.runs.run import Run
from metarl.training.loop import start_or_resume

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "docs/results/runs"
TOLERANCE = 0.5
"""Largest difference of a mean return: another type of CPU rounds otherwise, which the contacts of
a robot amplify (docs/reliability.md)."""


def trained(name: str, folder: Path, against: Sequence[str] = ()) -> dict[str, Evaluation]:
    """Train a config, unless that is done, and return the default evaluation."""
    config = load_config(name, **{"tracking.mode": "disabled"})
    run = start_or_resume(config, folder / name.replace("/", "-"))
    return evaluate_run(run.directory, against=against)[0]


def cartpole(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table of CartPole, with their page."""
    results = trained("cartpole/maml_trpo", folder, ["random"])
    for label, name in (("maml_trpo", "maml_trpo"), ("random", "random initialisation")):
        result = results[label]
        cells = [f"{mean:.1f}" for mean in result.mean]
        for step in (0, 1):
            cells[step] += " ({:.1f} to {:.1f})".format(*result.interval[step])
        yield "docs/external.md", f"| {name} | {' | '.join(cells)} |"


def demo(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the row of the demo, with its page."""
    result = trained("half_cheetah_dir/demo", folder)["maml_trpo"]
    cells = " | ".join(f"{mean:.1f}" for mean in result.mean)
    yield "docs/results.md", f"| `half_cheetah_dir/demo` (horizon 100) [1] | 3.6M | {cells} |"


def shipped(_: Path) -> Iterator[tuple[str, str]]:
    """Evaluate the runs that come with the code, and yield what differs from the stored results.

    Not the runs on forward and backward, which were evaluated on other numbers of each.
    """
    stored = json.loads((ROOT / "docs/results/reproduction.json").read_text())
    for directory in sorted(SHIPPED.iterdir()):
        run = Run.open(directory)
        family, env = run.config.env.name, run.config.env
        if env.num_all_tasks is not None:
            continue
        row = stored[family][run.config.method]
        before = evaluations(family, row)[row["seeds"].index(run.config.seed)]
        episodes = PUBLISHED[family].episodes
        agent = run.config.make_agent(run.load().agent)
        again = evaluate(agent, env, tasks=len(before.tasks), episodes=episodes, steps=3)
        difference = np.abs(again.mean - before.mean).max()
        print(f"{directory.name}: {again.mean.round(2).tolist()}, as stored to {difference:.3f}")
        if not difference <= TOLERANCE:
            yield "docs/results/reproduction.json", f"{directory.name}, within {TOLERANCE}"


def optima(_: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows of the tables of known agents, with their page."""
    for table in references.TABLES:
        for line in table():
            yield "docs/optima.md", line


CHECKS = {check.__name__: check for check in (cartpole, demo, shipped, optima)}


def main() -> int:
    """Make the checks, print what is missing from the pages, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--runs", type=Path, help="folder of runs, which are trained only once")
    args = parser.parse_args()
    for name in args.checks:
        if name not in CHECKS:
            parser.error(f"{name}: expected one of {', '.join(CHECKS)}")
    missing = []
    with TemporaryDirectory() as temporary:
        folder = args.runs or Path(temporary)
        for name in args.checks or CHECKS:
            for page, line in CHECKS[name](folder):
                print(f"{page}: {line}")
                if line not in (ROOT / page).read_text(encoding="utf-8").splitlines():
                    missing.append(f"{page}: expected the line {line}")
    print(*missing or ["every number is as written"], sep="\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
