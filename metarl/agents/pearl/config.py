"""The config of PEARL: networks, update and replay buffer."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from pydantic import Field

from metarl.agents.base import AgentConfig, AgentSetup
from metarl.agents.pearl.agent import PEARLAgent
from metarl.agents.pearl.networks import NetworkConfig, Networks
from metarl.agents.pearl.replay import SLOT_BYTES, Replay, RowFormat
from metarl.agents.pearl.update_config import UpdateConfig
from metarl.core.actors import centre_and_half_width
from metarl.core.errors import ConfigError, check
from metarl.core.layers import check_num_weights
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class PEARLConfig(AgentConfig):
    """PEARL: a latent task variable, inferred from transitions, and off-policy learning."""

    kind: Literal["pearl"] = "pearl"
    """The kind of agent."""
    network: NetworkConfig = NetworkConfig()
    update: UpdateConfig = UpdateConfig()
    replay_size: Annotated[int, Field(ge=1)] = 1_000_000
    """Transitions that the replay buffer keeps, of all tasks together; the oldest iterations go."""
    prior_episodes: Annotated[int, Field(ge=1)] = 1
    """Episodes of a trial that are played under the prior, before the posterior is used. The
    published evaluation has two."""

    # The loss of the encoder tells what the encoder is.
    of_training: ClassVar[tuple[str, ...]] = (
        "replay_size",
        *(f"update.{name}" for name in UpdateConfig.model_fields if name != "encoder_loss"),
    )

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        check_actions(family.action_space)

    def check_training(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        if not sampling.train_tasks:
            raise ConfigError(
                "kind: pearl keeps the transitions of each training task, so it needs a fixed set "
                "of them: expected sampling.train_tasks of at least 1, such as 100, got 0"
            )
        size = self.replay_size
        played = sampling.max_steps(family.horizon)
        expected = f"at least the {played:,} steps of an iteration"
        check(size >= played, "replay_size", expected, size)
        batch = self.update.batch
        check(size >= batch, "update.batch", f"at most {size:,}, the replay_size", batch)
        loss, tasks = self.update.encoder_loss, min(self.update.meta_batch, sampling.train_tasks)
        expected = (
            "critic, as update.meta_batch or sampling.train_tasks is 1, and metric compares tasks"
        )
        check(loss != "metric" or tasks >= 2, "update.encoder_loss", expected, loss)
        known = family.num_all_tasks if loss == "metric" else None
        expected = (
            f"critic, or sampling.train_tasks of at most {known}, the tasks that there are, as "
            "metric would tell one task from itself"
        )
        fits = known is None or sampling.train_tasks <= known
        check(fits, "update.encoder_loss", expected, loss)
        most = max(1, sampling.adaptation_steps)
        expected = (
            f"at most {most} with sampling.adaptation_steps {sampling.adaptation_steps}, as no "
            "episode would be played under the posterior"
        )
        check(self.prior_episodes <= most, "prior_episodes", expected, self.prior_episodes)
        stored, source = size, "the replay_size"
        if self.update.context_from != "all":
            stored = self.prior_episodes * sampling.num_episodes * family.horizon
            source = "the steps of a task in an iteration that are played under the prior"
            source += ", of which more sampling.num_episodes have more"
            expected = (
                "all, as each task has one step in an iteration; or more sampling.num_episodes"
            )
            check(stored > 1, "update.context_from", expected, self.update.context_from)
        expected = f"at most {stored:,}, {source}"
        check(self.update.context <= stored, "update.context", expected, self.update.context)

    def replay_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        """Return the bytes that the full replay buffer takes in memory."""
        row = self._row_format(family.observation_space, family.action_space)
        return self.replay_size * (4 * row.size + SLOT_BYTES)  # float32

    def update_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        """The activations of both critics, twice: with their derivatives."""
        rows = min(self.update.meta_batch, sampling.train_tasks) * self.update.batch
        return 4 * rows * 2 * 2 * sum(self.network.hidden)

    def memory_advice(self, family: TaskFamily, sampling: SamplingConfig) -> list[str]:
        if self.replay_memory(family, sampling) > self.update_memory(family, sampling):
            return ["a smaller --agent.replay-size"]
        return ["a smaller --agent.update.batch or --agent.update.meta-batch"]

    def _networks(self, observations: Box, actions: Box | Discrete) -> Networks:
        return Networks(
            self.network,
            math.prod(observations.shape),
            math.prod(check_actions(actions).shape),
            fixed_variance=self.update.encoder_loss == "metric",
        )

    def _row_format(self, observations: Box, actions: Box | Discrete) -> RowFormat:
        centre, half_width = centre_and_half_width(check_actions(actions))
        return RowFormat(
            math.prod(observations.shape),
            centre.astype(np.float32),
            half_width.astype(np.float32),
        )

    def make(self, setup: AgentSetup) -> PEARLAgent:
        spaces = setup.observation_space, setup.action_space
        networks = self._networks(*spaces)
        encoder = networks.num_weights("encoder")
        others = sum(map(networks.num_weights, networks.sizes)) - encoder
        check_num_weights(
            {
                "network.hidden": (others, self.network.hidden),
                "network.encoder_hidden": (encoder, self.network.encoder_hidden),
            }
        )
        return PEARLAgent(
            networks,
            networks.init(setup.rng),
            Replay(self.replay_size, self._row_format(*spaces), self.prior_episodes),
            self.update,
            self.prior_episodes,
            setup,
        )

    def may_average(self, name: str) -> bool:
        return name.startswith("params.")

    def may_transfer(self, name: str) -> bool:
        if name == "log_temperature":  # otherwise it is a setting
            return self.update.learn_temperature
        return not name.startswith("adam.") and name != "num_updates"

    def remarks(self, iterations: int) -> list[str]:
        if (warmup := self.update.warmup_iterations) < iterations:
            return []
        return [
            f"agent.update.warmup_iterations: {warmup:,} leaves nothing to learn in {iterations:,} "
            f"iterations, which all only collect; expected less than {iterations:,}"
        ]


def check_actions(space: Box | Discrete) -> Box:
    """Return an action space with bounds.

    Raises:
        ConfigError: if it is another one.
    """
    if isinstance(space, Discrete):
        raise ConfigError("kind: pearl has continuous actions only; expected another kind")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ConfigError("kind: pearl needs an action space with bounds")
    if not (space.low < space.high).all():
        raise ConfigError(
            "kind: pearl needs an action space whose bounds differ; leave out of the actions what "
            "has one value only"
        )
    return space
