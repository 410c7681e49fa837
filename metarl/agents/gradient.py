"""MAML and kin: a task's state is its adapted parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.adaptation import InnerConfig, sgd_step, stack
from metarl.episodes import Episodes
from metarl.experience import Experience, ReturnConfig, make_experience
from metarl.meta_objective import MetaChunk, MetaObjective, flatten, unflatten
from metarl.objectives import mean_kl
from metarl.parallel import ChunkPool
from metarl.policies import GaussianActor, GaussianMLP, Params
from metarl.stopwatch import Stopwatch
from metarl.trpo import TRPOConfig, full_step, line_search


@dataclass(frozen=True)
class TaskChunk:
    """Some tasks: their parameters, stacked (b, ...), and the experience that led there."""

    params: Params
    trail: tuple[Experience, ...] = ()


@dataclass(frozen=True)
class GradientState:
    """The states of B tasks, in chunks of consecutive tasks."""

    chunks: tuple[TaskChunk, ...]


class GradientAgent:
    """Adapts by policy-gradient steps; learns the parameters to adapt from by MAML-TRPO.

    Attributes:
        params: the meta-parameters.
    """

    def __init__(
        self,
        policy: GaussianMLP,
        params: Params,
        inner: InnerConfig,
        outer: TRPOConfig,
        returns: ReturnConfig,
        device: torch.device,
        num_threads: int = 1,
        tasks_per_chunk: int | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            policy: the policy.
            params: initial meta-parameters, unstacked.
            inner, outer, returns: settings.
            device: where the learner computes.
            num_threads: how many chunks of tasks are worked on at once; no influence on results.
            tasks_per_chunk: None for the device's best: all at once on a GPU, one by one on a CPU,
                where a chunk should fit the cache.
        """
        self.policy, self.inner, self.outer, self.returns = policy, inner, outer, returns
        self.device = device
        self.params = {name: value.to(device) for name, value in params.items()}
        on_cpu = device.type == "cpu"
        self._pool = ChunkPool(num_threads if on_cpu else 1)
        self._tasks_per_chunk = tasks_per_chunk or (1 if on_cpu else None)

    def initial_state(self, num_tasks: int) -> GradientState:
        """Every task starts from the meta-parameters."""
        size = self._tasks_per_chunk or num_tasks
        starts = range(0, num_tasks, size)
        return GradientState(
            tuple(TaskChunk(stack(self.params, min(size, num_tasks - s))) for s in starts)
        )

    def actor(self, state: GradientState) -> GaussianActor:
        """Return what plays episodes by the states of the tasks."""
        names = self.params.keys()
        return self.policy.actor(
            {name: torch.cat([chunk.params[name] for chunk in state.chunks]) for name in names}
        )

    def adapt(
        self, state: GradientState, episodes: Episodes, lr: float | None = None
    ) -> GradientState:
        """Take one gradient step per task on the episodes that its state played.

        Args:
            state: of B tasks; unchanged.
            episodes: of the same tasks.
            lr: step size, for evaluation; the configured one by default. `update` knows only that.
        """

        def work(item: tuple[TaskChunk, Episodes]) -> TaskChunk:
            chunk, part = item
            experience, _ = make_experience(
                part, self.policy, chunk.params, self.returns, self.device
            )
            step_size = self.inner.lr if lr is None else lr
            adapted = sgd_step(self.policy, chunk.params, experience, self.inner, step_size)
            return TaskChunk(adapted, (*chunk.trail, experience))

        return GradientState(tuple(self._pool.map(work, self._split(state, episodes))))

    def _split(
        self, state: GradientState, episodes: Episodes
    ) -> Sequence[tuple[TaskChunk, Episodes]]:
        """Pair the chunks of a state with their tasks' episodes."""
        sizes = [len(chunk.params["log_std"]) for chunk in state.chunks]
        stops = np.cumsum(sizes).tolist()
        return [
            (chunk, episodes.rows(stop - size, stop))
            for chunk, size, stop in zip(state.chunks, sizes, stops, strict=True)
        ]

    def update(
        self, state: GradientState, episodes: Episodes, clock: Stopwatch
    ) -> dict[str, float]:
        """Improve the meta-parameters by one MAML-TRPO step (Finn et al. 2017, algorithm 3).

        Args:
            state: the adapted states of a meta-batch.
            episodes: what they played after adaptation.
            clock: takes the times of the parts.

        Returns:
            Diagnostics by name.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite.
        """

        def digest(item: tuple[TaskChunk, Episodes]) -> tuple[MetaChunk, Tensor]:
            chunk, part = item
            after, explained = make_experience(
                part, self.policy, chunk.params, self.returns, self.device
            )
            return MetaChunk(chunk.trail, chunk.params, after), explained

        with clock("advantages"):
            digested = self._pool.map(digest, self._split(state, episodes))
        chunks = [chunk for chunk, _ in digested]
        explained = torch.cat([explained for _, explained in digested]).mean()

        objective = MetaObjective(self.policy, self.inner, self.params, chunks, self._pool)
        with clock("surrogate gradient"):
            loss, gradient = objective.loss_and_gradient()
        if not (np.isfinite(loss) and bool(torch.isfinite(gradient).all())):
            raise FloatingPointError("the meta-gradient is not finite; nothing was updated")
        with clock("conjugate gradient"):
            product = objective.fisher(self.outer.fisher_fraction, self.outer.jacobian_fraction)
            step = full_step(gradient, product, self.outer)
            del product  # and with it the graphs
        vector = flatten(self.params)
        with clock("line search"):
            search = line_search(
                lambda step: objective.evaluate(vector + step), loss, gradient, step, self.outer
            )
        inner_kl = self._inner_kl(chunks)
        self.params = unflatten(vector + search.step, self.params)
        return {
            "inner_kl": inner_kl,
            "outer_kl": search.kl,
            "improvement": search.improvement,
            "expected_improvement": search.expected,
            "line_search_steps": search.tried,
            "line_search_rejected": float(not search.accepted),
            "gradient_norm": float(gradient.norm()),
            "policy_std": float(self.params["log_std"].exp().mean()),
            "explained_variance": float(explained),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the meta-parameters, copied to the CPU."""
        return {f"params.{name}": value.cpu().clone() for name, value in self.params.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the meta-parameters of another agent with the same policy."""
        self.params = {name: state[f"params.{name}"].to(self.device) for name in self.params}

    def _inner_kl(self, chunks: Sequence[MetaChunk]) -> float:
        """KL(before || after all adaptation), averaged over the first episodes and the tasks."""

        @torch.no_grad()
        def work(chunk: MetaChunk) -> Tensor:
            if not chunk.trail:
                return torch.zeros(chunk.num_tasks, device=self.device)
            first = chunk.trail[0]
            before = self.policy(stack(self.params, len(first.obs)), first.obs)
            return mean_kl(before, self.policy(chunk.adapted, first.obs), first.weight)

        return float(torch.cat(self._pool.map(work, chunks)).mean())
