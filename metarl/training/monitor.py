"""Warnings about a training run, derived from its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.core.parsing import is_number
from metarl.rollout.failures import Failure

MAX_REJECTIONS = 10  # consecutive line searches without an accepted step


class TrainingMonitor:
    """Warnings derived from logged metrics. Replaying the log restores its state, so a resumed run
    warns identically.

    Attributes:
        warnings: the text of each warning that holds at the last iteration, by kind.
    """

    def __init__(self, max_update_kl: float, *, adapts: bool = True) -> None:
        """Set up.

        Args:
            max_update_kl: KL divergence of an update, in nats, above which there is a warning.
            adapts: whether training has adaptations, so that one without effect is a fault.
        """
        self._max_update_kl, self._adapts = max_update_kl, adapts
        self._rejections = 0
        self.warnings: dict[str, str] = {}

    def __call__(self, metrics: Mapping[str, Any]) -> list[Failure]:
        """Process the metrics of one iteration, and return the warnings that are new in it."""
        kl = metrics.get("outer_kl")
        if not is_number(kl):  # no update was made, so the policy has not changed
            return []
        self._rejections = self._rejections + 1 if metrics.get("line_search_rejected") else 0
        found = {}
        if self._rejections >= MAX_REJECTIONS:
            found["line search"] = (
                f"the line search has rejected every step {MAX_REJECTIONS} times in a row"
            )
        for change in ("collapsed", "exploded"):
            if number := metrics.get(f"std_{change}"):
                found[change] = (
                    f"the policy's std has {change} in {number:.0f} of the action's numbers"
                )
        if kl > self._max_update_kl:
            limit = f"{self._max_update_kl:g}"
            found["divergence"] = f"the KL divergence of an update, {kl:.3g}, is far beyond {limit}"
        if self._adapts and metrics.get("adaptation_kl") == 0:
            found["adaptation"] = (
                "the adaptation changes no policy (adaptation_kl is 0): the episodes of a task "
                "have the same rewards, a task has one step, or the inner step size is 0"
            )
        before, self.warnings = self.warnings, found
        new = (text for kind, text in self.warnings.items() if kind not in before)
        return [Failure("warning", text) for text in new]
