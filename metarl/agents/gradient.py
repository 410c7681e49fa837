"""MAML and kin: a task's state is where its adaptation by gradient steps stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.adaptation import InnerLoop, TaskState
from metarl.episodes import Episodes
from metarl.experience import Experience, ReturnConfig, make_experience
from metarl.inner import InnerConfig
from metarl.meta_objective import MetaChunk, MetaObjective
from metarl.objectives import EPISODIC, inner_surrogate, loss_on, mean_kl
from metarl.outer import OuterConfig
from metarl.parallel import ChunkPool
from metarl.params import Params, flatten, unflatten
from metarl.policies import MLPActor, MLPPolicy
from metarl.stopwatch import Stopwatch


@dataclass(frozen=True)
class TaskChunk:
    """Some tasks: where their adaptation stands, and the experience that led there.

    Attributes:
        task: of b tasks.
        params: the policy's parameters there, stacked (b, ...).
        trail: the experience of each step.
    """

    task: TaskState
    params: Params
    trail: tuple[Experience, ...] = ()


@dataclass(frozen=True)
class GradientState:
    """The states of B tasks, in chunks of consecutive tasks."""

    chunks: tuple[TaskChunk, ...]


class GradientAgent:
    """Adapts by policy-gradient steps; learns the parameters, and the rule, to adapt by.

    Attributes:
        meta: the meta-parameters: the policy's, and those of what adapts and of the rule.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        params: Params,
        loop: InnerLoop,
        inner: InnerConfig,
        outer: OuterConfig,
        returns: ReturnConfig,
        device: torch.device,
        num_threads: int = 1,
        tasks_per_chunk: int | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            policy: the policy.
            params: initial meta-parameters, unstacked, as `loop.init` gives them.
            loop: the inner loop.
            inner, outer, returns: settings.
            device: where the learner computes.
            num_threads: how many chunks of tasks are worked on at once; no influence on results.
            tasks_per_chunk: None for the device's best: all at once on a GPU, one by one on a CPU,
                where a chunk should fit the cache.
        """
        self.policy, self.loop, self.inner, self.returns = policy, loop, inner, returns
        self.device = device
        self.meta = {name: value.to(device) for name, value in params.items()}
        self.outer = outer.make(flatten(self.meta))
        self._surrogate = inner_surrogate(inner.surrogate, inner.dice_decay)
        on_cpu = device.type == "cpu"
        self._pool = ChunkPool(num_threads if on_cpu else 1)
        self._tasks_per_chunk = tasks_per_chunk or (1 if on_cpu else None)

    def initial_state(self, num_tasks: int) -> GradientState:
        """Every task starts from the meta-parameters."""
        size = self._tasks_per_chunk or num_tasks
        sizes = [min(size, num_tasks - start) for start in range(0, num_tasks, size)]
        return GradientState(tuple(self._chunk(self.loop.start(self.meta, b)) for b in sizes))

    def _chunk(self, task: TaskState, trail: tuple[Experience, ...] = ()) -> TaskChunk:
        return TaskChunk(task, self.loop.params(self.meta, task), trail)

    def actor(self, state: GradientState) -> MLPActor:
        """Return what plays episodes by the states of the tasks."""
        names = state.chunks[0].params
        return self.policy.actor(
            {name: torch.cat([chunk.params[name] for chunk in state.chunks]) for name in names}
        )

    def adapt(self, state: GradientState, episodes: Episodes, scale: float = 1.0) -> GradientState:
        """Take one gradient step per task on the episodes that its state played.

        Args:
            state: of B tasks; unchanged.
            episodes: of the same tasks.
            scale: factor on the step, for evaluation. `update` knows only 1.
        """

        def work(item: tuple[TaskChunk, Episodes]) -> TaskChunk:
            chunk, part = item
            played, _ = make_experience(part, self.policy, chunk.params, self.returns, self.device)
            loss = loss_on(played, self.policy, self._surrogate)
            task = self.loop.step(self.meta, chunk.task, loss, scale=scale)
            return self._chunk(task, (*chunk.trail, played))

        return GradientState(tuple(self._pool.map(work, self._split(state, episodes))))

    def _split(
        self, state: GradientState, episodes: Episodes
    ) -> Sequence[tuple[TaskChunk, Episodes]]:
        """Pair the chunks of a state with their tasks' episodes."""
        sizes = [chunk.task.num_tasks for chunk in state.chunks]
        stops = np.cumsum(sizes).tolist()
        return [
            (chunk, episodes.rows(stop - size, stop))
            for chunk, size, stop in zip(state.chunks, sizes, stops, strict=True)
        ]

    def update(
        self, state: GradientState, episodes: Episodes, clock: Stopwatch
    ) -> dict[str, float]:
        """Improve the meta-parameters by one outer update.

        Args:
            state: the adapted states of a meta-batch.
            episodes: what they played after adaptation.
            clock: takes the times of the parts.

        Returns:
            Diagnostics by name.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite.
        """
        with clock("advantages"):
            chunks, explained = self._digest(state, episodes)
        objective = MetaObjective(
            self.policy,
            self.loop,
            self._surrogate,
            self.meta,
            chunks,
            self._pool,
            exploration_weight=self.inner.exploration,
            whole_episodes=self.inner.surrogate in EPISODIC,
        )
        vector, diagnostics = self.outer.step(objective, clock)
        inner_kl = self._inner_kl(chunks)
        self.meta = unflatten(vector, self.meta)
        found = {**diagnostics, "inner_kl": inner_kl, "explained_variance": explained}
        if "log_std" in self.meta:
            found["policy_std"] = float(self.meta["log_std"].exp().mean())
        rates = [value for name, value in self.meta.items() if name.startswith("lr:")]
        if rates:
            found["mean_inner_lr"] = float(torch.cat([rate.flatten() for rate in rates]).mean())
        return found

    def _digest(self, state: GradientState, episodes: Episodes) -> tuple[list[MetaChunk], float]:
        """Return the meta-batch in chunks, and the baseline's mean explained variance."""
        returns = torch.from_numpy(episodes.returns.mean(1))  # (B,)
        scores = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        parts = self._split(state, episodes)
        sizes = [chunk.task.num_tasks for chunk, _ in parts]

        def work(item: tuple[tuple[TaskChunk, Episodes], Tensor]) -> tuple[MetaChunk, Tensor]:
            (chunk, part), score = item
            after, explained = make_experience(
                part, self.policy, chunk.params, self.returns, self.device
            )
            score = score.to(after.advantage)
            return MetaChunk(chunk.trail, chunk.task, chunk.params, after, score), explained

        digested = self._pool.map(work, list(zip(parts, scores.split(sizes), strict=True)))
        explained = torch.cat([explained for _, explained in digested])
        return [chunk for chunk, _ in digested], float(explained.mean())

    def state_dict(self) -> dict[str, Tensor]:
        """Return meta-parameters and the outer update's state, copied to the CPU."""
        params = {f"params.{name}": value.cpu().clone() for name, value in self.meta.items()}
        outer = {f"outer.{name}": value for name, value in self.outer.state_dict().items()}
        return {**params, **outer}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another agent of the same config has learned."""
        self.meta = {name: state[f"params.{name}"].to(self.device) for name in self.meta}
        names = self.outer.state_dict()
        self.outer.load_state_dict({name: state[f"outer.{name}"] for name in names})

    def _inner_kl(self, chunks: Sequence[MetaChunk]) -> float:
        """KL(before || after all adaptation), averaged over the first episodes and the tasks."""

        @torch.no_grad()
        def work(chunk: MetaChunk) -> Tensor:
            if not chunk.trail:
                return torch.zeros(chunk.num_tasks, device=self.device)
            first = chunk.trail[0]
            start = self.loop.params(self.meta, self.loop.start(self.meta, chunk.num_tasks))
            before = self.policy(start, first.obs)
            return mean_kl(before, self.policy(chunk.adapted, first.obs), first.weight)

        return float(torch.cat(self._pool.map(work, chunks)).mean())
