"""Checks that a task family fulfils the contract of `metarl.envs.TaskFamily` and `BatchEnv`.

for check in check_family(MyFamily()):
    print(check.name, check.outcome, check.reason)

Each check is a function of the family. It returns a note ('' for none) if the family passes, and
raises `Violation` or `Skipped` with the reason otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metarl.envs.base import TaskFamily
from metarl.envs.contract import (
    batches,
    declaration,
    divergence,
    expected_rewards,
    identifiability,
    physics,
    rendering,
    tasks,
    whole_episodes,
)
from metarl.envs.contract.declaration import UNAVAILABLE
from metarl.envs.contract.recording import Skipped, Violation
from metarl.envs.errors import first_line, located

__all__ = ["CHECKS", "UNAVAILABLE", "Check", "check_family", "run_check"]

CHECKS: dict[str, Callable[[TaskFamily], str]] = {
    "availability": declaration.availability,
    "declaration": declaration.declaration,
    "spaces": declaration.spaces,
    "sampled tasks": tasks.sampled_tasks,
    "results of step": batches.results_of_step,
    "stability": physics.stability,
    "sampling's randomness": tasks.sampling_randomness,
    "task coordinates": tasks.task_coordinates,
    "task sets": tasks.task_sets,
    "task effect": identifiability.task_effect,
    "action effect": identifiability.action_effect,
    "hidden task": identifiability.hidden_task,
    "actions": batches.actions,
    "episodes' randomness": batches.episodes_randomness,
    "fresh arrays": batches.fresh_arrays,
    "batch equals single": batches.batch_equals_single,
    "subsets": batches.subsets,
    "threads": batches.threads,
    "reset": batches.reset_clears_state,
    "advance": batches.advance_equals_step,
    "whole episodes": whole_episodes.whole_episodes,
    "expected rewards": expected_rewards.expected_rewards,
    "divergence": divergence.divergence,
    "caption": rendering.caption,
    "pictures": rendering.pictures,
    "gymnasium": rendering.gymnasium_checker,
    "speed": rendering.speed_of_step,
}
"""The checks by name; each relies only on checks above it."""

FOUNDATIONS = ("availability", "spaces", "sampled tasks", "results of step")
"""Checks whose failure makes all later checks meaningless."""


@dataclass(frozen=True)
class Check:
    """The result of one check; `reason` says why it failed or was skipped, or what holds."""

    name: str
    outcome: Literal["pass", "FAIL", "skipped"]
    reason: str


def check_family(family: TaskFamily) -> list[Check]:
    """Check a family against its contract: one result per entry of `CHECKS`, in that order."""
    done: list[Check] = []
    missing = ""
    for name in CHECKS:
        if missing:
            done.append(Check(name, "skipped", f"it relies on: {missing}"))
            continue
        done.append(run_check(name, family))
        if name in FOUNDATIONS and done[-1].outcome != "pass":
            missing = name
    return done


def run_check(name: str, family: TaskFamily) -> Check:
    """Run one of the `CHECKS` by its name."""
    function = CHECKS[name]
    try:
        with physics.mujoco_warnings():  # without MUJOCO_LOG.TXT in the current folder
            note = function(family)
        # The docstring of a check states the property that it checks.
        return Check(name, "pass", note or (function.__doc__ or "").strip())
    except Skipped as reason:
        return Check(name, "skipped", first_line(reason))
    except Violation as reason:
        return Check(name, "FAIL", first_line(reason))
    except Exception as error:  # any error of a user's family is a failure of the check
        return Check(name, "FAIL", f"raised {located(error)}")
