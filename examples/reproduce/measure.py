"""Evaluate finished runs as the MAML paper did, and gather the results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.reproduce.published import PUBLISHED
from metarl.agents.maml.config import MAMLConfig
from metarl.agents.maml.schedules import Schedule, step_scale
from metarl.config_files import read_config
from metarl.core.errors import UserError, warn
from metarl.evaluation.evaluate import evaluate
from metarl.runs.atomic_io import write_atomically
from metarl.runs.provenance import provenance
from metarl.runs.result import Evaluation
from metarl.runs.run import Run, encode
from metarl.training.continuation import check_same_run
from metarl.training.many_runs import Job

STEPS = 3
TASKS = 40
FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Factors on a baseline's step size; the best one on validation tasks is used."""
GEOMETRIC = ("point_nav",)  # where the paper's third step is too long
AVERAGED = ("half_cheetah_vel", "ant_vel", "ant_dir")  # whose last iterations bounce, if tuned
# Whose initial policy is `random`, if not maml_trpo's:
UNTRAINED = {"ant_vel": "maml_trpo_tuned", "ant_dir": "cavia_tuned"}
MAX_CURVE_POINTS = 120  # of a learning curve in the results file
BY_SEED = ("seeds", "returns", "env_steps", "hours", "curve")


def measure(job: Job) -> None:
    """Evaluate a run and its baselines at the last of the job's iterations.

    Baselines are fine-tuned with the published step size and, as `NAME, best step`, with the one
    that is best after one step on validation tasks. In some families the others also adapt with
    each step half of the last, as `NAME, geometric steps`, or tuned runs with the mean of their
    last checkpoints, as `NAME, averaged`.
    """
    path = result_file(job)
    if path.exists():
        return
    run = Run.open(job.folder)
    state = run.load(str(job.config.iterations))
    method = run.config.method
    agents: dict[str, Mapping[str, Any] | None] = {method: state.agent}
    adapts = run.config.sampling.adaptation_steps > 0
    first = run.config.seed == 0 and not list(path.parent.glob("figure-*.json"))
    if first and method == UNTRAINED.get(run.config.env.name, "maml_trpo"):
        agents["random"] = None
    if adapts and method.endswith("_tuned") and run.config.env.name in AVERAGED:
        agents[f"{method}, averaged"] = run.load("average").agent
    results = {}
    for name, learned in agents.items():
        results[name] = play(run, learned)
        if name in ("pretrained", "random"):
            tried = [play(run, learned, factor, split="validation") for factor in FACTORS]
            best = FACTORS[int(np.argmax([result["mean"][1] for result in tried]))]
            results[f"{name}, best step"] = play(run, learned, best)
        elif run.config.env.name in GEOMETRIC and adapts:
            results[f"{name}, geometric steps"] = play(run, learned, schedule="geometric")
    content = {"methods": results, "provenance": provenance()}
    write_atomically(path, encode(content))


def result_file(job: Job) -> Path:
    """Return the result file of a job."""
    return job.folder / f"figure-{job.config.iterations}.json"


def play(
    run: Run,
    learned: Mapping[str, Any] | None,
    factor: float = 1.0,
    *,
    schedule: Schedule = "halving",
    split: str = "test",
) -> dict[str, Any]:
    """Evaluate adaptations with a factor on the run's step size, from the paper's episodes.

    Step sizes are chosen on half as many validation tasks.
    """
    config = run.config
    assert isinstance(config.agent, MAMLConfig)
    inner = config.agent.inner
    inner = inner.replace(lr=factor * inner.lr, test_lr_schedule=schedule)
    config = config.replace(agent=config.agent.replace(inner=inner))
    result = evaluate(
        config.make_agent(learned),
        config.env,
        split=split,
        tasks=TASKS if split == "test" else TASKS // 2,
        episodes=PUBLISHED[config.env.name].episodes,
        steps=STEPS if split == "test" else 1,
        threads=config.num_threads,
        on_failure=config.on_failure,
    )
    scales = [factor * step_scale(schedule, step) for step in range(result.x[-1])]
    return {**result.to_dict(), "step_scales": scales}


def finished_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that are measured; with a warning, without runs that were trained before
    their config changed."""
    finished = []
    for job in (each for each in jobs if result_file(each).exists()):
        try:
            check_same_run(Run.open(job.folder), job.config)
        except UserError as error:
            warn(f"left out: {error}")
        else:
            finished.append(job)
    return finished


def gather(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the results of finished jobs: by family and method, over seeds."""
    found: dict[str, Any] = {}
    for job in jobs:
        run, iterations = Run.open(job.folder), job.config.iterations
        content = json.loads(result_file(job).read_text())
        for method, result in content["methods"].items():
            row = found.setdefault(result["family"], {}).setdefault(
                method + job.label * (not method.startswith("random")),
                {
                    "seeds": [],
                    "returns": [],
                    "env_steps": [],
                    "hours": [],
                    "curve": [],
                    "task_hash": result["task_hash"],
                    "tasks": result["tasks"],
                    "num_all_tasks": result["num_all_tasks"],
                    "step_scales": result["step_scales"],
                    "config": fingerprint(job),
                    "versions": content["provenance"]["versions"],
                    "processor": content["provenance"]["processor"],
                },
            )
            by_task = np.mean(result["returns"], axis=2)  # (B, steps + 1)
            row["seeds"].append(run.config.seed)
            row["returns"].append(np.round(by_task, 2).tolist())
            if not method.startswith("random"):
                metrics, timings = run.metrics()[:iterations], run.timings()[:iterations]
                row["env_steps"].append(metrics[-1]["env_steps"])
                row["hours"].append(round(sum(line["seconds"] for line in timings) / 3600, 2))
                row["curve"].append(curve(metrics))
    return found


def evaluations(family: str, row: Mapping[str, Any]) -> list[Evaluation]:
    """Return the gathered results of a method, seed by seed, with one episode: their mean."""
    return [
        Evaluation(
            family=family,
            split="test",
            task_hash=row["task_hash"],
            tasks=np.array(row["tasks"]),
            returns=np.array(returns)[..., None],
            num_all_tasks=row["num_all_tasks"],
        )
        for returns in row["returns"]
    ]


def fingerprint(job: Job) -> str:
    """Return a hash of a job's config without its seed."""
    settings = {**read_config(job.name), **job.settings, "seed": None}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def merge(known: dict[str, Any], found: dict[str, Any], current: set[str]) -> dict[str, Any]:
    """Add known results, whose runs may be deleted, to the results that were found now.

    Args:
        known, found: as `gather` returns them; a seed that is in both is taken from `found`.
        current: the fingerprints of the experiments as they are now. What is known of others is
            left out.
    """
    merged: dict[str, Any] = {family: {} for family in {**known, **found}}
    for family, rows in merged.items():
        old, new = known.get(family, {}), found.get(family, {})
        for method in {**old, **new}:
            parts = [new[method]] if method in new else []
            if method in old and old[method].get("config") in current:
                parts.append(old[method])
            if parts:
                rows[method] = {**parts[0], **by_seed(parts)}
    return {family: rows for family, rows in merged.items() if rows}


def by_seed(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each seed, in their order, from the first part that has it."""
    places: dict[int, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for place, seed in enumerate(part["seeds"]):
            places.setdefault(seed, (number, place))
    chosen = [places[seed] for seed in sorted(places)]
    return {
        name: [parts[number][name][place] for number, place in chosen if parts[number][name]]
        for name in BY_SEED
    }


def curve(metrics: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return the learning curve at some points: env steps, return before, return after.

    Each point is the mean over as many iterations, those since the last; the last, over what is
    left.
    """
    names = ("env_steps", "return_before", "return_after")
    rows = np.array([[line[name] for name in names] for line in metrics])
    size = math.ceil(len(rows) / MAX_CURVE_POINTS)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [[group[-1, 0], *np.round(group[:, 1:].mean(axis=0), 2)] for group in groups]
