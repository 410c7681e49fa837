"""Fixtures of all tests: small agents, real episodes and random training batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from metarl.agents.base import AgentSetup
from metarl.agents.maml.agent import MAMLAgent, MAMLState
from metarl.agents.maml.batch import ReturnConfig, TrainingBatch
from metarl.agents.maml.inner_config import InnerConfig, make_inner_loop
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch, Query
from metarl.agents.maml.outer import OuterConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.maml.surrogates import EPISODIC, Surrogate, inner_surrogate, policy_loss
from metarl.core.parallel import MicrobatchPool, single_threaded_math
from metarl.core.params import Params, flatten, stack
from metarl.core.policies import CategoricalMLP, GaussianMLP, MLPPolicy, PolicyConfig, make_policy
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.rollout.collect import collect
from metarl.rollout.collect import episode_rngs as rollout_rngs
from metarl.rollout.episodes import Episodes
from metarl.rollout.sampling import sequence_phases
from metarl.training.wandb_service import end_service
from tests.browser import page_opener, started_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Torch as in training: single-threaded, threads are over microbatches of tasks."""
    with single_threaded_math():
        yield


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_wandb() -> Iterator[None]:
    """Variables of the caller's shell, such as WANDB_MODE, do not reach the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def own_wandb_service() -> Iterator[None]:
    """W&B's process and settings are this test's: they remember the server they first saw."""
    end_service()
    yield
    end_service()


@pytest.fixture(scope="module", autouse=True)
def few_formats(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures have few formats, and take half the time; not in modules marked `all_formats`."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("all_formats"):
            patch.setattr("metarl.reporting.report.FORMATS", ("svg", "csv"))
            patch.setattr("metarl.reporting.style.FORMATS", ("png", "csv"))
        yield


@pytest.fixture
def svg_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are SVG files: for tests in which their files do not matter, in any module."""
    for module in ("report", "style"):
        monkeypatch.setattr(f"metarl.reporting.{module}.FORMATS", ("svg",))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser. Not of the session: as long as it is there, nothing else can use asyncio."""
    with started_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Page]]:
    """Open a page: see `tests.browser.page_opener`."""
    with page_opener(browser) as open_page:
        yield open_page


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def episode_rngs() -> Callable[..., list[np.random.Generator]]:
    """Random streams for B tasks of E episodes, addressed as in training."""

    def make(num_tasks: int, num_episodes: int, seed: int = 0, adaptation_step: int = 0):
        return rollout_rngs(
            seed,
            Purpose.TRAIN_EPISODES,
            num_tasks,
            num_episodes,
            adaptation_step=adaptation_step,
        )

    return make


@pytest.fixture
def make_agent() -> Callable[..., MAMLAgent]:
    """Make a small MAML agent for a family, the same one at each call."""

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
        tasks_per_microbatch: int | None = None,
    ) -> MAMLAgent:
        config = PolicyConfig(hidden=hidden)
        policy = make_policy(config, family.observation_space, family.action_space)
        inner = inner or InnerConfig()
        loop = make_inner_loop(inner, policy, inner_steps)
        rng = make_rng(0, Purpose.INITIALISE)
        setup = AgentSetup(
            family.observation_space,
            family.action_space,
            inner_steps,
            rng,
            torch.device("cpu"),
            num_threads,
        )
        return MAMLAgent(
            policy,
            loop.init(policy.init(rng, dtype), rng),
            loop,
            inner,
            outer or TRPOConfig(),
            returns or ReturnConfig(),
            setup,
            tasks_per_microbatch,
        )

    return make


@pytest.fixture
def play(timer, episode_rngs) -> Callable[..., Episodes]:
    """Play episodes of tasks, (B, task_dim), from an agent's state."""

    def play(
        agent: MAMLAgent,
        state: MAMLState,
        family: TaskFamily,
        tasks: np.ndarray,
        num_episodes: int,
        seed: int = 0,
        adaptation_step: int = 0,
    ) -> Episodes:
        env = family.make_batch(len(tasks) * num_episodes)
        rngs = episode_rngs(len(tasks), num_episodes, seed, adaptation_step)
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
def make_batch() -> Callable[..., TrainingBatch]:
    """Draws random on-policy training batches, float64, of the tasks of stacked parameters."""

    def make_batch(
        policy: MLPPolicy, params: Params, rng: np.random.Generator, num_steps: int = 8
    ) -> TrainingBatch:
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
        return TrainingBatch(
            obs=obs,
            action=action,
            advantage=advantage * took_place,
            weight=weight,
            log_prob=log_prob,
            reward=0.3 * draw() * took_place,
            value=0.3 * draw() * took_place,
            loss=1.2 - 1.5 * torch.arange(num_tasks).double(),
            horizon=horizon,
            longest=horizon,
        )

    return make_batch


@dataclass
class MetaProblem:
    """Three tasks in microbatches of two and one, each adapted by some steps on random batches.

    Attributes:
        meta: the meta-parameters that the tasks were adapted from.
        surrogate: the inner one.
    """

    policy: MLPPolicy
    loop: InnerLoop
    inner: InnerConfig
    surrogate: Surrogate
    meta: Params
    microbatches: list[MetaMicrobatch]

    def objective(
        self, microbatches: list[MetaMicrobatch] | None = None, surrogate: Surrogate | None = None
    ) -> MetaObjective:
        return MetaObjective(
            self.policy,
            self.loop,
            surrogate or self.surrogate,
            self.meta,
            microbatches or self.microbatches,
            MicrobatchPool(1),
            emaml_weight=self.inner.emaml_weight,
            pre_adaptation_weight=self.inner.pre_adaptation_weight,
            whole_episodes=self.inner.surrogate in EPISODIC,
        )

    @property
    def old(self) -> torch.Tensor:
        """The meta-parameters, (P,)."""
        return flatten(self.meta)

    def singles(self) -> list[MetaMicrobatch]:
        """The same tasks in microbatches of one."""

        def only(x, task: int):
            """The row of a task in whatever has one."""
            if x is None:
                return None
            if isinstance(x, torch.Tensor):
                return x[task : task + 1]
            if isinstance(x, dict):
                return {name: only(value, task) for name, value in x.items()}
            if isinstance(x, tuple):
                return tuple(only(value, task) for value in x)
            return replace(
                x, **{n: only(v, task) for n, v in vars(x).items() if type(v) not in (int, float)}
            )

        return [
            only(microbatch, task)
            for microbatch in self.microbatches
            for task in range(microbatch.num_tasks)
        ]

    def plain_step(self, params: Params, batch: TrainingBatch) -> Params:
        """One step of SGD on all parameters of one task, unstacked, by plain autograd."""
        log_prob = self.policy(stack(params, 1), batch.obs).log_prob(batch.action)
        if self.inner.surrogate == "likelihood_ratio":
            log_prob = (log_prob - batch.log_prob).exp()
        loss = -(log_prob * batch.advantage * batch.weight).sum()
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        if self.inner.first_order:
            gradients = [gradient.detach() for gradient in gradients]
        size = max(0.0, self.inner.lr + self.inner.loss_scaled_lr * batch.loss.item())
        return {
            name: value - size * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }

    def plain_trajectory(self, params: Params, microbatch: MetaMicrobatch) -> list[Params]:
        """A task's parameters before, between and after its steps, unstacked, in the graph of
        those that it begins with."""
        trajectory = [params]
        for batch in microbatch.support:
            trajectory.append(self.plain_step(trajectory[-1], batch))
        return trajectory


@pytest.fixture
def make_problem(tiny_policy, tiny_params, make_batch) -> Callable[..., MetaProblem]:
    """Make a meta-learning problem, float64, with no parameter at a special value such as 0."""

    def make(
        steps: int = 1,
        surrogate: str = "likelihood_ratio",
        *,
        policy: MLPPolicy = tiny_policy,
        params: Params = tiny_params,
        fresh: bool = False,
        sequence: int = 1,
        **settings,
    ) -> MetaProblem:
        """Make the problem; `fresh` leaves the meta-parameters of the task parameters and of the
        update rule at their initial values. The queries of a `sequence` have different weights."""
        weights = {"query": 1.0}
        if sequence > 1:
            weights = {"query": 0.6 / sequence, "revisit": 0.4 / (sequence - 1)}
        rng = np.random.default_rng(8)
        decay = 0.8 if surrogate == "loaded_dice" else 1.0
        inner = InnerConfig(**{"lr": 0.02, **settings}, surrogate=surrogate, dice_decay=decay)
        loop = make_inner_loop(inner, policy, steps)
        meta = loop.init(params, rng)
        for name in [] if fresh else sorted(meta.keys() - params.keys()):
            noise = torch.from_numpy(rng.standard_normal(meta[name].shape))
            is_rate = name.startswith("lr:")
            meta[name] = meta[name] * (0.3 * noise).exp() if is_rate else meta[name] + 0.2 * noise
        function = inner_surrogate(surrogate, inner.dice_decay)
        microbatches = []
        for num_tasks in (2, 1):
            state, support, queries = loop.init_state(meta, num_tasks), [], []
            for _, kind in sequence_phases(steps, sequence):
                params = loop.to_model_params(meta, state)
                batch = make_batch(policy, params, rng, 12)
                if kind == "support":
                    loss = policy_loss(batch, policy, function)
                    state = loop.step(meta, state, loss, rule_loss=batch.loss)
                    support.append(batch)
                else:
                    queries.append(Query(state.step, params, batch, weights[kind]))
            return_weight = torch.from_numpy(rng.standard_normal(num_tasks))
            microbatches.append(
                MetaMicrobatch(tuple(support), state, tuple(queries), return_weight)
            )
        return MetaProblem(policy, loop, inner, function, meta, microbatches)

    return make
