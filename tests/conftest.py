"""What the tests share: small agents, real episodes and made-up experience."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from envs import TaskFamily
from metarl.adaptation import InnerConfig
from metarl.agents.gradient import GradientAgent, GradientState
from metarl.episodes import Episodes
from metarl.experience import Experience, ReturnConfig
from metarl.parallel import single_threaded_torch
from metarl.policies import GaussianMLP, Params, PolicyConfig
from metarl.rollout import collect
from metarl.stopwatch import Stopwatch
from metarl.streams import Purpose, stream
from metarl.trpo import TRPOConfig


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Torch as in training: single-threaded, threads are over chunks of tasks."""
    with single_threaded_torch():
        yield


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def episode_streams() -> Callable[..., list[np.random.Generator]]:
    """Random streams for B tasks of E episodes, addressed as in training."""

    def make(num_tasks: int, num_episodes: int, seed: int = 0, phase: int = 0):
        return [
            stream(seed, Purpose.TRAIN_EPISODES, phase=phase, task=task, episode=episode)
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
        outer: TRPOConfig | None = None,
        returns: ReturnConfig | None = None,
        num_threads: int = 1,
        tasks_per_chunk: int | None = None,
    ) -> GradientAgent:
        policy = GaussianMLP(
            PolicyConfig(hidden=hidden),
            family.observation_space.shape[0],
            family.action_space.shape[0],
        )
        return GradientAgent(
            policy,
            policy.init(stream(0, Purpose.INITIALISE), dtype),
            inner or InnerConfig(),
            outer or TRPOConfig(),
            returns or ReturnConfig(),
            torch.device("cpu"),
            num_threads,
            tasks_per_chunk,
        )

    return make


@pytest.fixture
def play(clock, episode_streams) -> Callable[..., Episodes]:
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
        rngs = episode_streams(len(tasks), num_episodes, seed, phase)
        return collect(env, agent.actor(state), tasks, rngs, clock)

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
        policy: GaussianMLP, params: Params, rng: np.random.Generator, num_steps: int = 7
    ) -> Experience:
        num_tasks = len(params["log_std"])

        def draw(*shape: int) -> torch.Tensor:
            return torch.from_numpy(rng.standard_normal((num_tasks, num_steps, *shape)))

        obs, action, advantage = draw(policy.sizes[0]), draw(policy.action_dim), draw()
        # The tasks have steps that did not take place, each others.
        took_place = torch.from_numpy(rng.random((num_tasks, num_steps)) < 0.8)
        took_place[:, 0] = True
        weight = took_place.double() / took_place.sum(1, keepdim=True).double()
        with torch.no_grad():
            log_prob = policy(params, obs).log_prob(action)
        return Experience(obs, action, advantage, weight, log_prob)

    return invent
