"""MAML and kin: a task's state is where its adaptation by gradient steps stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from metarl.agents.maml.batch import Experience, ReturnConfig, make_experience
from metarl.agents.maml.config import InnerConfig
from metarl.agents.maml.inner_loop import InnerLoop, TaskState
from metarl.agents.maml.meta_objective import MetaChunk, MetaObjective
from metarl.agents.maml.outer import OuterConfig
from metarl.agents.maml.surrogates import EPISODIC, inner_surrogate, loss_on, mean_kl
from metarl.core.parallel import ChunkPool
from metarl.core.params import Params, flatten, unflatten
from metarl.core.policies import MLPActor, MLPPolicy
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite


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

    def of_tasks(self, indices: Tensor) -> TaskChunk:
        """Return what is known of the tasks with these numbers within the chunk."""
        params = {name: value[indices] for name, value in self.params.items()}
        trail = tuple(experience.of_tasks(indices) for experience in self.trail)
        return TaskChunk(self.task.of_tasks(indices), params, trail)


@dataclass(frozen=True)
class GradientState:
    """The states of B tasks, in chunks of consecutive tasks."""

    chunks: tuple[TaskChunk, ...]

    def of_tasks(self, indices: np.ndarray) -> GradientState:
        """Return the states of the tasks with these numbers, (n,) in increasing order."""
        sizes = [chunk.task.num_tasks for chunk in self.chunks]
        stops = accumulate(sizes)
        inside = [
            indices[(indices >= stop - size) & (indices < stop)] - (stop - size)
            for size, stop in zip(sizes, stops, strict=True)
        ]
        pairs = zip(self.chunks, inside, strict=True)
        return GradientState(
            tuple(chunk.of_tasks(torch.from_numpy(rows)) for chunk, rows in pairs if rows.size)
        )


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

    def update(self, state: GradientState, episodes: Episodes, timer: Timer) -> dict[str, float]:
        """Improve the meta-parameters by one outer update. Tasks without an episode take no part.

        Args:
            state: the adapted states of a meta-batch.
            episodes: what they played after adaptation.
            timer: takes the times of the parts.

        Returns:
            Diagnostics by name.

        Raises:
            NotFinite: if the loss, its gradient, the step or a diagnostic is not; or if no episode
                is left. The agent is what it was, the state of its outer update included.
        """
        kept, tasks = np.flatnonzero(episodes.alive), episodes.tasks
        if not kept.size:
            raise NotFinite("the mean return of no episodes")
        if kept.size < len(tasks):
            state, episodes = state.of_tasks(kept), episodes.of_tasks(kept)
        before = self.outer.state_dict()
        try:
            meta, found = self._improved(state, episodes, timer)
        except NotFinite as error:
            self.outer.load_state_dict(before)
            indices = kept[error.indices]
            raise NotFinite(error.what, indices.tolist(), tasks[indices]) from error
        self.meta = meta
        return found

    def _improved(
        self, state: GradientState, episodes: Episodes, timer: Timer
    ) -> tuple[Params, dict[str, float]]:
        """Return the new meta-parameters and the diagnostics. Changes only the outer update."""
        with timer("advantages"):
            chunks, explained = self._digest(state, episodes)
        objective = MetaObjective(
            self.policy,
            self.loop,
            self._surrogate,
            self.meta,
            chunks,
            self._pool,
            exploration_weight=self.inner.exploration,
            start_weight=self.inner.start_weight,
            whole_episodes=self.inner.surrogate in EPISODIC,
        )
        vector, diagnostics = self.outer.step(objective, timer)
        if not bool(torch.isfinite(vector).all()):
            raise NotFinite("the step")
        meta = unflatten(vector, self.meta)
        inner_kl = self._inner_kl(chunks)
        found = {**diagnostics, "inner_kl": inner_kl, "explained_variance": explained}
        if "log_std" in meta:
            found["policy_std"] = float(meta["log_std"].exp().mean())
        found |= self.policy.trouble([meta, *(chunk.adapted for chunk in chunks)])
        rates = [value for name, value in meta.items() if name.startswith("lr:")]
        if rates:
            found["mean_inner_lr"] = float(torch.cat([rate.flatten() for rate in rates]).mean())
        for name, value in found.items():
            if not math.isfinite(value):
                raise NotFinite(name)
        return meta, found

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
