"""The agent of MAML and its relatives (Finn et al. 2017): it adapts by policy-gradient steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarl.agents.base import AgentSetup, AgentState, Metrics, Rollout
from metarl.agents.maml.batch import ReturnConfig, TrainingBatch, longest_episode, process_episodes
from metarl.agents.maml.critic import Critic
from metarl.agents.maml.inner_config import InnerConfig
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch, Query, StateMicrobatch
from metarl.agents.maml.outer import OuterConfig
from metarl.agents.maml.queries import MeasuredRollout, measured_rollouts
from metarl.agents.maml.schedules import step_scale
from metarl.agents.maml.state import MAMLState
from metarl.agents.maml.surrogates import EPISODIC, inner_surrogate, mean_kl, policy_loss
from metarl.agents.vector_adam import load_optimised, optimised_state
from metarl.core.actors import MLPActor
from metarl.core.devices import upload
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, as_views, flatten, join_params, unflatten
from metarl.core.policies import MLPPolicy
from metarl.core.policy_module import PolicyModule
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite, check_metrics

CRITIC = "critic."
"""Beginning of the names of the critic in the state of an agent."""


class MAMLAgent:
    """Adapts by policy-gradient steps; learns the initial parameters and the update rule.

    Attributes:
        policy: the policy.
        inner_loop: the inner loop.
        inner_config: settings of the inner loop.
        returns: settings of the advantages.
        outer: the outer update.
        critic: the values of the episodes after adaptation; None for the linear baseline.
        meta: the meta-parameters, unstacked: parameters of the policy, of the mapping from fast
            parameters to policy parameters, and of the update rule.
        device, max_adaptations, remembers, max_update_kl: as in `metarl.agents.base.MetaAgent`.
    """

    remembers = False

    def __init__(
        self,
        policy: MLPPolicy,
        params: Params,
        inner_loop: InnerLoop,
        inner_config: InnerConfig,
        outer: OuterConfig,
        returns: ReturnConfig,
        setup: AgentSetup,
        tasks_per_microbatch: int | None = None,
        critic: Critic | None = None,
    ) -> None:
        """Assemble the agent.

        Args:
            policy: the policy.
            params: initial meta-parameters, unstacked, as returned by `inner_loop.init`.
            inner_loop: the inner loop.
            inner_config, outer, returns: settings.
            setup: device, threads, and the number of adaptations to a task in training, after
                which `inner.test_lr_schedule` begins.
            tasks_per_microbatch: number of tasks of a microbatch. None chooses the fastest: all
                tasks on a GPU, one task on a CPU, whose cache should hold a microbatch.
            critic: the values of the episodes after adaptation; None for the linear baseline.
        """
        self.policy, self.inner_loop, self.returns = policy, inner_loop, returns
        self.critic = critic
        self.inner_config = inner_config
        self.device = setup.device
        self.max_adaptations = 0 if inner_config.adapts == "nothing" else None
        self.max_update_kl = outer.max_update_kl
        self.meta = as_views({name: value.to(self.device) for name, value in params.items()})
        self.outer = outer.make(flatten(self.meta))
        self._surrogate = inner_surrogate(inner_config.surrogate, inner_config.dice_decay)
        on_cpu = self.device.type == "cpu"
        self._pool = MicrobatchPool(setup.num_threads if on_cpu else 1)
        self._tasks_per_microbatch = tasks_per_microbatch or (1 if on_cpu else None)
        self._trained_steps = setup.task_adaptations

    def initial_state(self, num_tasks: int, *, training: bool = False) -> MAMLState:
        """Return the states of B tasks: every task starts from the meta-parameters."""
        size = self._tasks_per_microbatch or num_tasks
        sizes = [min(size, num_tasks - start) for start in range(0, num_tasks, size)]
        states = (self._microbatch(self.inner_loop.init_state(self.meta, b)) for b in sizes)
        return MAMLState(tuple(states), training)

    def next_task(self, state: MAMLState) -> MAMLState:
        """Return the adapted states with the step-size schedule restarted."""
        return replace(state, num_adaptations=0)

    def _microbatch(
        self, inner_state: InnerState, support: tuple[TrainingBatch, ...] = ()
    ) -> StateMicrobatch:
        params = self.inner_loop.to_model_params(self.meta, inner_state)
        return StateMicrobatch(inner_state, params, support)

    def actor(self, state: MAMLState, *, deterministic: bool = False) -> MLPActor:
        """Return the actor with the adapted policy parameters of each task."""
        return self.policy.actor(self._adapted(state), deterministic=deterministic)

    def policy_module(self, state: MAMLState) -> PolicyModule:
        """Return the policy with the adapted parameters of one task; see
        `metarl.agents.optional.policy_module`."""
        return self.policy.module(self._adapted(state))

    @staticmethod
    def _adapted(state: MAMLState) -> Params:
        """Return the adapted policy parameters of all tasks, stacked."""
        return join_params([microbatch.params for microbatch in state.microbatches])

    def adapt(self, state: MAMLState, episodes: Episodes) -> MAMLState:
        """Take one gradient step for each task on the episodes that were played from `state`.

        Outside training the step is scaled by `inner.test_lr_schedule`.
        """
        schedule = "constant" if state.training else self.inner_config.test_lr_schedule
        scale = step_scale(schedule, state.num_adaptations, self._trained_steps)
        longest = longest_episode(episodes)

        def work(item: tuple[StateMicrobatch, Episodes]) -> StateMicrobatch:
            microbatch, part = item
            batch, _ = process_episodes(
                part, self.policy, microbatch.params, self.returns, self.device, longest
            )
            loss = policy_loss(batch, self.policy, self._surrogate)
            inner_state = self.inner_loop.step(
                self.meta, microbatch.inner_state, loss, rule_loss=batch.loss, scale=scale
            )
            return self._microbatch(inner_state, (*microbatch.support, batch))

        microbatches = tuple(self._pool.map(work, state.pair(episodes)))
        return MAMLState(microbatches, state.training, state.num_adaptations + 1)

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Update the meta-parameters by one outer update, without the tasks that have no episodes.

        Args:
            rollouts: the rollouts of a meta-batch. The last state contains the support batches of
                all earlier rollouts. The meta-objective measures those by which no later state was
                adapted; see `metarl.agents.maml.queries`.
            rng: draws the minibatches.
            timer: measures the sections of the update.

        Raises:
            NotFinite: if the loss, its gradient, the step or a diagnostic is not finite, or if no
                episode is left. The agent and the state of its outer update are then unchanged.
        """
        measured = measured_rollouts(rollouts, self.inner_config.retention_weight)
        episodes = rollouts[-1].episodes
        kept, tasks = np.flatnonzero(episodes.task_mask), episodes.tasks
        if not kept.size:
            raise NotFinite("the mean return of no episodes")
        if kept.size < len(tasks):
            measured = [each.of_tasks(kept) for each in measured]
        before = self.outer.state_dict()
        try:
            with timer("advantages"):
                microbatches, explained = self._build_meta_batch(measured)
            objective = MetaObjective(
                self.policy,
                self.inner_loop,
                self._surrogate,
                self.meta,
                microbatches,
                self._pool,
                emaml_weight=self.inner_config.emaml_weight,
                pre_adaptation_weight=self.inner_config.pre_adaptation_weight,
                whole_episodes=self.inner_config.surrogate in EPISODIC,
            )
            vector, metrics = self.outer.step(objective, rng, timer)
            if not bool(torch.isfinite(vector).all()):
                raise NotFinite("the step")
            meta = unflatten(vector, self.meta)
            metrics["adaptation_kl"] = self._adaptation_kl(microbatches)
            metrics["explained_variance"] = explained
            metrics |= self._diagnostics(meta, microbatches)
            check_metrics(metrics)
            if self.critic is not None:
                with timer("critic"):
                    self.critic.fit([each.episodes for each in measured], rng)
        except NotFinite as error:
            self.outer.load_state_dict(before)
            indices = kept[error.indices]
            raise NotFinite(error.what, indices.tolist(), tasks[indices]) from error
        self.meta = meta
        return metrics

    def _build_meta_batch(
        self, measured: Sequence[MeasuredRollout]
    ) -> tuple[list[MetaMicrobatch], float]:
        """Return the meta-batch in microbatches, and the mean explained variance of the baseline on
        the query episodes."""
        means = [each.weight * each.episodes.task_returns for each in measured]
        returns = torch.from_numpy(np.sum(means, axis=0))  # (B,)
        return_weights = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        settings = [(each.weight, longest_episode(each.episodes)) for each in measured]
        # By microbatch: its states and episodes in all measured rollouts
        parts = list(zip(*(each.state.pair(each.episodes) for each in measured), strict=True))
        sizes = [part[-1][0].inner_state.num_tasks for part in parts]

        values_of = None if self.critic is None else self.critic.values

        def work(
            item: tuple[tuple[tuple[StateMicrobatch, Episodes], ...], Tensor],
        ) -> tuple[MetaMicrobatch, Tensor]:
            part, return_weight = item
            queries, explained = [], []
            for (microbatch, episodes), (weight, longest) in zip(part, settings, strict=True):
                params = microbatch.params
                batch, variance = process_episodes(
                    episodes, self.policy, params, self.returns, self.device, longest, values_of
                )
                queries.append(Query(microbatch.inner_state.step, params, batch, weight))
                explained.append(variance)
            last, episodes = part[-1]
            advantage = queries[-1].batch.advantage
            return_weight, task_weight = return_weight.to(advantage), None
            if episodes.task_weight is not None:
                task_weight = upload(episodes.task_weight, self.device, advantage.dtype)
            built = MetaMicrobatch(
                last.support, last.inner_state, tuple(queries), return_weight, task_weight
            )
            return built, torch.cat(explained)

        built = self._pool.map(work, list(zip(parts, return_weights.split(sizes), strict=True)))
        explained = torch.cat([explained for _, explained in built])
        return [microbatch for microbatch, _ in built], float(explained.mean())

    def _adaptation_kl(self, microbatches: Sequence[MetaMicrobatch]) -> float:
        """Return KL(policy before adaptation || policy after all adaptation steps), in nats,
        averaged over the steps of the first support batch and over tasks."""

        @torch.no_grad()
        def work(microbatch: MetaMicrobatch) -> Tensor:
            if not microbatch.support:
                return torch.zeros(microbatch.num_tasks, device=self.device)
            batch = microbatch.support[0]
            start = self.inner_loop.init_state(self.meta, microbatch.num_tasks)
            before = self.policy(self.inner_loop.to_model_params(self.meta, start), batch.obs)
            return mean_kl(before, self.policy(microbatch.adapted, batch.obs), batch.weight)

        return float(torch.cat(self._pool.map(work, microbatches)).mean())

    def _diagnostics(self, meta: Params, microbatches: Sequence[MetaMicrobatch]) -> Metrics:
        """Return the mean policy std and the mean learned step size, if they exist, and the
        diagnostics of the std."""
        found: Metrics = {}
        if "log_std" in meta:
            config = self.policy.config
            std = meta["log_std"].exp().clamp(config.min_std, config.max_std)
            found["policy_std"] = float(std.mean())
        adapted = (microbatch.adapted for microbatch in microbatches)
        found |= self.policy.std_diagnostics([meta, *adapted])
        rates = [value for name, value in meta.items() if name.startswith("lr:")]
        if rates:
            found["mean_inner_lr"] = float(torch.cat([rate.flatten() for rate in rates]).mean())
        return found

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of the meta-parameters and the state of the outer update and
        of the critic."""
        state = optimised_state("params", "outer", self.meta, self.outer)
        critic = {} if self.critic is None else self.critic.state_dict()
        return {**state, **{f"{CRITIC}{name}": value for name, value in critic.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config."""
        self.meta = load_optimised("params", "outer", state, self.meta, self.outer)
        if self.critic is not None:
            own = [name for name in state if name.startswith(CRITIC)]
            self.critic.load_state_dict({name.removeprefix(CRITIC): state[name] for name in own})
