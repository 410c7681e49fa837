"""envs.mujoco.half_cheetah and family: the physics of Gymnasium's HalfCheetah-v5, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs import HalfCheetahDir, HalfCheetahVel, SimulationDiverged
from metarl.envs.mujoco.family import MujocoBatchEnv
from metarl.envs.mujoco.models import quiet

VEL = HalfCheetahVel(action_scale=1.0)
GOALS = np.array([[0.3], [1.7], [1.0], [0.0], [2.0]])


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """Makes Gymnasium's HalfCheetah-v5, which would leave MUJOCO_LOG.TXT in the current folder."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(**kwargs):
        with quiet():
            made.append(gymnasium.make("HalfCheetah-v5", **kwargs).unwrapped)
        return made[-1]

    yield make
    for env in made:
        env.close()


def begin(family, tasks: np.ndarray, num_threads: int = 1, seed: int = 0) -> MujocoBatchEnv:
    """A batch environment at the start of an episode per task; episode i has stream seed + i."""
    env = family.make_batch(len(tasks), num_threads)
    env.reset(tasks, [np.random.default_rng(seed + i) for i in range(len(tasks))])
    return env


def random_actions(num_steps: int, num_episodes: int, seed: int = 0) -> np.ndarray:
    """(T, N, 6) float32, some beyond the limits +-1."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.2, 1.2, (num_steps, num_episodes, 6)).astype(np.float32)


def states(env: MujocoBatchEnv) -> np.ndarray:
    return np.stack([env.render_state(i) for i in range(env.num_episodes)])


@pytest.mark.parametrize(
    ("family", "task", "task_reward"),
    [
        (VEL, 1.3, lambda velocity: -abs(velocity - 1.3)),
        (HalfCheetahDir(action_scale=1.0), 1.0, lambda velocity: velocity),
        (HalfCheetahDir(action_scale=1.0), -1.0, lambda velocity: -velocity),
        (HalfCheetahDir(action_scale=1.0, frame_skip=1), 1.0, lambda velocity: velocity),
    ],
    ids=["vel", "forward", "backward", "frame_skip"],
)
def test_physics_and_reward_are_gymnasiums_to_the_bit(reference, family, task, task_reward):
    """200 random steps from the same state: qpos, qvel, observation and reward formula."""
    env = begin(family, np.array([[task]]))
    reference = reference(frame_skip=family.physics_steps)
    reference.reset(seed=0)
    mujoco.mj_resetData(reference.model, reference.data)
    reference.set_state(*np.split(env.render_state(0), [9]))
    for action in np.clip(random_actions(200, 1), -1, 1):
        obs, reward, terminated = env.step(action)
        expected_obs, _, _, _, info = reference.step(action[0])
        assert np.array_equal(env.batch.bind("qpos")[0], reference.data.qpos)
        assert np.array_equal(env.batch.bind("qvel")[0], reference.data.qvel)
        assert np.array_equal(obs[0], expected_obs)
        cost = 0.05 * np.square(action[0].astype(np.float64)).sum()
        assert reward[0] == task_reward(info["x_velocity"]) - cost
        assert not terminated[0]


def test_the_velocity_of_the_centre_of_mass_is_mujocos():
    """To first order in the time step, over one of 0.01 s: MuJoCo's is that at its end."""
    family = HalfCheetahDir(frame_skip=1, velocity_of="centre_of_mass", action_scale=1.0)
    env, model = begin(family, np.ones((1, 1))), family.model
    data = mujoco.MjData(model)
    for action in random_actions(50, 1):
        _, reward, _ = env.step(action)
        data.qpos[:], data.qvel[:] = np.split(env.render_state(0), [model.nq])
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        cost = 0.05 * np.square(np.clip(action[0], -1, 1)).sum()
        torso, everything = data.qvel[0], data.subtree_linvel[1, 0]
        assert abs(reward[0] + cost - everything) < max(0.02, 0.1 * abs(torso - everything))


def test_initial_states_are_distributed_as_gymnasiums():
    """qpos uniform within 0.1 of the model's, qvel normal with std 0.1; each from its stream."""
    env = begin(VEL, np.zeros((500, 1)))
    qpos, qvel = env.batch.bind("qpos") - VEL.model.qpos0, env.batch.bind("qvel")
    assert np.abs(qpos).max() <= 0.1
    np.testing.assert_allclose(qpos.std(), 0.1 / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(qvel.std(), 0.1, rtol=0.05)
    again = begin(VEL, np.zeros((3, 1)), seed=7)
    assert np.array_equal(states(again), states(env)[7:10])


def play(env: MujocoBatchEnv, actions: np.ndarray) -> list[np.ndarray]:
    return [array for action in actions for array in env.step(action)]


def test_threads_do_not_change_a_bit():
    actions = random_actions(30, 5)
    one, two = (play(begin(VEL, GOALS, threads), actions) for threads in (1, 2))
    assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))


def test_a_batch_equals_one_at_a_time():
    actions = random_actions(30, 5)
    together = play(begin(VEL, GOALS), actions)
    for i in range(5):
        alone = play(begin(VEL, GOALS[i : i + 1], seed=i), actions[:, i : i + 1])
        assert all(np.array_equal(a[i], b[0]) for a, b in zip(together, alone, strict=True))


def test_episodes_not_stepped_keep_their_state():
    """And those stepped go on as if all had been."""
    actions = random_actions(10, 5)
    everyone, some = begin(VEL, GOALS), begin(VEL, GOALS)
    before, ids = states(some), np.array([1, 4])
    for action in actions:
        everyone.step(action)
        some.step(action, ids)
    assert np.array_equal(states(some)[[0, 2, 3]], before[[0, 2, 3]])
    assert np.array_equal(states(some)[ids], states(everyone)[ids])


def test_advance_is_the_dynamics_of_step():
    stepped, advanced = begin(VEL, GOALS), begin(VEL, GOALS)
    for action in random_actions(5, 5):
        stepped.step(action)
        advanced.advance(action)
    assert np.array_equal(states(stepped), states(advanced))
    assert advanced.physics_seconds > 0


def test_a_reset_leaves_nothing_behind():
    """Not even the solver's warm start: the second episodes equal those of a new batch."""
    actions, env = random_actions(10, 5), begin(VEL, GOALS)
    first = play(env, actions)
    env.reset(GOALS, [np.random.default_rng(i) for i in range(5)])
    assert all(np.array_equal(*pair) for pair in zip(first, play(env, actions), strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e12])
@pytest.mark.parametrize("where", ["qpos", "qvel"])
@pytest.mark.parametrize("ids", [None, [0, 1, 3, 4]])
def test_a_diverging_simulation_is_named(value, where, ids):
    """By its number in the batch, not among the stepped ones; the others went on as usual."""
    env, healthy = begin(VEL, GOALS), begin(VEL, GOALS)
    env.batch.bind(where)[[1, 4], 3] = value
    action = random_actions(1, 5)[0]
    with pytest.raises(SimulationDiverged, match=r"\[1, 4\]") as caught:
        env.step(action, None if ids is None else np.array(ids))
    assert caught.value.ids.tolist() == [1, 4]
    expected = healthy.step(action)
    assert np.array_equal(states(env)[[0, 3]], states(healthy)[[0, 3]])
    assert caught.value.result is not None
    for ours, theirs in zip(caught.value.result, expected, strict=True):
        assert np.array_equal(ours[[0, 3]], theirs[[0, 3]])
    others = np.array([0, 3])  # MuJoCo has reset those that diverged, and would go on with them
    for ours, theirs in zip(env.step(action, others), healthy.step(action, others), strict=True):
        assert np.array_equal(ours[others], theirs[others])


def test_a_reset_heals_a_diverged_batch():
    env = begin(VEL, GOALS)
    env.batch.bind("qpos")[2, 3] = np.nan
    with pytest.raises(SimulationDiverged):
        env.step(np.zeros((5, 6)))
    env.reset(GOALS, [np.random.default_rng(i) for i in range(5)])
    actions = random_actions(3, 5)
    healthy = play(begin(VEL, GOALS), actions)
    assert all(np.array_equal(*pair) for pair in zip(healthy, play(env, actions), strict=True))


LOAD = """
import numpy as np
from metarl.envs import HalfCheetahVel, SimulationDiverged
env = HalfCheetahVel().make_batch(2, num_threads=2)
env.reset(np.ones((2, 1)), [np.random.default_rng(i) for i in range(2)])
env.step(np.zeros((2, 6)))
"""
DIVERGE_BY_BIND = """
env.batch.bind("qpos")[1, 3] = 1e12
"""
DIVERGE_BY_SET_STATE = """
qpos, qvel = np.split(env.render_state(1), [9])
env.set_state(1, np.full(9, np.nan), qvel)
"""
STEP = """
try:
    env.step(np.zeros((2, 6)))
except SimulationDiverged:
    print("diverged")
"""


@pytest.mark.parametrize(
    ("script", "output"),
    [
        (LOAD, ""),
        (LOAD + DIVERGE_BY_BIND + STEP, "diverged\n"),
        (LOAD + DIVERGE_BY_SET_STATE + STEP, "diverged\n"),
    ],
    ids=["load", "diverge", "set_state"],
)
def test_mujoco_is_silent_and_leaves_no_file(tmp_path, script, output):
    """In a process of its own: nothing on the terminal, no MUJOCO_LOG.TXT in the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
    assert list(tmp_path.iterdir()) == []


def test_quiet_restores_mujocos_settings():
    config = mujoco.MjLogConfig.get()
    before = config.logto_console, config.logto_file
    with pytest.raises(KeyError), quiet():
        raise KeyError
    config = mujoco.MjLogConfig.get()
    assert (config.logto_console, config.logto_file) == before


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_action_scale_is_the_action_of_the_actuators_limit(scale):
    """+-scale gives the limit, 0 the middle, and what lies beyond is clipped."""
    family = HalfCheetahVel(action_scale=scale)
    low, high = family.model.actuator_ctrlrange.T
    env = begin(family, GOALS)
    shares = np.array([-1.0, 0.0, 0.5, 1.0, 3.0])
    env.step(np.repeat(scale * shares[:, None], 6, axis=1))
    expected = np.array([low, (low + high) / 2, (low + 3 * high) / 4, high, high])
    assert np.array_equal(env.batch.bind("ctrl"), expected)
    assert np.array_equal(family.action_space.high, np.full(6, scale, np.float32))


def test_the_control_cost_is_that_of_the_clipped_control():
    """Actions far beyond the scale cost no more than the limit does."""
    family = HalfCheetahVel(action_scale=10.0)
    at_limit, beyond = begin(family, GOALS), begin(family, GOALS)
    _, reward, _ = at_limit.step(np.full((5, 6), 10.0))
    _, same_reward, _ = beyond.step(np.full((5, 6), 1000.0))
    assert np.array_equal(reward, same_reward)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action_scale": 0.0}, "action_scale: expected more than 0, got 0.0"),
        ({"frame_skip": -1}, "frame_skip: expected 0 to 1000, got -1"),
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"goal_low": 2.0}, r"goal_high: expected more than goal_low \(2.0\), got 2.0"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        HalfCheetahVel(**fields)


def test_descriptions():
    state = np.zeros(18)
    state[9] = -0.52
    assert VEL.caption(state, np.array([1.5])) == "speed -0.5, goal +1.5 m/s"
    text = HalfCheetahDir().caption(state, np.array([-1.0]))
    assert text == "speed -0.5 m/s, goal backward"
