"""What the tests share: small agents, real episodes and made-up experience."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from metarl.agents.maml.agent import GradientAgent, GradientState
from metarl.agents.maml.batch import Experience, ReturnConfig
from metarl.agents.maml.config import InnerConfig, make_inner_loop
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.meta_objective import MetaChunk, MetaObjective
from metarl.agents.maml.outer import OuterConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.maml.surrogates import EPISODIC, Surrogate, inner_surrogate, loss_on
from metarl.core.parallel import ChunkPool, single_threaded_torch
from metarl.core.params import Params, flatten, stack
from metarl.core.policies import CategoricalMLP, GaussianMLP, MLPPolicy, PolicyConfig, make_policy
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.rollout.collect import collect
from metarl.rollout.episodes import Episodes


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Torch as in training: single-threaded, threads are over chunks of tasks."""
    with single_threaded_torch():
        yield


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def episode_rngs() -> Callable[..., list[np.random.Generator]]:
    """Random streams for B tasks of E episodes, addressed as in training."""

    def make(num_tasks: int, num_episodes: int, seed: int = 0, phase: int = 0):
        return [
            make_rng(seed, Purpose.TRAIN_EPISODES, phase=phase, task=task, episode=episode)
            for task in range(num_tasks)
            for episode in range(num_episodes)
        ]

    return make


@pytest.fixture
def make_agent() -> Callable[..., GradientAgent]:
    """Makes a small GradientAgent for a family, the same one at each call."""

    def make(
        family: TaskFamily,
        *,
        hidden: tuple[int, ...] = (8,),
        dtype: torch.dtype = torch.float32,
        inner: InnerConfig | None = None,
        inner_steps: int = 1,
        outer: OuterConfig | None = None,
        returns: ReturnConfig | None = None,
        num_threads: int = 1,
        tasks_per_chunk: int | None = None,
    ) -> GradientAgent:
        config = PolicyConfig(hidden=hidden)
        policy = make_policy(config, family.observation_space, family.action_space)
        inner = inner or InnerConfig()
        loop = make_inner_loop(inner, policy, inner_steps)
        rng = make_rng(0, Purpose.INITIALISE)
        return GradientAgent(
            policy,
            loop.init(policy.init(rng, dtype), rng),
            loop,
            inner,
            outer or TRPOConfig(),
            returns or ReturnConfig(),
            torch.device("cpu"),
            num_threads,
            tasks_per_chunk,
        )

    return make


@pytest.fixture
def play(timer, episode_rngs) -> Callable[..., Episodes]:
    """Plays episodes of tasks, (B, task_dim), by an agent's state."""

    def play(
        agent: GradientAgent,
        state: GradientState,
        family: TaskFamily,
        tasks: np.ndarray,
        num_episodes: int,
        seed: int = 0,
        phase: int = 0,
    ) -> Episodes:
        env = family.make_batch(len(tasks) * num_episodes)
        rngs = episode_rngs(len(tasks), num_episodes, seed, phase)
        return collect(env, agent.actor(state), tasks, rngs, timer)

    return play


@pytest.fixture
def tiny_policy() -> GaussianMLP:
    """Three observations, two actions, one smooth hidden layer: 34 parameters."""
    return GaussianMLP(PolicyConfig(hidden=(5,)), 3, 2)


@pytest.fixture
def tiny_params(tiny_policy) -> Params:
    """Unstacked float64 parameters with nothing at a special value such as 0."""
    rng = np.random.default_rng(1)
    params = tiny_policy.init(rng, torch.float64)
    return {
        name: value + 0.1 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in params.items()
    }


@pytest.fixture
def invent() -> Callable[..., Experience]:
    """Makes up on-policy experience, float64, of the tasks of stacked parameters."""

    def invent(
        policy: MLPPolicy, params: Params, rng: np.random.Generator, num_steps: int = 8
    ) -> Experience:
        num_tasks = len(params["weight0"])

        def draw(*shape: int) -> torch.Tensor:
            return torch.from_numpy(rng.standard_normal((num_tasks, num_steps, *shape)))

        obs, action, advantage = draw(policy.sizes[0]), draw(policy.sizes[-1]), draw()
        if isinstance(policy, CategoricalMLP):
            action = action.argmax(-1, keepdim=True).double()
        # Two episodes; in some tasks they ended early, each after other steps.
        horizon = num_steps // 2
        length = torch.from_numpy(rng.integers(1, horizon + 1, (num_tasks, 2, 1)))
        took_place = (torch.arange(horizon) < length).flatten(1)
        weight = took_place.double() / took_place.sum(1, keepdim=True).double()
        with torch.no_grad():
            log_prob = policy(params, obs).log_prob(action)
        return Experience(
            obs=obs,
            action=action,
            advantage=advantage * took_place,
            weight=weight,
            log_prob=log_prob,
            reward=0.3 * draw() * took_place,
            value=0.3 * draw() * took_place,
            loss=1.2 - 1.5 * torch.arange(num_tasks).double(),
            horizon=horizon,
        )

    return invent


@dataclass
class Problem:
    """Three tasks in chunks of two and one, each adapted by some steps on made-up experience.

    Attributes:
        meta: the meta-parameters that the tasks were adapted from.
        surrogate: the inner one.
    """

    policy: MLPPolicy
    loop: InnerLoop
    inner: InnerConfig
    surrogate: Surrogate
    meta: Params
    chunks: list[MetaChunk]

    def objective(
        self, chunks: list[MetaChunk] | None = None, surrogate: Surrogate | None = None
    ) -> MetaObjective:
        return MetaObjective(
            self.policy,
            self.loop,
            surrogate or self.surrogate,
            self.meta,
            chunks or self.chunks,
            ChunkPool(1),
            exploration_weight=self.inner.exploration,
            start_weight=self.inner.start_weight,
            whole_episodes=self.inner.surrogate in EPISODIC,
        )

    @property
    def old(self) -> torch.Tensor:
        """The meta-parameters, (P,)."""
        return flatten(self.meta)

    def singles(self) -> list[MetaChunk]:
        """The same tasks in chunks of one."""

        def only(x, task: int):
            """The row of a task in whatever has one."""
            if isinstance(x, torch.Tensor):
                return x[task : task + 1]
            if isinstance(x, dict):
                return {name: only(value, task) for name, value in x.items()}
            if isinstance(x, tuple):
                return tuple(only(value, task) for value in x)
            return replace(
                x, **{n: only(v, task) for n, v in vars(x).items() if type(v) is not int}
            )

        return [only(chunk, task) for chunk in self.chunks for task in range(chunk.num_tasks)]

    def plain_step(self, params: Params, experience: Experience) -> Params:
        """One step of SGD on all parameters of one task, unstacked, by plain autograd."""
        log_prob = self.policy(stack(params, 1), experience.obs).log_prob(experience.action)
        if self.inner.surrogate == "likelihood_ratio":
            log_prob = (log_prob - experience.log_prob).exp()
        loss = -(log_prob * experience.advantage * experience.weight).sum()
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        if self.inner.first_order:
            gradients = [gradient.detach() for gradient in gradients]
        size = max(0.0, self.inner.lr + self.inner.lr_slope * experience.loss.item())
        return {
            name: value - size * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }

    def plain_stages(self, params: Params, chunk: MetaChunk) -> list[Params]:
        """A task's parameters before, between and after its steps, unstacked, in the graph of
        those that it begins with."""
        stages = [params]
        for experience in chunk.trail:
            stages.append(self.plain_step(stages[-1], experience))
        return stages


@pytest.fixture
def make_problem(tiny_policy, tiny_params, invent) -> Callable[..., Problem]:
    """Makes the problem of an inner loop, float64, with nothing at a special value such as 0."""

    def make(
        steps: int = 1,
        surrogate: str = "likelihood_ratio",
        *,
        policy: MLPPolicy = tiny_policy,
        params: Params = tiny_params,
        fresh: bool = False,
        **settings,
    ) -> Problem:
        """`fresh`: the space's and the rule's own parameters are as they are initialised."""
        rng = np.random.default_rng(8)
        inner = InnerConfig(**{"lr": 0.02, **settings}, surrogate=surrogate, dice_decay=0.8)
        loop = make_inner_loop(inner, policy, steps)
        meta = loop.init(params, rng)
        for name in [] if fresh else sorted(meta.keys() - params.keys()):
            noise = torch.from_numpy(rng.standard_normal(meta[name].shape))
            is_rate = name.startswith("lr:")
            meta[name] = meta[name] * (0.3 * noise).exp() if is_rate else meta[name] + 0.2 * noise
        function = inner_surrogate(surrogate, inner.dice_decay)
        chunks = []
        for num_tasks in (2, 1):
            task, trail = loop.start(meta, num_tasks), []
            for _ in range(steps):
                played = invent(policy, loop.params(meta, task), rng, 12)
                task = loop.step(meta, task, loss_on(played, policy, function))
                trail.append(played)
            adapted = loop.params(meta, task)
            after = invent(policy, adapted, rng, 12)
            score = torch.from_numpy(rng.standard_normal(num_tasks))
            chunks.append(MetaChunk(tuple(trail), task, adapted, after, score))
        return Problem(policy, loop, inner, function, meta, chunks)

    return make
