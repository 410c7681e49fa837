"""Checks of a batch environment: what it returns, and that its episodes are independent."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, TaskFamily
from metarl.envs.contract.recording import (
    Violation,
    drawn_states,
    expect,
    finite_bounds,
    play,
    record,
    some_actions,
    some_tasks,
    step_through,
    streams,
    watched_globals,
)

RESULTS = ("obs", "reward", "terminated")  # what a step returns


def _begin(family: TaskFamily, num_episodes: int) -> tuple[BatchEnv, np.ndarray]:
    """A batch environment, and its first observations."""
    env = family.make_batch(num_episodes)
    tasks = some_tasks(family, num_episodes)
    return env, env.reset(tasks, streams(range(num_episodes)))


def results_of_step(family: TaskFamily) -> str:
    """Observations, rewards and ends have the promised shapes, dtypes and ranges."""
    num_episodes = 3
    env, obs = _begin(family, num_episodes)
    _expect_observations(family, obs, np.ones(num_episodes, bool), "reset")
    for step, (live, result) in enumerate(step_through(env, some_actions(family, num_episodes))):
        when = f"step {step}"
        count = len(result) if isinstance(result, tuple) else type(result).__name__
        expect(count == 3, f"{when}: expected (obs, reward, terminated), got {count}")
        obs, reward, terminated = result
        _expect_observations(family, obs, live, when)
        for name, value in (("reward", reward), ("terminated", terminated)):
            expect(
                np.shape(value) == (num_episodes,),
                f"{when}: {name}: expected one for each episode, the shape ({num_episodes},), got "
                f"{np.shape(value)}",
            )
            expect(isinstance(value, np.ndarray), f"{when}: {name}: expected a numpy array")
        expect(
            np.issubdtype(reward.dtype, np.floating),
            f"{when}: reward: expected floating numbers, got {reward.dtype}",
        )
        bad = np.flatnonzero(~np.isfinite(reward) & live)
        if bad.size:
            raise Violation(
                f"{when}: the reward of episode {bad[0]} is {reward[bad[0]]}; it must be finite "
                "(if the state is not, raise SimulationDiverged)"
            )
        expect(
            terminated.dtype == bool, f"{when}: terminated: expected bool, got {terminated.dtype}"
        )
        states = [env.drawn_state(i) for i in range(num_episodes)]
        shapes = {np.shape(state) for state in states}
        expect(
            len(shapes) == 1 and len(min(shapes)) == 1,
            f"drawn_state: expected one axis, (k,), the same for all episodes, got {shapes}",
        )
    return ""


def _expect_observations(family: TaskFamily, obs: np.ndarray, live: np.ndarray, when: str) -> None:
    space = family.observation_space
    expected = (len(live), *space.shape)
    expect(
        np.shape(obs) == expected,
        f"{when}: obs: expected the shape {expected}, got {np.shape(obs)}",
    )
    expect(
        np.can_cast(obs.dtype, space.dtype),
        f"{when}: obs: expected {space.dtype}, as in its space, got {obs.dtype}",
    )
    for episode in np.flatnonzero(live):
        row = obs[episode]
        wrong = ~((row >= space.low) & (row <= space.high))  # NaN is nowhere between
        if wrong.any():
            i = np.flatnonzero(wrong)[0]
            raise Violation(
                f"{when}: number {i} of the observation of episode {episode} is {row[i]:g}; its "
                f"space says {space.low[i]:g} to {space.high[i]:g}: widen it, or clip"
            )


def actions(family: TaskFamily) -> str:
    """Actions beyond a Box act as clipped into it; a wrong index of a Discrete one is refused."""
    space, tasks, env = family.action_space, some_tasks(family, 2), family.make_batch(2)
    if isinstance(space, Discrete):
        for wrong in (space.n, -1, 0.5, np.nan):
            env.reset(tasks, streams(range(2)))
            try:
                env.step(np.full((2, 1), wrong))
            except ValueError:
                continue
            raise Violation(
                f"the action {wrong} of {space} was taken; refuse it (BatchEnv.action_indices)"
            )
        return ""
    low, high = finite_bounds(space)
    beyond = some_actions(family, 2)
    beyond[0] = [low - (high - low), high + (high - low)]
    beyond[1:] += np.sign(beyond[1:]) * (high - low)
    recordings = [
        play(env, tasks, each.astype(np.float32), streams(range(2)))
        for each in (beyond, np.clip(beyond, space.low, space.high))
    ]
    found = recordings[0].difference(recordings[1])
    expect(not found, f"actions beyond the box do not act as clipped into it ({found}); clip them")
    return ""


def episodes_randomness(family: TaskFamily) -> str:
    """Episodes draw from their own streams only, and at their reset only."""
    recordings = []
    for seed in (1, 2):  # of the global generators, which must not matter
        with watched_globals(seed):
            recordings.append(record(family))
    found = recordings[0].difference(recordings[1])
    expect(not found, f"the same streams gave other episodes ({found}); draw from nothing else")

    tasks, acts, rngs = some_tasks(family, 3), some_actions(family, 3), streams(range(3))
    env = family.make_batch(3)
    env.reset(tasks, rngs)
    after_reset = [rng.bit_generator.state for rng in rngs]
    list(step_through(env, acts))
    expect(
        after_reset == [rng.bit_generator.state for rng in rngs],
        "step draws from the streams that reset was given; draw the noise of all steps in reset",
    )
    other = play(env, tasks, acts, streams(range(3), seed=1))
    return "" if other.difference(recordings[0]) else "the streams make no difference"


def fresh_arrays(family: TaskFamily) -> str:
    """What is returned is the caller's, and so is what is given: neither is changed."""
    _expect_results_stay(family)
    _expect_results_are_not_read(family)
    tasks, acts = some_tasks(family, 2), some_actions(family, 2)
    kept = tasks.copy(), acts.copy()
    play(family.make_batch(2), tasks, acts, streams(range(2)))
    expect(np.array_equal(tasks, kept[0]), "reset writes into the tasks it is given; copy them")
    expect(np.array_equal(acts, kept[1]), "step writes into the actions it is given; copy them")
    return ""


def _expect_results_stay(family: TaskFamily) -> None:
    """Refuse results that change when the environment goes on."""
    env, first = _begin(family, 2)
    held = [("the obs of reset", first, first.copy())]
    for step, (_, result) in enumerate(step_through(env, some_actions(family, 2))):
        named = zip(RESULTS, result, strict=True)
        held += [(f"{name} of step {step}", value, value.copy()) for name, value in named]
        state = env.drawn_state(0)
        held.append((f"drawn_state after step {step}", state, np.array(state)))
    env.reset(some_tasks(family, 2, seed=1), streams(range(2), seed=1))
    for name, value, copied in held:
        expect(
            np.array_equal(value, copied, equal_nan=True),
            f"{name} changed when the environment went on; return a copy",
        )


def _expect_results_are_not_read(family: TaskFamily) -> None:
    """Refuse an environment that goes on from results that a caller wrote into."""
    (quiet, _), (scribbled, first) = _begin(family, 2), _begin(family, 2)
    acts = some_actions(family, 2)
    first[:] = 7
    pairs = zip(step_through(quiet, acts), step_through(scribbled, acts.copy()), strict=True)
    for step, ((live, result), (_, written)) in enumerate(pairs):
        for name, ours, theirs in zip(RESULTS, result, written, strict=True):
            expect(
                np.array_equal(ours[live], theirs[live]),
                f"{name} of step {step} depends on what the caller wrote into earlier results; "
                "return copies",
            )
        written[0][:] = written[1][:] = 7


def batch_equals_single(family: TaskFamily) -> str:
    """Episodes played together equal each of them played alone, to the bit."""
    num_episodes = 3
    tasks, acts = some_tasks(family, num_episodes), some_actions(family, num_episodes)
    together = play(family.make_batch(num_episodes), tasks, acts, streams(range(num_episodes)))
    single = family.make_batch(1)
    for i in range(num_episodes):
        alone = play(single, tasks[[i]], acts[:, [i]], streams([i]))
        found = together.of([i]).difference(alone)
        expect(
            not found,
            f"episode {i} of {num_episodes} alone is another ({found}); episodes must not depend "
            "on each other, nor rounding on their number",
        )
    return ""


def subsets(family: TaskFamily) -> str:
    """Stepping some episodes leaves the others alone, and equals stepping all."""
    num_episodes = 5
    (whole, _), (parts, _) = _begin(family, num_episodes), _begin(family, num_episodes)
    acts, decoys = (some_actions(family, num_episodes, seed=seed) for seed in (0, 1))
    for step, (live, result) in enumerate(step_through(whole, acts)):
        for part in (np.array([1, 3]), np.array([0, 2, 4])):
            ids = part[live[part]]
            if not ids.size:
                continue
            others = np.setdiff1d(np.arange(num_episodes), ids)
            before = drawn_states(parts)
            # Where an episode is not stepped, its row of the actions means nothing.
            action = decoys[step].copy()
            action[ids] = acts[step][ids]
            got = parts.step(action, ids)
            expect(
                np.array_equal(before[others], drawn_states(parts)[others], equal_nan=True),
                f"step(action, ids={ids.tolist()}) changes episodes that are not in ids",
            )
            for name, ours, theirs in zip(RESULTS, result, got, strict=True):
                expect(
                    np.array_equal(ours[ids], theirs[ids]),
                    f"{name} of step {step} differs when only the episodes {ids.tolist()} are "
                    "stepped; un-stepped episodes and their actions must not matter",
                )
    return ""


def threads(family: TaskFamily) -> str:
    """The number of threads changes nothing."""
    found = record(family, 5, num_threads=1).difference(record(family, 5, num_threads=2))
    expect(
        not found, f"2 threads give other episodes than 1 ({found}); share nothing between episodes"
    )
    return ""


def reset_leaves_nothing(family: TaskFamily) -> str:
    """An episode does not depend on what the environment did before."""
    used, _ = _begin(family, 3)
    acts = some_actions(family, 3, seed=1)
    if isinstance(family.action_space, Box):
        acts[:] = finite_bounds(family.action_space)[1]  # steadily one way, which leads further
    list(step_through(used, acts))
    again = play(used, some_tasks(family, 3), some_actions(family, 3), streams(range(3)))
    found = record(family).difference(again)
    expect(not found, f"an episode after another is another ({found}); set all state in reset")
    return ""


def advance_is_step(family: TaskFamily) -> str:
    """`advance` does the dynamics of `step`, no more and no less."""
    (env, _), (open_loop, _) = _begin(family, 3), _begin(family, 3)
    acts = some_actions(family, 3)
    for step, (live, _) in enumerate(step_through(env, acts)):
        open_loop.advance(acts[step], None if live.all() else np.flatnonzero(live))
        expect(
            np.array_equal(drawn_states(env)[live], drawn_states(open_loop)[live], equal_nan=True),
            f"after step {step}, advance leads to another drawn_state than step; let step call it",
        )
    expect(
        env.physics_seconds > 0,
        "physics_seconds is still 0 after step; add the time of the physics",
    )
    return ""
