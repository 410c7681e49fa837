"""Scores of stored results: what the tables and the figure show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from examples.agents.measure import SEQUENTIAL
from examples.worst_tasks import worst
from metarl.evaluation.continual import forgetting
from metarl.runs.result import Evaluation

WORST = "worst fifth"
"""Title of the mean over the worst fifth of the undisturbed tasks."""
MET, FORGOTTEN = SEQUENCE_TITLES = "current task", "forgotten"
"""Titles of the return on the current task, and of what is forgotten of it in the end."""


def having(part: str, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the seeds that have a part, by method; methods without any are left
    out."""
    found = {
        name: {seed: parts for seed, parts in seeds.items() if part in parts}
        for name, seeds in methods.items()
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def common(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored parts of the seeds of a method up to the last x that all of them have."""
    num = min(len(part["x"]) for part in parts)
    return [
        {**part, "x": part["x"][:num], "returns": [each[:num] for each in part["returns"]]}
        for part in parts
    ]


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


def worst_scores(runs: Iterable[Evaluation]) -> np.ndarray:
    """Return the mean of each run over the worst fifth of its distinct tasks, one at least, after
    the last adaptation, (S, 1)."""
    return np.array([worst(run.scores)[-1:] for run in runs])


def sequence_scores(family: str, seeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the return on the current task, and what is forgotten of it, by title, (S, sequences)
    each; nothing for a method without sequences."""
    parts = [seed[SEQUENTIAL] for seed in seeds.values() if SEQUENTIAL in seed]
    met = [forgetting(evaluation(family, part)) for part in parts]
    if not met:
        return {}
    return {
        MET: np.array([each.plasticity for each in met]),
        FORGOTTEN: np.array([each.forgetting for each in met]),
    }
