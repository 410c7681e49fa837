"""Collection of episodes: the only closed loop of an agent and its environment.

B is the number of tasks, E the number of episodes of each task, T the horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import BatchEnv, SimulationDiverged
from metarl.rollout.checked import all_in_range, check_action, check_obs, check_result, in_range
from metarl.rollout.episode_buffer import EpisodeBuffer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import EpisodeDiverged, Failure, episode_failures

BAD_OBSERVATION = "the first observation is not finite"
BAD_ACTION = "the policy's action is not finite"
BAD_RESULT = "an observation or reward is not finite"
AT_RESET = "at its reset, "
UNKNOWN_OTHERS = (
    "; the others cannot go on without it, as its environment does not tell how they fared "
    "(SimulationDiverged.result)"
)


class Actor(Protocol):
    """Chooses the actions of one batch of episodes, E episodes of each of B tasks.

    An actor may have a state within the episodes, such as the hidden state of a recurrent policy.
    The state of an episode must not change after the episode has ended. An actor with an attribute
    `memory`, (B, E, k) float32, finds its last value in `Episodes.memory` when it adapts.

    An actor with a method `rows(start, stop)`, which returns the actor of the tasks `start`, ...,
    `stop` - 1, promises the same actions to the bit, so that other machines compute only the
    actions of their own tasks. Actors travel there by pickle.

    `AdaptedAgent.predict` acts by a shallow copy, `copy.copy(actor)`, which must leave the actor as
    it is: `act` assigns new arrays to attributes instead of writing into the old ones.
    """

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the random numbers of the actions of one episode, (T, noise_dim)."""
        ...

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        """Return the actions of one step.

        Args:
            obs: (B, E, obs_dim) float32; 0 where the episode has ended.
            noise: (B, E, noise_dim), the random numbers of the step, drawn by `noise`.
            last_reward: (B, E) float32, reward of the previous step; 0 at the first step.
            active: (B, E) bool, mask of the episodes that have not ended.

        Returns:
            (B, E, action_dim) float32. Actions of ended episodes are ignored.
        """
        ...


def collect(
    env: BatchEnv,
    actor: Actor,
    tasks: np.ndarray,
    rngs: Sequence[np.random.Generator],
    timer: Timer,
    on_step: Callable[[BatchEnv], None] | None = None,
    *,
    failures: list[Failure] | None = None,
    adaptation_step: int = 0,
    task_mask: np.ndarray | None = None,
    task_ids: np.ndarray | None = None,
) -> Episodes:
    """Play E episodes of each of B tasks, all in parallel.

    An episode fails at the first state, observation, reward or action that is not finite. A failed
    episode is not stepped again and is left out of the result. The results of all other episodes
    are bit-identical to their results without the failure.

    Args:
        env: a batch environment of B * E episodes.
        actor: chooses the actions of the B tasks.
        tasks: (B, task_dim).
        rngs: random number generators of the episodes, task by task, (B * E,).
        timer: measures the sections `reset`, `policy` and `environment`.
        on_step: called with the environment after the reset and after each step.
        failures: list to which failures are appended; None raises at the first failure.
        adaptation_step: number of adaptations before these episodes, recorded in failures.
        task_mask: (B,) bool, mask of the tasks to play; all episodes of other tasks are left out.
        task_ids: (B,) int64, ids of tasks from a finite set.

    Raises:
        EpisodeDiverged: if an episode fails and `failures` is None, or if the environment does not
            return the results of the other episodes; names task, episode and step.
        UserError: if what the environment or the actor returns has a wrong shape or type.
    """
    family, num_tasks, num_episodes = env.family, len(tasks), env.num_episodes // len(tasks)
    horizon, action_dim = family.horizon, family.action_dim

    def described(ids: np.ndarray, step: int, reason: str) -> list[Failure]:
        return episode_failures(
            ids, tasks, num_episodes, reason, adaptation_step=adaptation_step, step=step
        )

    def leave_out(ids: np.ndarray, step: int, reason: str) -> None:
        if not ids.size:
            return
        if failures is None:
            raise EpisodeDiverged(described(ids, step, reason))
        failures.extend(described(ids, step, reason))
        buffer.left_out.flat[ids] = True

    with timer("reset"):
        buffer = EpisodeBuffer(family, num_tasks, num_episodes)
        if task_mask is not None:
            buffer.left_out |= ~task_mask[:, None]
        try:
            obs = env.reset(np.repeat(tasks, num_episodes, axis=0), rngs)
        except SimulationDiverged as error:
            reason = f"{AT_RESET}{error.reason}"
            raise EpisodeDiverged(described(error.ids, 0, reason)) from error
        obs_shape = buffer.obs.shape[3:]  # (obs_dim,)
        check_obs(env, obs, obs_shape)
        bad = ~in_range(obs).all(axis=1) & ~buffer.left_out.ravel()
        leave_out(np.flatnonzero(bad), 0, BAD_OBSERVATION)
        buffer.begin(obs)
        noise = np.stack([actor.noise(rng, horizon) for rng in rngs])
        noise = noise.reshape(num_tasks, num_episodes, horizon, -1)  # (B, E, T, noise_dim)

    if on_step is not None:
        on_step(env)
    for step in range(horizon):
        active = buffer.active
        if not active.any():
            break
        with timer("policy"):
            # Actions of ended episodes are computed too: the rounding of a matrix product depends
            # on its shape, and the end of an episode must not change other results.
            action = actor.act(buffer.obs[step], noise[:, :, step], buffer.last_reward, active)
        check_action(env, action, (num_tasks, num_episodes, action_dim))
        if not all_in_range(action):
            bad = active & ~in_range(action).all(axis=2)
            leave_out(np.flatnonzero(bad), step, BAD_ACTION)
            active &= ~buffer.left_out
            if not active.any():
                break
        with timer("environment"):
            ids = None if active.all() else np.flatnonzero(active)
            try:
                result = env.step(action.reshape(-1, action_dim), ids)
            except SimulationDiverged as error:
                if error.result is None:
                    found = described(error.ids, step, error.reason)
                    remark = "" if failures is None else UNKNOWN_OTHERS
                    raise EpisodeDiverged(found, remark) from error
                leave_out(error.ids[active.flat[error.ids]], step, error.reason)
                result = error.result
                active &= ~buffer.left_out
        obs, reward, _ = check_result(env, result, obs_shape)
        if not (all_in_range(reward) and all_in_range(obs)):
            finite = in_range(reward) & in_range(obs).all(axis=1)
            bad = np.flatnonzero(~finite & active.ravel())
            leave_out(bad, step, BAD_RESULT)
            active &= ~buffer.left_out
        buffer.add(step, active, action, result, env.truncated)
        if on_step is not None:
            on_step(env)
    return buffer.episodes(tasks, task_ids, env.success, getattr(actor, "memory", None))


def episode_rngs(
    seed: int,
    purpose: Purpose,
    num_tasks: int,
    num_episodes: int,
    iteration: int = 0,
    adaptation_step: int = 0,
    *,
    first_task: int = 0,
) -> list[np.random.Generator]:
    """Return the random number generators of the episodes, task by task, (B * E,).

    Args:
        seed, purpose, iteration, adaptation_step: as in `metarl.core.rng.make_rng`.
        num_tasks: B.
        num_episodes: E.
        first_task: index of the first of these tasks in the meta-batch.
    """
    return [
        make_rng(
            seed,
            purpose,
            iteration=iteration,
            adaptation_step=adaptation_step,
            task=task,
            episode=episode,
        )
        for task in range(first_task, first_task + num_tasks)
        for episode in range(num_episodes)
    ]


def order_in_step(failure: Failure) -> int:
    """Return a number that sorts the failures of episodes at one step as `collect` finds them."""
    reasons = (BAD_OBSERVATION, BAD_ACTION, None, BAD_RESULT)  # None: the simulation's reason
    at_reset = failure.reason.startswith(AT_RESET)
    return -1 if at_reset else reasons.index(failure.reason if failure.reason in reasons else None)
