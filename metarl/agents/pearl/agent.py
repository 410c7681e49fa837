"""The agent of PEARL (Rakelly et al. 2019): a policy that is given a latent task variable, whose
posterior is inferred from the transitions of earlier episodes.

B is the number of tasks, E the number of trials of each task, Z the size of the latent variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.agents.base import AgentSetup, AgentState, Metrics, Rollout
from metarl.agents.optional import Beliefs
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.pearl.learner import Learned, Learner, Optimisers, as_stepped
from metarl.agents.pearl.module import LatentModule
from metarl.agents.pearl.networks import CRITICS, Networks, select
from metarl.agents.pearl.posterior import natural_parameters
from metarl.agents.pearl.replay import Replay
from metarl.agents.pearl.update_config import UpdateConfig
from metarl.agents.vector_adam import load_optimised, optimised_state
from metarl.core.devices import upload
from metarl.core.params import Params
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite


@dataclass(frozen=True)
class PEARLState:
    """The states of trials between two episodes, E of each of B tasks; E is 1 before the first
    episode, whatever the number of trials.

    The context of a trial, its transitions so far, is kept as the product of their factors, which
    is all that the posterior needs of it: factors of further transitions multiply the product.

    Attributes:
        precision: sum of the precisions of the factors, (B, E, Z) float64; 0 without transitions.
        weighted_mean: sum of precision times mean of the factors, (B, E, Z) float64.
        num_episodes: number of episodes of the trial so far, (B, E).
        prior_episodes: number of episodes of a trial that are played under the prior.
    """

    precision: np.ndarray
    weighted_mean: np.ndarray
    num_episodes: np.ndarray
    prior_episodes: int = 1

    @property
    def informed(self) -> np.ndarray:
        """Whether the next episode of each trial is played under the posterior, (B, E, 1) bool."""
        return (self.num_episodes >= max(1, self.prior_episodes))[..., None]

    @property
    def mean(self) -> np.ndarray:
        """Means by which the next episode is played, (B, E, Z): the posterior's or the prior's."""
        return np.where(self.informed, self.weighted_mean * self.variance, 0.0)

    @property
    def variance(self) -> np.ndarray:
        """Variances by which the next episode is played, (B, E, Z)."""
        return 1 / np.where(self.informed, self.precision, 1.0)


class PEARLAgent:
    """Adapts by inference of a latent task variable; learns off-policy from a replay buffer.

    Attributes:
        networks: the networks.
        update_config: settings of the update.
        learned: parameters, target critics and temperature.
        replay: the replay buffer, which is no part of the state in a checkpoint.
        device, max_adaptations, remembers, max_update_kl: as in `metarl.agents.base.MetaAgent`.
    """

    max_adaptations = None
    remembers = True
    max_update_kl = float("inf")

    def __init__(
        self,
        networks: Networks,
        params: Params,
        replay: Replay,
        update_config: UpdateConfig,
        prior_episodes: int,
        setup: AgentSetup,
    ) -> None:
        """Assemble the agent.

        Args:
            networks: the networks.
            params: their initial parameters.
            replay: an empty replay buffer.
            update_config: settings of the update.
            prior_episodes: number of episodes of a trial that are played under the prior.
            setup: device and threads.
        """
        self.networks, self.replay, self.update_config = networks, replay, update_config
        self.device, self._prior_episodes = setup.device, prior_episodes
        params = as_stepped({name: value.to(self.device) for name, value in params.items()})
        first = next(iter(params.values()))
        log_temperature = first.new_full((1,), update_config.temperature).log()
        target = {name: value.clone() for name, value in select(params, *CRITICS).items()}
        self.learned = Learned(params, target, log_temperature)
        self._optimisers = Optimisers(self.learned, update_config.lr)
        self._num_updates = 0
        self._learner = Learner(networks, update_config, setup.device, setup.num_threads)

    def initial_state(self, num_tasks: int, *, training: bool = False) -> PEARLState:
        """Return the states before the first episode of a trial: no context."""
        zeros = np.zeros((num_tasks, 1, self.networks.config.latent_dim))
        return PEARLState(zeros, zeros, np.zeros((num_tasks, 1), np.int64), self._prior_episodes)

    def next_task(self, state: PEARLState) -> PEARLState:
        """Return the states as they are: nothing tells the agent that the task has changed, so the
        transitions of the previous tasks stay in the context."""
        return state

    def actor(self, state: PEARLState, *, deterministic: bool = False) -> LatentActor:
        """Return the actor that draws a latent for each episode, from the posterior of its trial,
        or from the prior in the first `prior_episodes` of a trial."""
        row_format = self.replay.row_format
        return LatentActor(
            self._policy_layers(),
            state.mean,
            state.variance,
            row_format.centre,
            row_format.half_width,
            deterministic=deterministic,
        )

    def policy_module(self, state: PEARLState) -> LatentModule:
        """Return the policy by the posterior of one trial; see
        `metarl.agents.optional.policy_module`."""
        row_format = self.replay.row_format
        return LatentModule(
            self._policy_layers(),
            state.mean[0, 0],
            np.sqrt(state.variance[0, 0]),
            row_format.centre,
            row_format.half_width,
        )

    def _policy_layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return weight (in, out) and bias (out,) of each layer of the policy, float32 arrays."""
        params = self.learned.params
        layers = range(len(self.networks.config.hidden) + 1)
        names = [(f"policy.weight{layer}", f"policy.bias{layer}") for layer in layers]
        arrays = [[params[name].detach().cpu().float().numpy() for name in pair] for pair in names]
        return [(weight, bias) for weight, bias in arrays]

    @torch.no_grad()
    def adapt(self, state: PEARLState, episodes: Episodes) -> PEARLState:
        """Return the states with the transitions of an episode of each trial in its context; those
        of episodes that were left out do not change."""
        rows = self.replay.row_format.rows(episodes)[..., : self.networks.context_dim]
        contexts = upload(rows, self.device, self.learned.log_temperature.dtype)
        masks = upload(episodes.mask, self.device)[..., None]
        added = []
        # Task by task: the rounding of matrix products depends on their shape, and other tasks must
        # not change a posterior.
        for context, taken in zip(contexts, masks, strict=True):  # (E, T, context_dim), (E, T, 1)
            factors = self.networks.factors(self.learned.params, context)
            natural = natural_parameters(factors).double()  # (2, E, T, Z)
            added.append(torch.where(taken, natural, 0.0).sum(-2))
        precision, weighted_mean = torch.stack(added, 1).cpu().numpy()  # (B, E, Z) each
        return PEARLState(
            state.precision + precision,
            state.weighted_mean + weighted_mean,
            state.num_episodes + episodes.episode_mask,
            state.prior_episodes,
        )

    def beliefs(self, state: PEARLState, episodes: Episodes) -> Beliefs:
        """Return the prior or the posterior by which each episode is played, the same at all its
        steps; see `metarl.agents.optional.beliefs`."""
        shape = (*episodes.mask.shape, state.precision.shape[-1])
        found = (value[:, :, None] for value in (state.mean, np.sqrt(state.variance)))
        return Beliefs(*(np.broadcast_to(value, shape) for value in found))

    def record(self, iteration: int, phases: Sequence[Episodes]) -> int:
        """Keep the episodes of one iteration for later updates, in place of the oldest ones if
        there are more transitions than the replay buffer takes.

        Args:
            iteration: the number of the iteration, from 1.
            phases: the episodes, phase by phase, of tasks with ids.

        Returns:
            The number of the oldest iteration of which something is still kept.
        """
        return self.replay.record(iteration, phases)

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Take the gradient steps of an iteration on the replay buffer.

        Args:
            rollouts: the episodes of the iteration, which `record` was given before.
            rng: draws tasks, transitions and noise.
            timer: measures the sections of the update.

        Raises:
            NotFinite: if a gradient or a diagnostic is not finite, or if the replay buffer is
                empty. The agent is then unchanged, except for the replay buffer.
        """
        if not self.replay.tasks:
            raise NotFinite("the loss on an empty replay buffer")
        learns = self._num_updates >= self.update_config.warmup_iterations
        metrics: Metrics = {
            "replay_size": self.replay.size,
            "replay_tasks": len(self.replay.tasks),
            "gradient_steps": self.update_config.gradient_steps if learns else 0,
        }
        if learns:
            before = self._optimisers.state_dict()
            try:
                learned, more = self._learner.learn(
                    self.learned, self._optimisers, self.replay, rng, timer
                )
            except NotFinite:
                self._optimisers.load_state_dict(before)
                raise
            self.learned = learned
            metrics |= more
        self._num_updates += 1
        return metrics

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of parameters, targets, temperature and optimisers."""
        learned = self.learned
        state = optimised_state("params", "adam", learned.params, self._optimisers)
        tensors = {f"target.{name}": value for name, value in learned.target.items()}
        tensors["log_temperature"] = learned.log_temperature
        state |= {name: value.cpu().clone() for name, value in tensors.items()}
        return {**state, "num_updates": self._num_updates}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config; the replay buffer stays as it is."""
        learned = self.learned
        # Copies, as the other agent's tensors must not change with this one's
        target = {
            name: torch.as_tensor(state[f"target.{name}"]).to(self.device, copy=True)
            for name in learned.target
        }
        log_temperature = torch.as_tensor(state["log_temperature"]).to(self.device, copy=True)
        params = load_optimised("params", "adam", state, learned.params, self._optimisers)
        self.learned = Learned(as_stepped(params), target, log_temperature)
        self._num_updates = int(state["num_updates"])
