"""Checks of a batch environment: results of `step`, and independence of its episodes."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import TaskFamily
from metarl.envs.contract.recording import (
    Violation,
    begin,
    expect,
    finite_bounds,
    make_rngs,
    play,
    random_actions,
    random_tasks,
    record,
    render_states,
    step_through,
    unused_global_rngs,
)

RESULTS = ("obs", "reward", "terminated")  # of a step


def results_of_step(family: TaskFamily) -> str:
    """Observations, rewards and ends have the promised shapes, dtypes and ranges."""
    num_episodes = 3
    env, obs = begin(family, num_episodes)
    expect_observations(family, obs, np.ones(num_episodes, bool), "reset")
    for step, (active, result) in enumerate(
        step_through(env, random_actions(family, num_episodes))
    ):
        when = f"step {step}"
        count = len(result) if isinstance(result, tuple) else type(result).__name__
        expect(count == 3, f"{when}: expected (obs, reward, terminated), got {count}")
        obs, reward, terminated = result
        expect_observations(family, obs, active, when)
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
        expect_finite_rewards(reward, active, when)
        expect(
            terminated.dtype == bool, f"{when}: terminated: expected bool, got {terminated.dtype}"
        )
        for name, value in (("success", env.success), ("truncated", env.truncated)):
            if value is not None:
                shape, kind = np.shape(value), np.asarray(value).dtype
                fits = shape == (num_episodes,) and kind.kind == "b"
                expect(fits, f"{when}: {name}: expected ({num_episodes},) bool, got {shape} {kind}")
        states = [env.render_state(i) for i in range(num_episodes)]
        shapes = {np.shape(state) for state in states}
        expect(
            len(shapes) == 1 and len(min(shapes)) == 1,
            f"render_state: expected one axis, (k,), the same for all episodes, got {shapes}",
        )
    return ""


def expect_finite_rewards(reward: np.ndarray, active: np.ndarray, when: str) -> None:
    """Raise a `Violation` if a reward of an active episode, (N,), is not finite."""
    bad = np.flatnonzero(~np.isfinite(reward) & active)
    if bad.size:
        raise Violation(
            f"{when}: the reward of episode {bad[0]} is {reward[bad[0]]}; it must be finite "
            "(if the state is not, raise SimulationDiverged)"
        )


def expect_observations(family: TaskFamily, obs: np.ndarray, active: np.ndarray, when: str) -> None:
    """Raise a `Violation` if the observations of active episodes, (N, obs_dim), are not as their
    space says."""
    space = family.observation_space
    expected = (len(active), *space.shape)
    expect(
        np.shape(obs) == expected,
        f"{when}: obs: expected the shape {expected}, got {np.shape(obs)}",
    )
    expect(
        np.can_cast(obs.dtype, space.dtype),
        f"{when}: obs: expected {space.dtype}, as in its space, got {obs.dtype}",
    )
    for episode in np.flatnonzero(active):
        row = obs[episode]
        wrong = ~((row >= space.low) & (row <= space.high))  # NaN is nowhere between
        if wrong.any():
            i = np.flatnonzero(wrong)[0]
            raise Violation(
                f"{when}: number {i} of the observation of episode {episode} is {row[i]:g}; its "
                f"space says {space.low[i]:g} to {space.high[i]:g}: widen it, or clip"
            )


def actions(family: TaskFamily) -> str:
    """Actions beyond a Box are clipped; a wrong index of a Discrete space is refused."""
    space, tasks, env = family.action_space, random_tasks(family, 2), family.make_batch(2)
    if isinstance(space, Discrete):
        for wrong in (space.n, -1, 0.5, np.nan):
            env.reset(tasks, make_rngs(range(2)))
            try:
                env.step(np.full((2, 1), wrong))
            except ValueError:
                continue
            raise Violation(
                f"the action {wrong} of {space} was taken; refuse it (BatchEnv.action_indices)"
            )
        return ""
    low, high = finite_bounds(space)
    beyond = random_actions(family, 2)
    beyond[0] = [low - (high - low), high + (high - low)]
    beyond[1:] += np.sign(beyond[1:]) * (high - low)
    recordings = [
        play(env, tasks, each.astype(np.float32), make_rngs(range(2)))
        for each in (beyond, np.clip(beyond, space.low, space.high))
    ]
    found = recordings[0].difference(recordings[1])
    expect(not found, f"actions beyond the box do not act as clipped into it ({found}); clip them")
    return ""


def episodes_randomness(family: TaskFamily) -> str:
    """Episodes draw from their own random number generators only, and only at their reset."""
    recordings = []
    for seed in (1, 2):  # of the global generators, which must not matter
        with unused_global_rngs(seed):
            recordings.append(record(family))
    found = recordings[0].difference(recordings[1])
    expect(not found, f"the same generators gave other episodes ({found}); draw from nothing else")

    tasks, actions, rngs = random_tasks(family, 3), random_actions(family, 3), make_rngs(range(3))
    env = family.make_batch(3)
    env.reset(tasks, rngs)
    after_reset = [rng.bit_generator.state for rng in rngs]
    list(step_through(env, actions))
    expect(
        after_reset == [rng.bit_generator.state for rng in rngs],
        "step draws from the generators that reset was given; draw the noise of all steps in reset",
    )
    other = play(env, tasks, actions, make_rngs(range(3), seed=1))
    return "" if other.difference(recordings[0]) else "the generators make no difference"


def fresh_arrays(family: TaskFamily) -> str:
    """Neither returned arrays nor arguments are changed later."""
    _expect_results_stay(family)
    _expect_results_are_not_read(family)
    tasks, actions = random_tasks(family, 2), random_actions(family, 2)
    kept = tasks.copy(), actions.copy()
    play(family.make_batch(2), tasks, actions, make_rngs(range(2)))
    expect(np.array_equal(tasks, kept[0]), "reset writes into the tasks it is given; copy them")
    expect(np.array_equal(actions, kept[1]), "step writes into the actions it is given; copy them")
    return ""


def _expect_results_stay(family: TaskFamily) -> None:
    """Raise a `Violation` if results change with later steps."""
    env, first = begin(family, 2)
    held = [("the obs of reset", first, first.copy())]
    for step, (_, result) in enumerate(step_through(env, random_actions(family, 2))):
        named = zip(RESULTS, result, strict=True)
        held += [(f"{name} of step {step}", value, value.copy()) for name, value in named]
        state = env.render_state(0)
        held.append((f"render_state after step {step}", state, np.array(state)))
    env.reset(random_tasks(family, 2, seed=1), make_rngs(range(2), seed=1))
    for name, value, copied in held:
        expect(
            np.array_equal(value, copied, equal_nan=True),
            f"{name} changed when the environment went on; return a copy",
        )


def _expect_results_are_not_read(family: TaskFamily) -> None:
    """Raise a `Violation` if writing into results changes later steps."""
    (reference, _), (written_env, first) = begin(family, 2), begin(family, 2)
    actions = random_actions(family, 2)
    first[:] = 7
    pairs = zip(
        step_through(reference, actions), step_through(written_env, actions.copy()), strict=True
    )
    for step, ((active, result), (_, written)) in enumerate(pairs):
        for name, ours, theirs in zip(RESULTS, result, written, strict=True):
            expect(
                np.array_equal(ours[active], theirs[active]),
                f"{name} of step {step} depends on what the caller wrote into earlier results; "
                "return copies",
            )
        written[0][:] = written[1][:] = 7


def batch_equals_single(family: TaskFamily) -> str:
    """Episodes in a batch are bit-identical to the same episodes alone."""
    num_episodes = 3
    tasks, actions = random_tasks(family, num_episodes), random_actions(family, num_episodes)
    together = play(family.make_batch(num_episodes), tasks, actions, make_rngs(range(num_episodes)))
    single = family.make_batch(1)
    for i in range(num_episodes):
        alone = play(single, tasks[[i]], actions[:, [i]], make_rngs([i]))
        found = together.select([i]).difference(alone)
        expect(
            not found,
            f"episode {i} of {num_episodes} alone is another ({found}); episodes must not depend "
            "on each other, nor rounding on their number",
        )
    return ""


def subsets(family: TaskFamily) -> str:
    """Stepping some episodes leaves the others unchanged, and equals stepping all."""
    num_episodes = 5
    (whole, _), (parts, _) = begin(family, num_episodes), begin(family, num_episodes)
    actions, decoys = (random_actions(family, num_episodes, seed=seed) for seed in (0, 1))
    for step, (active, result) in enumerate(step_through(whole, actions)):
        for part in (np.array([1, 3]), np.array([0, 2, 4])):
            ids = part[active[part]]
            if not ids.size:
                continue
            others = np.setdiff1d(np.arange(num_episodes), ids)
            before = render_states(parts)
            # The actions of episodes that are not stepped must not matter.
            action = decoys[step].copy()
            action[ids] = actions[step][ids]
            got = parts.step(action, ids)
            expect(
                np.array_equal(before[others], render_states(parts)[others], equal_nan=True),
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
    """Results do not depend on the number of threads."""
    found = record(family, 5, num_threads=1).difference(record(family, 5, num_threads=2))
    expect(
        not found, f"2 threads give other episodes than 1 ({found}); share nothing between episodes"
    )
    return ""


def reset_clears_state(family: TaskFamily) -> str:
    """An episode does not depend on earlier episodes of the environment."""
    used, _ = begin(family, 3)
    actions = random_actions(family, 3, seed=1)
    if isinstance(family.action_space, Box):
        actions[:] = finite_bounds(family.action_space)[1]  # constant actions lead further
    list(step_through(used, actions))
    again = play(used, random_tasks(family, 3), random_actions(family, 3), make_rngs(range(3)))
    found = record(family).difference(again)
    expect(not found, f"an episode after another is another ({found}); set all state in reset")
    return ""


def advance_equals_step(family: TaskFamily) -> str:
    """`advance` steps the same dynamics as `step`."""
    (env, _), (open_loop, _) = begin(family, 3), begin(family, 3)
    actions = random_actions(family, 3)
    for step, (active, _) in enumerate(step_through(env, actions)):
        open_loop.advance(actions[step], None if active.all() else np.flatnonzero(active))
        expect(
            np.array_equal(
                render_states(env)[active], render_states(open_loop)[active], equal_nan=True
            ),
            f"after step {step}, advance leads to another render_state than step; let step call it",
        )
    expect(
        env.physics_seconds > 0,
        "physics_seconds is still 0 after step; add the time of the physics",
    )
    return ""
