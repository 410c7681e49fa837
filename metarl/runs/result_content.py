"""The JSON content of an evaluation, in its present form or that of an earlier version, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.core.errors import shown
from metarl.rollout.failures import Failure

LEGACY_KEYS = {"axis": "x_label", "points": "x"}
"""Earlier keys of result files, and their present names."""
LEGACY_X_LABELS = {"adaptation steps": "adaptations"}
"""Earlier labels in result files, and their present texts."""
TASKS_MET = "tasks met"
"""The label of x, from 0 to L, where tasks are in sequences of L."""


def evaluation_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `Evaluation` from its JSON content; statistics are not read.

    Raises:
        KeyError, TypeError, ValueError: if `content` is not a valid result.
    """
    content = dict(content)
    content = {LEGACY_KEYS.get(key, key): value for key, value in content.items()} | content
    texts = text_fields(content)
    arrays = array_fields(content)
    x, tasks = arrays["x"], arrays["tasks"]
    # Earlier files do not say it, but only a finite distribution repeats tasks, which were drawn by
    # chance, and so often that none was left out.
    num_distinct = len(np.unique(tasks, axis=0))
    default = num_distinct if num_distinct < len(tasks) else None
    num_all_tasks = content.get("num_all_tasks", default)
    if not (num_all_tasks is None or type(num_all_tasks) is int):
        raise ValueError(f"num_all_tasks: expected a whole number, got {shown(num_all_tasks)}")
    length = content.get("sequence_length", len(x) - 1 if texts["x_label"] == TASKS_MET else 1)
    if type(length) is not int or length < 1 or len(tasks) % length:
        raise ValueError(f"{len(tasks)} tasks, sequence_length {shown(length)}")
    failures = content.get("failures", ())
    return {
        **texts,
        **arrays,
        "seed": content["seed"],
        "num_all_tasks": num_all_tasks,
        "failures": tuple(Failure(**{**each, "task": tuple(each["task"])}) for each in failures),
        "deterministic": content.get("deterministic") is True,
        "sequence_length": length,
    }


def text_fields(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of family, split, tasks and x."""
    texts = {name: content[name] for name in ("family", "split", "task_hash", "x_label")}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.isprintable():
            raise ValueError(f"{name}: expected text, got {shown(text)}")
    texts["x_label"] = LEGACY_X_LABELS.get(texts["x_label"], texts["x_label"])
    return texts


def array_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return x, tasks, returns and success, whose shapes agree."""
    tasks, returns = (np.array(content[name], np.float64) for name in ("tasks", "returns"))
    success = np.array(content["success"], bool) if "success" in content else None
    x = tuple(content["x"])
    if not all(type(value) is int for value in x):
        raise ValueError(f"x: expected whole numbers, got {shown(x)}")
    if not (tasks.ndim == 2 and returns.ndim == 3 and returns.size):
        raise ValueError(f"tasks and returns have the shapes {tasks.shape}, {returns.shape}")
    if returns.shape[:2] != (len(tasks), len(x)):
        raise ValueError(f"{len(tasks)} tasks, {len(x)} values of x, returns {returns.shape}")
    if success is not None and success.shape != returns.shape:
        raise ValueError(f"success has the shape {success.shape}, returns {returns.shape}")
    # The returns of episodes left out are null in the file, and become NaN.
    if not np.isfinite(tasks).all() or np.isinf(returns).any():
        raise ValueError("tasks and returns: expected finite numbers")
    return {"x": x, "tasks": tasks, "returns": returns, "success": success}
