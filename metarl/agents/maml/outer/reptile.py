"""Reptile (Nichol et al. 2018): steps towards the adapted parameters, without derivatives through
the adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch
from metarl.agents.maml.surrogates import policy_loss
from metarl.agents.vector_adam import VectorAdam
from metarl.core.params import concatenate
from metarl.core.schema import Section
from metarl.core.timer import Timer


class ReptileConfig(Section):
    """The outer update: a step towards the mean of the adapted parameters.

    The episodes after adaptation are used for one more gradient step, so `adaptation_steps: 1`
    gives two steps for each task. With one step in total, Reptile would be joint training on all
    tasks.
    """

    update: Literal["reptile"] = "reptile"
    """The kind of outer update."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """`sgd` adds `lr` times the Reptile direction; `adam` takes the direction as the negative
    gradient of Adam."""
    lr: Annotated[float, Field(gt=0)] = 1.0
    """Step size of the optimiser."""

    max_update_kl: ClassVar[float] = 1.0

    def make(self, vector: Tensor) -> Reptile:
        """Make the outer update for meta-parameters `vector`, (P,)."""
        return Reptile(self, vector)


class Reptile:
    """The outer update of Reptile, batched (Nichol et al. 2018, algorithm 2)."""

    def __init__(self, config: ReptileConfig, vector: Tensor) -> None:
        self._lr = config.lr
        self._adam = VectorAdam(vector, config.lr) if config.optimizer == "adam" else None

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        old = objective.vector
        with timer("reptile direction"):
            direction = reptile_direction(objective)
        # Algorithm 2: phi <- phi + epsilon mean(W - phi)
        new = self._adam.step(old, -direction) if self._adam else old + self._lr * direction
        with timer("evaluation"):
            before, _ = objective.loss_and_kl(old)
            loss, kl = objective.loss_and_kl(new)
        return new, {
            "outer_kl": kl,
            "improvement": before - loss,
            "gradient_norm": float(direction.norm()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._adam.state_dict() if self._adam else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if self._adam:
            self._adam.load_state_dict(state)


def reptile_direction(objective: MetaObjective) -> Tensor:
    """Return the mean over tasks of adapted minus initial parameters after one further step on the
    query batch, (P,) (Nichol et al. 2018, algorithm 2), times the weights of the tasks.

    The direction needs no derivatives through the adaptation. All parameters adapt.

    Raises:
        NotFinite: if the direction is not finite; names the tasks.
    """
    meta, loop = objective.meta, objective.inner_loop

    def work(microbatch: MetaMicrobatch) -> Tensor:
        batch = microbatch.queries[-1].batch
        loss = policy_loss(batch, objective.policy, objective.surrogate)
        state = loop.step(meta, microbatch.inner_state, loss, rule_loss=batch.loss)
        # Sum over the tasks of W - phi in the notation of algorithm 2
        return concatenate(
            microbatch.weighted(state.fast_params[name] - value).sum(0)
            for name, value in meta.items()
        )

    return objective.mean_over_tasks(work, "the direction of Reptile")
