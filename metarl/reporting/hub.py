"""The front matter of a model card, as the Hugging Face hub reads it."""

from __future__ import annotations

import math
import re
from typing import Any

from metarl.core.parsing import dump_yaml, read_yaml
from metarl.reporting.summary import RunSummary, evaluation_names
from metarl.runs.printing import decimals
from metarl.runs.result import Evaluation, part_label

UNKNOWN_LICENSE = "unknown"
"""What the hub calls the license of a model whose license is not given."""

PUNCTUATION = " ,:()/+"
"""Characters that a name may have beside letters, digits, dots, dashes and underscores."""

TAGS = ("reinforcement-learning", "deep-reinforcement-learning", "meta-reinforcement-learning")


def front_matter(summary: RunSummary, name: str, license_id: str = UNKNOWN_LICENSE) -> str:
    """Return the front matter of the model card of a run: YAML between two lines of dashes.

    Args:
        summary: the run.
        name: name of the model.
        license_id: identifier of the license, as the hub writes it, such as apache-2.0.
    """
    config = summary.run.config
    results = [
        result_entry(evaluation, f"{evaluation.family}, {part_label(evaluation_name, part)}")
        for evaluation_name in evaluation_names([summary])
        for part, evaluation in summary.evaluations[evaluation_name].items()
    ]
    own = map(plain_name, (config.env.name, config.agent.kind))
    content: dict[str, Any] = {
        "library_name": "metarl",
        "pipeline_tag": "reinforcement-learning",
        "license": license_id,
        "tags": [*TAGS, *own],
    }
    if results:  # the hub refuses an index without results
        content["model-index"] = [{"name": plain_name(name), "results": results}]
    return f"---\n{dump_yaml(content)}---\n"


def result_entry(result: Evaluation, name: str) -> dict[str, Any]:
    """Return one evaluation as a result of the hub's `model-index`."""
    metrics, digits = [], decimals(result.mean)
    for x, mean, (low, high) in zip(result.x, result.mean, result.interval, strict=True):
        name_of_x = f"mean return, {result.x_label}: {x}"
        if math.isfinite(low):
            name_of_x += f" (95% interval {low:.{digits}f} to {high:.{digits}f})"
        value = round(float(mean), digits + 1)
        name_of_x = plain_name(name_of_x, f"{PUNCTUATION}%")
        metrics.append({"type": "mean_reward", "name": name_of_x, "value": value})
    return {
        "task": {"type": "reinforcement-learning", "name": "meta-reinforcement learning"},
        "dataset": {"type": plain_name(result.family), "name": plain_name(name)},
        "metrics": metrics,
    }


def plain_name(text: str, punctuation: str = PUNCTUATION) -> str:
    """Return a name with letters, digits, dots, dashes, underscores and some punctuation, and an
    underscore for all else, which the hub or a shell might interpret."""
    return re.sub(rf"[^\w.{punctuation}-]", "_", text)


def card_results(card: str) -> list[float]:
    """Return the mean returns before and after adaptations, of the first evaluation in the front
    matter of a model card; [] if there is none.

    Args:
        card: a model card of `front_matter`.
    """
    content = read_yaml(card.split("---\n")[1], "front matter")
    models = content.get("model-index", [])
    return [each["value"] for model in models for each in model["results"][0]["metrics"]]
