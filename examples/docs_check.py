"""Repeat the quick measurements behind the numbers of the docs, and compare.

    python -m examples.docs_check

Takes about fifteen minutes. Numbers of runs that took hours are compared with the stored results by
the tests (`tests/docs/test_numbers.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from examples import references
from examples.command import run_script
from examples.reproduce.published import PUBLISHED
from metarl.config_files import load_config
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.evaluate import evaluate
from metarl.runs.result import Evaluation
from metarl.runs.run import Run
from metarl.training.loop import start_or_resume

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "docs/results/runs"
RETURNS = "docs/results/runs.json"
"""Mean returns of each of these runs on the test tasks after 0 to 3 adaptation steps."""
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
    """Evaluate the runs that come with the code, and yield the returns that differ from the stored
    ones, as lines of their file."""
    stored = json.loads((ROOT / RETURNS).read_text())
    for directory in sorted(SHIPPED.iterdir()):
        run = Run.open(directory)
        episodes = PUBLISHED[run.config.env.name].episodes
        agent = run.make_agent(run.load())
        again = evaluate(agent, run.config.env, tasks=40, episodes=episodes, steps=3).mean
        before = stored.get(directory.name, [np.nan] * len(again))
        difference = np.abs(again - before).max()
        print(f"{directory.name}: {again.round(1).tolist()}, as stored to {difference:.3f}")
        if not difference <= TOLERANCE:
            yield RETURNS, f'"{directory.name}": {again.round(2).tolist()},'


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
    run_script(main)
