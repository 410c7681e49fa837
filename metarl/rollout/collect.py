"""The only closed loop of an agent and its environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metarl.core.errors import UserError
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import BatchEnv, SimulationDiverged
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import LARGEST, EpisodeDiverged, Failure, episode_failures

if TYPE_CHECKING:
    from metarl.agents.base import MetaAgent


UNKNOWN_OTHERS = (
    "; the others cannot go on without it, as its environment does not tell how they fared "
    "(SimulationDiverged.result)"
)


class Actor(Protocol):
    """What acts for B tasks, E episodes each, by the agent's states of those tasks."""

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the random numbers of one episode, (T, noise_dim)."""
        ...

    def act(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Choose actions, (B, E, action_dim), at obs (B, E, obs_dim) with noise (B, E, ...)."""
        ...


def collect(
    env: BatchEnv,
    actor: Actor,
    tasks: np.ndarray,
    rngs: Sequence[np.random.Generator],
    timer: Timer,
    watch: Callable[[BatchEnv], None] | None = None,
    *,
    failures: list[Failure] | None = None,
    phase: int = 0,
    alive: np.ndarray | None = None,
) -> Episodes:
    """Play the same number of episodes of each task, all together.

    An episode fails where its state, observation, reward or action is not finite. It is not stepped
    any further, and the others are what they are without its failure, to the bit.

    Args:
        env: a batch environment of B * E episodes.
        actor: acts for the B tasks.
        tasks: (B, task_dim).
        rngs: the random streams of the episodes, task by task, B * E of them.
        timer: takes the times of `policy` and `environment`.
        watch: called at the beginning and after each step, to look at the environment.
        failures: takes those of the episodes, which are then left out; None to raise instead.
        phase: how often the tasks were adapted to, for the failures.
        alive: which tasks are played, (B,) bool; all episodes of the others are left out.

    Raises:
        EpisodeDiverged: naming task, episode and step, if an episode fails and `failures` is None,
            or the environment does not tell how the others went on.
        UserError: if the family's rewards have a wrong shape.
    """
    family, num_tasks = env.family, len(tasks)
    horizon, num_episodes = family.horizon, env.num_episodes // num_tasks
    shape = (num_tasks, num_episodes)
    out = np.zeros(shape, bool) if alive is None else np.repeat(~alive[:, None], num_episodes, 1)

    def described(ids: np.ndarray, step: int, reason: str) -> list[Failure]:
        return episode_failures(ids, tasks, num_episodes, reason, phase=phase, step=step)

    def leave_out(ids: np.ndarray, step: int, reason: str) -> None:
        if not ids.size:
            return
        if failures is None:
            raise EpisodeDiverged(described(ids, step, reason))
        failures.extend(described(ids, step, reason))
        out.flat[ids] = True

    with timer("reset"):
        try:
            obs = env.reset(np.repeat(tasks, num_episodes, axis=0), rngs)
        except SimulationDiverged as error:
            reason = f"at its reset, {error.reason}"
            raise EpisodeDiverged(described(error.ids, 0, reason)) from error
        bad = ~in_range(obs).all(axis=1) & ~out.ravel()
        leave_out(np.flatnonzero(bad), 0, "the first observation is not finite")
        # (B, E, T, noise_dim)
        noise = np.stack([actor.noise(rng, horizon) for rng in rngs])
        noise = noise.reshape(*shape, horizon, -1)

        # Filled step by step, so the steps lead; transposed at the end.
        obs_dim, action_dim = family.observation_space.shape[0], family.action_dim
        all_obs = np.zeros((horizon + 1, *shape, obs_dim), np.float32)
        all_action = np.zeros((horizon, *shape, action_dim), np.float32)
        all_reward = np.zeros((horizon, *shape), np.float32)
        mask = np.zeros((horizon, *shape), bool)
        terminated = np.zeros(shape, bool)
        all_obs[0] = np.where(out[..., None], 0, obs.reshape(*shape, -1))
        last_obs = all_obs[0].copy()

    if watch is not None:
        watch(env)
    for step in range(horizon):
        active = ~(terminated | out)
        if not active.any():
            break
        with timer("policy"):
            # Ended episodes are acted for too: the shape of a matrix product decides its rounding,
            # and an episode's end must not change the others' results.
            action = actor.act(all_obs[step], noise[:, :, step])
        if not all_in_range(action):
            bad = active & ~np.isfinite(action).all(axis=2)
            leave_out(np.flatnonzero(bad), step, "the policy's action is not finite")
            active &= ~out
            if not active.any():
                break
        with timer("environment"):
            ids = None if active.all() else np.flatnonzero(active)
            try:
                obs, reward, ended = env.step(action.reshape(-1, action_dim), ids)
            except SimulationDiverged as error:
                if error.result is None:
                    found = described(error.ids, step, error.reason)
                    remark = "" if failures is None else UNKNOWN_OTHERS
                    raise EpisodeDiverged(found, remark) from error
                leave_out(error.ids[active.flat[error.ids]], step, error.reason)
                obs, reward, ended = error.result
                active &= ~out
        if np.shape(reward) != (env.num_episodes,):
            raise UserError(
                f"{family.name}: its reward has the shape {np.shape(reward)}, expected "
                f"{(env.num_episodes,)}, one for each episode; metarl check-env looks at the rest"
            )
        if not (all_in_range(reward) and all_in_range(obs)):
            finite = in_range(reward) & in_range(obs).all(axis=1)
            bad = np.flatnonzero(~finite & active.ravel())
            leave_out(bad, step, "an observation or reward is not finite")
            active &= ~out
        all_action[step][active] = action[active]
        all_reward[step][active] = reward.reshape(shape)[active]
        mask[step] = active
        last_obs[active] = obs.reshape(*shape, -1)[active]
        terminated |= active & ended.reshape(shape)
        all_obs[step + 1] = np.where((terminated | out)[..., None], 0, last_obs)
        if watch is not None:
            watch(env)

    if out.any():
        for array in (all_obs, all_action, all_reward, mask):
            array[:, out] = 0
        last_obs[out], terminated[out] = 0, False
    endless = not family.finite_horizon
    return Episodes(
        obs=episode_major(all_obs[:-1]),
        action=episode_major(all_action),
        reward=episode_major(all_reward),
        mask=episode_major(mask),
        last_obs=last_obs,
        terminated=terminated,
        bootstrap=~(terminated | out) & endless,
        tasks=np.asarray(tasks, np.float64),
        success=None if env.success is None else env.success.reshape(shape) & ~out,
    )


def adaptation(
    agent: MetaAgent,
    env: BatchEnv,
    tasks: np.ndarray,
    steps: int,
    *,
    seed: int,
    purpose: Purpose,
    iteration: int = 0,
    scales: Sequence[float] | None = None,
    timer: Timer,
    watch: Callable[[BatchEnv], None] | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[tuple[Any, Episodes]]:
    """Let an agent meet tasks for the first time: play, adapt, play, adapt, ..., play.

    Every task starts from the meta-parameters, whatever was met before.

    Args:
        agent: a meta-agent.
        env: a batch environment of B * E episodes.
        tasks: (B, task_dim).
        steps: how many times to adapt.
        seed, purpose, iteration: the address of the random streams.
        scales: a factor on the step of each adaptation; None for 1.
        timer: takes the times.
        watch, failures: as in `collect`. A task that has lost all episodes of a phase cannot be
            adapted to, and is not played any further.

    Yields:
        The agent's states and the episodes that they played, `steps` + 1 times.
    """
    num_tasks, num_episodes = len(tasks), env.num_episodes // len(tasks)
    state, alive = agent.initial_state(num_tasks), np.ones(num_tasks, bool)
    for phase in range(steps + 1):
        with timer("reset"):
            rngs = episode_rngs(seed, purpose, num_tasks, num_episodes, iteration, phase)
        with timer("policy"):
            actor = agent.actor(state)
        episodes = collect(
            env, actor, tasks, rngs, timer, watch, failures=failures, phase=phase, alive=alive
        )
        alive = episodes.alive
        yield state, episodes
        if phase < steps:
            with timer("adaptation"):
                state = agent.adapt(state, episodes, scales[phase] if scales else 1.0)


def episode_rngs(
    seed: int,
    purpose: Purpose,
    num_tasks: int,
    num_episodes: int,
    iteration: int = 0,
    phase: int = 0,
) -> list[np.random.Generator]:
    """Return a random stream for each episode, task by task."""
    return [
        make_rng(seed, purpose, iteration=iteration, phase=phase, task=task, episode=episode)
        for task in range(num_tasks)
        for episode in range(num_episodes)
    ]


def episode_major(array: np.ndarray) -> np.ndarray:
    """Turn (T, B, E, ...) into (B, E, T, ...), contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, 0, 2))


def all_in_range(array: np.ndarray) -> bool:
    """Say whether all numbers are finite in 32 bits: much faster than one by one."""
    return bool(array.min() >= -LARGEST and array.max() <= LARGEST)  # which NaN is not


def in_range(array: np.ndarray) -> np.ndarray:
    """Say which numbers are finite in 32 bits, of the shape of the array."""
    return np.abs(array) <= LARGEST  # which NaN is not
