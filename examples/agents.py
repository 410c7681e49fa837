"""Methods on the same tasks: the return by episodes of experience, and what noise, new tasks and
sequences of tasks cost.

    python -m examples.agents RUN [RUN ...] --out docs/results/agents.json
    python -m examples.agents --tables docs/results/agents.json

The first command evaluates runs and adds the means of all test tasks to the file; runs of one
method on one family are its seeds. The second one prints the tables of docs/comparison.md, and of
docs/objectives.md from docs/results/objectives.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from examples.worst_tasks import worst
from metarl.config import Config
from metarl.core.statistics import mean_interval
from metarl.envs import FAMILIES
from metarl.evaluation.compare import RANDOM, evaluate_run
from metarl.evaluation.continual import forgetting
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.evaluation.protocols import perturbed_families
from metarl.runs.atomic_io import write_atomically
from metarl.runs.result import Evaluation, part_label, pooled_interval
from metarl.runs.run import Run

EXPERIENCE = "few_episode"
DISTURBED, UNADAPTED = "disturbed", "unadapted"
MEASUREMENTS = (EXPERIENCE, DISTURBED, "continual")
"""What is measured by default. UNADAPTED is DISTURBED without adaptation, in a row of its own."""
SETTINGS: dict[str, dict[str, Any]] = {
    DISTURBED: {"steps": 2, "episodes": 5},
    UNADAPTED: {"steps": 0, "episodes": 5},
    "continual": {"steps": 1, "episodes": 5, "tasks": 100},
}
"""Settings of measurements, where not the defaults."""
NOMINAL, NEW_TASKS = "nominal", "out of distribution"
SHOCKS = {
    NOMINAL: "undisturbed",
    "observation_noise 0.1": "noise 0.1",
    "action_delay 2": "2 steps late",
    "motor_strength 0.6": "60% strength",
    NEW_TASKS: "new tasks",
}
"""Of the parts of `robust` and `ood`, those in the table, with the titles of its columns."""
SEQUENTIAL = "sequential"
OWN_SETTINGS = ("action_scale", "observe_task")
"""Settings of a family that belong to the agent: the unit of its actions, what an oracle sees."""


def main() -> None:
    """Evaluate runs, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="the file that results are added to")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of a file")
    parser.add_argument("--deterministic", action="store_true", help="measure mean actions")
    choices = (*MEASUREMENTS, UNADAPTED)
    parser.add_argument(
        "--measure",
        nargs="+",
        choices=choices,
        default=MEASUREMENTS,
        help="what to measure; unadapted is disturbed without adaptation, in a row of its own",
    )
    args = parser.parse_args()
    if args.tables:
        print("\n".join(tables(read(args.tables))))
    elif not args.runs or args.out is None:
        parser.error("expected RUN ... --out FILE, or --tables FILE")
    for folder in args.runs:
        config = Run.open(folder).config
        family = tasks_text(config)
        against = [] if RANDOM in read(args.out).get(family, {}) else [RANDOM]
        found = measure(folder, args.measure, args.deterministic, against)
        stored = read(args.out)
        methods = stored.setdefault(family, {})
        for method, result in found.items():
            methods.setdefault(method, {}).setdefault(str(config.seed), {}).update(result)
        write_atomically(args.out, (json.dumps(stored, allow_nan=False) + "\n").encode())
        print(folder)


def read(file: Path) -> dict[str, Any]:
    """Return the results in a file; none if there is no file."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def tasks_text(config: Config) -> str:
    """Return a family and its settings, as far as they are not the defaults, as text."""
    family: Any = FAMILIES[config.env.name]
    default = family()
    changed = (
        f"{key}: {value}"
        for key, value in config.to_dict()["env"].items()
        if key not in ("family", *OWN_SETTINGS) and value != getattr(default, key)
    )
    return ", ".join([config.env.name, *changed])


def measure(
    folder: Path, measurements: Sequence[str], deterministic: bool, against: Sequence[str]
) -> dict[str, Any]:
    """Return the results of a run, and of its baselines by experience, by row of the tables.

    Returns:
        The cost of the training, `env_steps` and `core_minutes`, which is the number of iterations
        times the median of their seconds, on the run's threads; and for each part that is measured
        `x`, `num_all_tasks`, and `returns`, (B, P), means over episodes. Of disturbances P is 1:
        the returns after the last adaptation. If tasks repeat, as the distribution is finite, there
        are `tasks` too, (B, task_dim).
    """
    run = Run.open(folder)
    seconds = [line["seconds"] for line in run.timings()]
    cost = {
        "env_steps": run.metrics()[-1]["env_steps"],
        "core_minutes": round(len(seconds) * float(np.median(seconds)) / 60, 1),
        "deterministic": deterministic,
    }
    found: dict[str, Any] = {}
    for name in measurements:
        settings = {**SETTINGS.get(name, {}), "deterministic": deterministic}
        own = f"{run.config.method}, not adapting" if name == UNADAPTED else run.config.method
        found.setdefault(own, cost.copy())
        if name in (DISTURBED, UNADAPTED):
            under = under_disturbances(run, **settings)
            results = {part_label(own, part): result for part, result in under.items()}
        else:
            baselines = against if name == EXPERIENCE else []
            found |= {label: {} for label in baselines}
            with TemporaryDirectory() as out:
                results, _ = evaluate_run(
                    folder, protocol=name, against=baselines, out=Path(out), **settings
                )
        for method, parts in found.items():
            for part in (name, *SHOCKS, SEQUENTIAL):
                result = results.get(part_label(method, part if part != name else ""))
                if result is not None:
                    first = len(result.x) - 1 if part in SHOCKS else 0
                    parts[part] = {
                        "x": list(result.x[first:]),
                        "num_all_tasks": result.num_all_tasks,
                        "returns": np.round(result.by_task[:, first:], 2).tolist(),
                    }
                    if result.num_all_tasks is not None:
                        parts[part]["tasks"] = np.round(result.tasks, 6).tolist()
    return found


def under_disturbances(run: Run, **settings: Any) -> dict[str, Evaluation]:
    """Return what a run reaches under each of the `SHOCKS` that its family can have."""
    agent, config, family = load(run.directory), run.config, run.config.env
    settings |= {"threads": config.num_threads, "on_failure": config.on_failure}
    played = {part: (env, "test") for part, env in perturbed_families(family).items()}
    if "ood" in family.splits:
        played[NEW_TASKS] = family, "ood"
    return {
        part: evaluate(agent, env, split=split, **settings)
        for part, (env, split) in played.items()
        if part in SHOCKS
    }


def evaluation(family: str, part: Mapping[str, Any]) -> Evaluation:
    """Return stored means as the result of an evaluation with one episode, whose tasks differ if
    they are not stored."""
    return Evaluation(
        family=family.partition(",")[0],
        split="test",
        task_hash="",
        tasks=np.array(part.get("tasks", np.arange(len(part["returns"]))[:, None])),
        returns=np.array(part["returns"])[..., None],
        num_all_tasks=part["num_all_tasks"],
        x=tuple(part["x"]),
    )


def tables(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of all tables, in Markdown."""
    for family, methods in stored.items():
        played = having(EXPERIENCE, methods)
        if played:
            yield from (f"**{family}**", "", *experience_table(family, played), "")
    for family, methods in stored.items():
        shaken = having(NOMINAL, methods)
        if shaken:
            yield from (f"**{family}**", "", *disturbance_table(family, shaken), "")


def having(part: str, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the seeds that have a part, by method; methods without any are left
    out."""
    found = {
        name: {seed: parts for seed, parts in seeds.items() if part in parts}
        for name, seeds in methods.items()
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def any_of(seeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the results of the first seed."""
    return next(iter(seeds.values()))


def experience_table(family: str, methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of returns by episodes of experience, the best last return
    first."""
    parts = {
        name: [evaluation(family, seed[EXPERIENCE]) for seed in seeds.values()]
        for name, seeds in methods.items()
    }
    x = max((seeds[0].x for seeds in parts.values()), key=len)
    yield f"| method | seeds | env steps | minutes | {' | '.join(map(str, x))} |"
    yield "|---" * (len(x) + 4) + "|"

    for name in sorted(parts, key=lambda name: -mean(parts[name])[-1]):
        runs = methods[name].values()
        costs = ["", ""]
        if "env_steps" in any_of(methods[name]):  # which the untrained agent does not have
            steps, minutes = (
                np.mean([run[key] for run in runs]) for key in ("env_steps", "core_minutes")
            )
            costs = [f"{steps / 1e6:.2g}M", f"{minutes:.0f}"]
        means = mean(parts[name])
        cells = [number(each) for each in means[:-1]]
        cells += [with_interval(means[-1], *pooled_interval(parts[name])[-1])]
        cells += [""] * (len(x) - len(means))
        yield f"| {name} | {len(runs)} | {' | '.join((*costs, *cells))} |"


def disturbance_table(family: str, methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of returns under disturbances, and of forgetting."""
    shocks = [part for part in SHOCKS if any(part in any_of(seeds) for seeds in methods.values())]
    titles = [SHOCKS[part] for part in shocks]
    titles.insert(1, "worst fifth")  # of the tasks, undisturbed
    titles += ["just met", "forgotten"]
    yield f"| method | seeds | {' | '.join(titles)} |"
    yield "|---" * (len(titles) + 2) + "|"
    for name, seeds in methods.items():
        cells = []
        for part in shocks:
            runs = [evaluation(family, seed[part]) for seed in seeds.values() if part in seed]
            cells.append(with_interval(mean(runs)[-1], *pooled_interval(runs)[-1]) if runs else "")
            if part == NOMINAL:
                lowest = np.array([[worst(run.by_task)[-1]] for run in runs])  # (S, 1)
                cells.append(with_interval(lowest.mean(), *map(float, mean_interval(lowest))))
        parts = [seed[SEQUENTIAL] for seed in seeds.values() if SEQUENTIAL in seed]
        met = [forgetting(evaluation(family, part)) for part in parts]
        for measure_name in ("plasticity", "forgetting"):
            if not met:
                cells.append("")
                continue
            scores = np.array([getattr(each, measure_name) for each in met])  # (S, sequences)
            cells.append(with_interval(scores.mean(), *map(float, mean_interval(scores))))
        yield f"| {name} | {len(seeds)} | {' | '.join(cells)} |"


def mean(runs: Sequence[Evaluation]) -> np.ndarray:
    """Return the mean return over the tasks of all runs at each x, (P,)."""
    return np.mean([run.mean for run in runs], axis=0)


def with_interval(value: float, low: float, high: float) -> str:
    """Return a return and its interval as text; without the interval where it is NaN."""
    interval = f" ({number(low)} to {number(high)})" if np.isfinite(low) else ""
    return number(value) + interval


def number(value: float) -> str:
    """Return a return with one decimal, or none where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    main()
