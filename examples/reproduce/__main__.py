"""Reproduce the reinforcement-learning figure of the MAML paper (Finn et al. 2017, Figure 5).

    python -m examples.reproduce

Finished runs are not trained again, so the command can be stopped and repeated at any time. Results
of deleted runs stay in the file as long as their configs do not change. Two commands give one seed
of a row: `metarl train FAMILY/METHOD --seed S`, with `--iterations` where `ITERATIONS` has a
number, and `metarl evaluate RUN`, with `--episodes 40` for point_nav and ant_dir.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from examples.agents.measure import read_complete
from examples.command import run_script
from examples.reproduce.export_runs import export_runs
from examples.reproduce.figures import draw, table
from examples.reproduce.measure import fingerprint, finished_jobs, gather, measure, merge
from examples.reproduce.measured import write_measured
from examples.reproduce.published import PUBLISHED
from metarl.config_files import MEASURED, config_folder, config_names
from metarl.core.parallel import available_cores
from metarl.runs.atomic_io import write_atomically
from metarl.training.many_runs import Job, finish_all

BASELINES = ("oracle", "oracle_tuned", "pretrained")
METHODS = (
    "maml_trpo",
    "maml_trpo_tuned",
    "cavia_tuned",
    "cavia_ppo",
    "maml_trpo_gymnasium",
    "cavia_gymnasium",
)
ONLY = {
    "ant_vel": tuple(
        (method, seed)
        for method in ("maml_trpo_tuned", "cavia_tuned", "cavia_ppo")
        for seed in range(3)
    ),
    "ant_dir": tuple(("cavia_tuned", seed) for seed in range(3)),
}
"""Methods and seeds of families whose whole row would take days."""
RESULTS = Path("docs/results")
EXPORTED = METHODS[1:]
"""Endings of the names of the configs whose best run is distributed with the code."""
ITERATIONS = {
    "half_cheetah_dir/maml_trpo": 50,
    "half_cheetah_dir/oracle": 100,
    "half_cheetah_dir/pretrained": 100,
    "half_cheetah_vel/maml_trpo": 150,
    "half_cheetah_vel/oracle": 300,
    "half_cheetah_vel/pretrained": 300,
}
"""Where less than the published budget."""


def main() -> None:
    """Train, evaluate, tabulate and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("families", nargs="*", default=list(PUBLISHED), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="of the methods; baselines have one")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="folder of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument(
        "--measured",
        type=Path,
        help="file for metarl list configs; by default that of the configs, or with another --out "
        f"{MEASURED} in it",
    )
    parser.add_argument("--gather", action="store_true", help="train nothing; use finished runs")
    args = parser.parse_args()
    for family in args.families:
        if family not in PUBLISHED:
            parser.error(f"{family}: expected one of {', '.join(PUBLISHED)}")

    phases = plan(args.families, args.seeds, args.runs)
    if not args.gather:
        for jobs in phases:
            finish_all(jobs, args.jobs, measure)
    done = finished_jobs([job for jobs in phases for job in jobs])
    file = args.out / "reproduction.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    current = {fingerprint(job) for jobs in plan(list(PUBLISHED), 1, args.runs) for job in jobs}
    results = merge(known, gather(done), current)
    if not results:
        parser.error(f"{args.runs}: no finished run in it yet")
    args.out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results, allow_nan=False)  # thousands of numbers: not one on each line
    write_atomically(file, content.encode())
    print("\n".join(table(results)))
    exported = [job for job in done if job.name.endswith(EXPORTED)]
    print(*draw(results, args.out), *export_runs(exported, args.out / "runs"), sep="\n")
    own = config_folder() if args.out == RESULTS else args.out
    agents = read_complete(args.out / "agents.json")
    write_measured(results, agents, args.measured or own / MEASURED)


def plan(families: list[str], seeds: int, folder: Path) -> tuple[list[Job], list[Job]]:
    """Return the runs, in the order in which they tell the most: first a seed of everything.

    Then those that go on to the whole published budget.
    """
    pairs = [(method, seed) for seed in range(seeds) for method in METHODS]
    pairs[len(METHODS) : len(METHODS)] = [(baseline, 0) for baseline in BASELINES]

    known = config_names()
    names = [
        (f"{family}/{method}", seed)
        for method, seed in pairs
        for family in families
        if f"{family}/{method}" in known and (method, seed) in ONLY.get(family, pairs)
    ]
    shorter = {name: {"iterations": number} for name, number in ITERATIONS.items()}

    def job(name: str, seed: int, settings: dict[str, int], label: str = "") -> Job:
        where = folder / f"{name.replace('/', '-')}-seed{seed}"
        return Job(name, {"seed": seed, **settings}, where, label)

    return (
        [job(name, seed, shorter.get(name, {})) for name, seed in names],
        [
            job(name, seed, {}, ", whole budget")
            for name, seed in names
            if name in shorter and name.endswith("maml_trpo")
        ],
    )


if __name__ == "__main__":
    run_script(main)
