"""The runs of a report in groups: runs with equal settings are seeds of one method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.core.errors import UserError
from metarl.core.parsing import format_value, printable
from metarl.reporting.summary import RunSummary
from metarl.runs.identity import settings, settings_digest

MAX_NAMED = 4
"""Number of differing keys in the name of a group, unless more are needed to tell groups apart."""
MAX_VALUE = 32
"""Characters of a value in the name of a group."""


def group_runs(summaries: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Return the runs of each method, its seeds, by the name of the group.

    A group has equal settings (`metarl.runs.identity.settings`). Its name is the method; where
    groups share a method, followed by the settings in which these groups differ, such as
    `maml_trpo (agent.inner.lr: 0.1)`.

    Raises:
        UserError: if a seed of a group is there twice; names both runs.
    """
    methods: dict[str, dict[str, list[RunSummary]]] = {}
    for summary in summaries:
        groups = methods.setdefault(summary.method, {})
        digest = settings_digest(summary.run.config, summary.run.origin)
        runs = groups.setdefault(digest, [])
        seed = summary.run.config.seed
        for other in runs:
            if other.run.config.seed == seed:
                raise UserError(
                    f"{summary.run.directory}: has the settings and the seed {seed} of "
                    f"{other.run.directory}; expected each seed of a method once"
                )
        runs.append(summary)
    named: dict[str, list[RunSummary]] = {}
    for method, groups in methods.items():
        firsts = [runs[0].run for runs in groups.values()]
        names = differing_settings([settings(run.config, run.origin) for run in firsts])
        for name, (digest, runs) in zip(names, groups.items(), strict=True):
            label = f"{method} ({name})" if name else method
            # Different values may have the same text, such as 1 and "1".
            named[f"{label} {digest}" if label in named else label] = runs
    return named


def differing_settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which each group differs from others, as text; '' for an only group.

    Args:
        groups: the settings of each group by dotted path, all different.
    """
    paths = {path: None for values in groups for path in values}
    texts = {path: [setting_text(path, values) for values in groups] for path in paths}
    different = [path for path in paths if len({*texts[path]}) > 1]
    needed: list[str] = []  # those that tell all groups apart

    def told_apart(keys: Sequence[str]) -> int:
        return len({tuple(texts[key][i] for key in keys) for i in range(len(groups))})

    for path in different:
        if told_apart([*needed, path]) > told_apart(needed):
            needed.append(path)
    others = [path for path in different if path not in needed]
    shown = [*needed, *others][: max(MAX_NAMED, len(needed))]
    more = f", and {len(different) - len(shown)} more" if len(different) > len(shown) else ""
    return [", ".join(texts[path][i] for path in shown) + more for i in range(len(groups))]


def setting_text(path: str, values: Mapping[str, Any]) -> str:
    """Return one setting as text; long values are cut, and told apart by a digest."""
    if path not in values:
        return f"no {path}"
    text = printable(format_value(values[path]))
    if len(text) > MAX_VALUE:
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        text = f"{text[: MAX_VALUE - 10]}... {digest}"
    return f"{path}: {text}"
