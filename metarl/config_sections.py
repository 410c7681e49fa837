"""Sections of the config that are of training as a whole: its evaluations and its tracking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from metarl.core.errors import MAX_ADAPTATIONS, ConfigError, check_amount, nearest, shown
from metarl.core.schema import Count, Section
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class ValidationConfig(Section):
    """Evaluation while training, on the tasks of the family's set `validation`: the return before
    and after adaptation, as `metarl evaluate --split validation` measures it."""

    every: Annotated[int, Field(ge=0)] = 0
    """Number of iterations between evaluations, of which the last iteration has one too; 0 for
    none. With evaluations, the checkpoint `best` is that with the highest return after adaptation
    on validation tasks. They do not change what is learned."""
    tasks: Count = 20
    """Number of validation tasks."""
    episodes: Count | None = None
    """Episodes per task, before and after each adaptation; null for as many as in training."""
    steps: Annotated[int, Field(ge=0, le=MAX_ADAPTATIONS)] | None = None
    """Adaptations; null for as many as in training."""

    def amounts(self, sampling: SamplingConfig) -> dict[str, int]:
        """Return the numbers of `tasks`, `episodes` and `steps` by name."""
        episodes, steps = self.episodes, self.steps
        return {
            "tasks": self.tasks,
            "episodes": sampling.num_episodes if episodes is None else episodes,
            "steps": sampling.adaptation_steps if steps is None else steps,
        }

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        """Check that the evaluations are possible on a family.

        Raises:
            ConfigError: if they are not; names the key.
        """
        if not self.every:
            return
        amounts = self.amounts(sampling)
        episodes = {f"evaluation.{key}": amounts[key] for key in ("tasks", "episodes")}
        check_amount({**episodes, "env.horizon": family.horizon})
        try:
            family.tasks("validation", self.tasks)
        except ValueError as error:
            reason = str(error).removeprefix("num_tasks: ")
            raise ConfigError(f"evaluation.tasks: {reason}") from None


TRACKERS = ("wandb", "tensorboard", "csv")


def tracker_names(value: Any) -> Any:
    """Return the trackers of a config as a tuple of names; one name may stand alone, or be `none`.

    Raises:
        ValueError: if a name is neither one of `TRACKERS` nor package.module:Class, or is there
            twice.
    """
    names = () if value in ("none", ("none",)) else (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        return names  # of which the type is wrong
    for name in names:
        if name not in TRACKERS and ":" not in name:
            if name == "none":
                raise ValueError(f"expected none alone, got {', '.join(names)}")
            known = ", ".join(TRACKERS)
            raise ValueError(
                f"expected {known}, none or package.module:Class, got {shown(name)}"
                f"{nearest(name, TRACKERS)}"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"expected each tracker once, got {', '.join(names)}")
    return names


class TrackingConfig(Section):
    """Tracking of the metrics, by Weights & Biases (W&B) and others. `metrics.jsonl` in the run's
    folder has them whatever is tracked."""

    trackers: Annotated[tuple[str, ...], BeforeValidator(tracker_names)] = ("wandb",)
    """What records the metrics: `wandb`, `tensorboard`, `csv`, your own as package.module:Class,
    several of them as a list, or `none`."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Mode of W&B; `auto` is online if you are logged in and offline otherwise."""
    project: str = "metarl"
    """Name of the project in W&B."""
    entity: str | None = None
    """User or team of the project in W&B; null for your default entity."""
    artifacts: Literal["all", "last", "none"] = "last"
    """What W&B stores as artifacts: `all` checkpoints, one every `checkpoint_every` iterations; the
    `last` one, when training ends or is stopped; or `none`. The run's folder has all of them."""
