"""Ant, Humanoid, Walker2d and Hopper against Gymnasium's v5 environments and MuJoCo itself."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs import (
    AntDir,
    AntGoal,
    AntVel,
    HalfCheetahBody,
    HalfCheetahDir,
    HalfCheetahVel,
    HopperParams,
    HumanoidDir,
    TaskFamily,
    TaskObserved,
    WalkerParams,
    WalkerVel,
)
from metarl.envs.mujoco.family import MujocoBatchEnv, MujocoFamily
from metarl.envs.mujoco.models import GYMNASIUM_ASSETS, quiet

ROBOTS = {
    "Ant-v5": AntVel(action_scale=1.0),
    "Humanoid-v5": HumanoidDir(action_scale=0.4),  # its actuators end at 0.4
    "Walker2d-v5": WalkerVel(action_scale=1.0),
    "Hopper-v5": HopperParams(action_scale=1.0),
}


def begin(family: TaskFamily, tasks, seed: int = 0):
    tasks = np.atleast_2d(np.asarray(tasks, float))
    env = family.make_batch(len(tasks))
    env.reset(tasks, [np.random.default_rng(seed + i) for i in range(len(tasks))])
    return env


def usual(family: TaskFamily) -> np.ndarray:
    """A task that changes nothing of the model."""
    return np.zeros(family.task_space.shape)


def random_actions(family: MujocoFamily, num_steps: int, num_episodes: int = 1) -> np.ndarray:
    high = float(family.action_space.high[0])
    rng = np.random.default_rng(0)
    return rng.uniform(-high, high, (num_steps, num_episodes, family.action_dim)).astype(np.float32)


@pytest.fixture
def make_reference(tmp_path, monkeypatch):
    """Makes one of Gymnasium's environments, in the state of an episode of ours, and closes it."""
    monkeypatch.chdir(tmp_path)  # MuJoCo may leave a log file
    made = []

    def make(name: str, env: MujocoBatchEnv) -> gymnasium.Env:
        with quiet():
            reference = gymnasium.make(name).unwrapped
        reference.reset(seed=0)
        mujoco.mj_resetData(reference.model, reference.data)
        reference.set_state(*np.split(env.render_state(0), [reference.model.nq]))
        made.append(reference)
        return reference

    yield make
    for reference in made:
        reference.close()


@pytest.mark.parametrize("name", ROBOTS)
def test_physics_are_gymnasiums_to_the_bit(make_reference, name):
    """Positions and velocities of 60 random steps, though ours look at the forces in between."""
    family = ROBOTS[name]
    env = begin(family, usual(family))
    reference = make_reference(name, env)
    for action in random_actions(family, 60):
        env.step(action)
        reference.step(action[0])
        assert np.array_equal(env.batch.bind("qpos")[0], reference.data.qpos)
        assert np.array_equal(env.batch.bind("qvel")[0], reference.data.qvel)


@pytest.mark.parametrize("name", ["Walker2d-v5", "Hopper-v5"])
def test_walker_and_hopper_are_gymnasiums_whole(make_reference, name):
    """Observation, reward and the end of the episode, which random actions bring about."""
    family = WalkerParams(action_scale=1.0) if name == "Walker2d-v5" else ROBOTS[name]
    env = begin(family, usual(family))
    reference = make_reference(name, env)
    for action in random_actions(family, 200):
        obs, reward, terminated = env.step(action)
        # Its cost is computed in the action's precision.
        expected_obs, expected_reward, expected_end, *_ = reference.step(action[0].astype(float))
        assert np.array_equal(obs[0], expected_obs)
        assert reward[0] == pytest.approx(expected_reward, rel=1e-12)
        assert terminated[0] == expected_end
        if expected_end:
            return
    raise AssertionError("the robot has not fallen")


# --- contact forces ---


def at_the_state_of(env: MujocoBatchEnv, data: mujoco.MjData, episode: int = 0) -> mujoco.MjData:
    """All that MuJoCo derives from the state, the control and the warm start of an episode."""
    model = mujoco.MjModel.from_xml_path(str(GYMNASIUM_ASSETS / env.family.model_file))
    made = mujoco.MjData(model)
    for field in ("qpos", "qvel", "ctrl"):
        getattr(made, field)[:] = env.batch.bind(field)[episode]
    made.qacc_warmstart[:] = data.qacc_warmstart
    mujoco.mj_forward(model, made)
    mujoco.mj_rnePostConstraint(model, made)
    return made


def test_ants_contact_forces_are_mujocos_at_the_new_state(make_reference):
    """To the bit. Those of Ant-v5 are of the last stage of the Runge-Kutta step: near by."""
    env = begin(ROBOTS["Ant-v5"], [1.0])
    reference = make_reference("Ant-v5", env)
    touched, differences = 0, []
    for action in random_actions(env.family, 60):
        obs, _, _ = env.step(action)
        expected_obs, *_ = reference.step(action[0])
        exact = at_the_state_of(env, reference.data).cfrc_ext
        assert np.array_equal(env.batch.bind("cfrc_ext")[0], exact)
        assert np.array_equal(obs[0, :27], expected_obs[:27])
        assert np.array_equal(obs[0, 27:], np.clip(exact[1:], -1, 1).ravel())
        touched += bool(exact.any())
        differences.append(np.abs(obs[0] - expected_obs).mean())
    assert touched > 10
    assert 0 < np.mean(differences) < 0.02


def test_humanoids_observation_is_gymnasiums_at_the_new_state(make_reference):
    """Inertias, velocities and forces, each to the bit what MuJoCo says of the new state."""
    family = ROBOTS["Humanoid-v5"]
    env = family.make_batch(1)
    obs = env.reset(np.zeros((1, 1)), [np.random.default_rng(0)])
    reference = make_reference("Humanoid-v5", env)
    reference.data.qacc_warmstart[:] = 0  # of the first observation
    for action in random_actions(family, 40):
        exact = at_the_state_of(env, reference.data)
        parts = [exact.qpos[2:], exact.qvel, exact.cinert[1:], exact.cvel[1:]]
        parts += [exact.qfrc_actuator[6:], exact.cfrc_ext[1:]]
        assert np.array_equal(obs[0], np.concatenate([part.ravel() for part in parts]))
        obs, _, _ = env.step(action)
        reference.step(action[0])
    shape = reference.observation_space.shape
    assert family.observation_space.shape == obs[0].shape == shape


def test_without_contact_forces_the_ant_does_not_look_at_them():
    with_forces, without = AntVel(), AntVel(contact_forces=False)
    one, other = begin(with_forces, [1.0]), begin(without, [1.0])
    assert (with_forces.obs_dim, without.obs_dim) == (105, 27)
    for action in random_actions(with_forces, 20):
        obs, reward, _ = one.step(action)
        bare_obs, bare_reward, _ = other.step(action)
        assert np.array_equal(obs[:, :27], bare_obs)
    cost = 0.0005 * np.square(obs[0, 27:]).sum()
    assert reward[0] == pytest.approx(bare_reward[0] - cost, abs=1e-12)


# --- rewards and ends ---


def ant_costs(env: MujocoBatchEnv, control_cost: float) -> float:
    forces = np.clip(env.batch.bind("cfrc_ext")[0, 1:], -1, 1)
    control = env.batch.bind("ctrl")[0]
    return control_cost * np.square(control).sum() + 0.0005 * np.square(forces).sum()


def com(env: MujocoBatchEnv) -> np.ndarray:
    """The centre of mass, by hand: PEARL's definition."""
    data = mujoco.MjData(env.family.model)
    data.qpos[:] = env.batch.bind("qpos")[0]
    mujoco.mj_kinematics(env.family.model, data)
    mass = env.family.model.body_mass
    return mass @ data.xipos / mass.sum()


@pytest.mark.parametrize(
    ("family", "task", "expected"),
    [
        (AntVel(), [1.5], lambda v, xy, env: 1 - abs(v[0] - 1.5) + 0.05 - ant_costs(env, 0.005)),
        (AntDir(), [-1.0], lambda v, xy, env: -v[0] + 0.05 - ant_costs(env, 0.005)),
        (
            AntDir(plane=True, control_cost=0.5, alive_bonus=1.0, lowest=0.0),
            [2.0],
            lambda v, xy, env: v @ [math.cos(2), math.sin(2)] + 1 - ant_costs(env, 0.5),
        ),
        (
            AntGoal(),
            [2.0, -1.0],
            lambda v, xy, env: -abs(xy[0] - 2) - abs(xy[1] + 1) - ant_costs(env, 0.1),
        ),
        (
            AntGoal(region="square", control_cost=0.005, alive_bonus=4.05, ends_early=True),
            [2.0, -1.0],
            lambda v, xy, env: 4.05 - abs(xy[0] - 2) - abs(xy[1] + 1) - ant_costs(env, 0.005),
        ),
        (
            WalkerVel(),
            [3.0],
            lambda v, xy, env: (
                15 - abs(v[0] - 3) - 0.001 * np.square(env.batch.bind("ctrl")[0]).sum()
            ),
        ),
    ],
    ids=["ant_vel", "ant_dir", "ant_dir plane", "ant_goal", "ant_goal square", "walker_vel"],
)
def test_rewards_are_the_published_formulas(family, task, expected):
    env = begin(family, [task])
    for action in random_actions(family, 20):
        before = env.batch.bind("qpos")[0, :2].copy()
        _, reward, _ = env.step(action)
        after = env.batch.bind("qpos")[0, :2].copy()
        want = expected((after - before) / family.dt, after, env)
        assert reward[0] == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_humanoids_reward_is_pearls():
    family = HumanoidDir()
    env = begin(family, [0.7])
    for action in random_actions(family, 20):
        before = com(env)
        _, reward, _ = env.step(action)
        along = (com(env) - before)[:2] @ [math.cos(0.7), math.sin(0.7)]
        control, forces = env.batch.bind("ctrl")[0], env.batch.bind("cfrc_ext")[0]
        # 0.25 per time step of the physics, of which there are 5 in a control step
        want = 0.25 * along / family.model.opt.timestep - 0.1 * np.square(control).sum()
        want += 5 - min(5e-7 * np.square(forces).sum(), 10)
        assert reward[0] == pytest.approx(want, rel=1e-9)


def test_humanoids_contact_cost_has_a_limit():
    family = HumanoidDir()
    env = begin(family, [0.0])
    qpos, qvel = np.split(env.render_state(0), [family.model.nq])
    qpos[2], qvel[2] = 0.5, -30.0  # hard into the floor
    env.set_state(0, qpos, qvel)
    env.batch.forward(stage=family.stage)
    assert 5e-7 * np.square(env.batch.bind("cfrc_ext")[0]).sum() > 10
    control = np.zeros((1, family.action_dim))
    reward = family.reward(env.batch, np.zeros((1, 1)), np.zeros((1, 2)), control)
    assert reward[0] == pytest.approx(5 - 10)


@pytest.mark.parametrize(
    ("family", "place", "ends"),
    [
        (AntVel(), 2, {0.19: True, 0.21: False, 0.99: False, 1.01: True}),
        (AntDir(lowest=0.0), 2, {0.15: False, 1.01: True}),
        (AntGoal(), 2, {0.19: False, 1.2: False}),
        (AntGoal(region="square", ends_early=True), 2, {0.19: True, 0.5: False}),
        (HumanoidDir(), 2, {0.99: True, 1.01: False, 1.99: False, 2.01: True}),
        (WalkerVel(), 1, {0.79: True, 0.81: False, 1.99: False, 2.01: True}),
        (WalkerVel(), 2, {-1.01: True, -0.99: False, 1.01: True}),
        (HopperParams(), 1, {0.69: True, 0.71: False}),
        (HopperParams(), 2, {0.21: True, -0.19: False}),
        (HopperParams(), 3, {99.0: False, -101.0: True}),
    ],
)
def test_an_episode_ends_where_the_robot_falls(family, place, ends):
    """Whatever the task, where a coordinate of qpos leaves its range."""
    env = begin(family, usual(family))
    qpos = env.render_state(0)[: family.model.nq]
    for value, terminated in ends.items():
        env.batch.bind("qpos")[0] = qpos
        env.batch.bind("qpos")[0, place] = value
        assert family.terminated(env.batch, env.tasks).tolist() == [terminated]


def test_a_robot_is_not_alive_once_it_has_fallen():
    """Gymnasium's bonus of 1 is not paid in the step in which Walker2d and Hopper fall."""
    env = begin(HopperParams(), usual(HopperParams()))
    env.batch.bind("qpos")[0, 1] = 0.5
    control, velocity = np.zeros((1, 3)), np.array([2.0])
    assert env.family.reward(env.batch, env.tasks, velocity, control).tolist() == [2.0]


# --- dynamics as tasks ---


def step_alone(model: mujoco.MjModel, env: MujocoBatchEnv, start: np.ndarray, actions) -> list:
    """The states that MuJoCo alone comes to on a model, from a start, under policy actions."""
    data, states = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = np.split(start, [model.nq])
    mujoco.mj_forward(model, data)
    for action in actions:
        data.ctrl[:] = env.family.control(action)
        mujoco.mj_step(model, data, env.family.physics_steps)
        states.append(np.concatenate([data.qpos, data.qvel]))
    return states


def edited(family: MujocoFamily, task: np.ndarray) -> mujoco.MjModel:
    """A model compiled from the file, its parameters changed element by element."""
    model = mujoco.MjModel.from_xml_path(str(GYMNASIUM_ASSETS / family.model_file))
    exponents = iter(task)
    for body in range(1, model.nbody):
        model.body_mass[body] *= 1.5 ** next(exponents)
    for body in range(1, model.nbody):
        for axis in range(3):
            model.body_inertia[body, axis] *= 1.5 ** next(exponents)
    for geom in range(model.ngeom):
        for kind in range(3):
            model.geom_friction[geom, kind] *= 1.5 ** next(exponents)
    for dof in range(model.nv):
        model.dof_damping[dof] *= 1.3 ** next(exponents)
    assert not list(exponents)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def rebuilt(family: MujocoFamily, task: np.ndarray) -> mujoco.MjModel:
    """The HalfCheetah compiled from an edited file: another head; then mass and damping."""
    mass, damping, length = task.tolist()
    tree = ElementTree.parse(GYMNASIUM_ASSETS / family.model_file)
    (head,) = (geom for geom in tree.iter("geom") if geom.get("name") == "head")
    axis = np.zeros(3)  # as MuJoCo rounds it
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, 1.0]), family.model.geom("head").quat)
    angle = float(head.get("axisangle").split()[3])
    np.testing.assert_allclose(axis, [math.sin(angle), 0, math.cos(angle)], atol=1e-12)
    place = np.array([float(x) for x in head.get("pos").split()])
    radius, half = map(float, head.get("size").split())
    place += (length - 1) * half * axis
    head.set("pos", " ".join(map(repr, place.tolist())))
    head.set("size", f"{radius!r} {half * length!r}")
    with quiet():
        model = mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), "unicode"))
    model.body_mass *= mass
    model.body_inertia *= mass
    model.dof_damping *= damping
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@pytest.mark.parametrize(
    ("family", "build"),
    [(WalkerParams(), edited), (HopperParams(), edited), (HalfCheetahBody(), rebuilt)],
    ids=["walker_params", "hopper_params", "half_cheetah_body"],
)
def test_a_dynamics_task_is_a_model_of_its_own(family, build):
    """Step for step what MuJoCo does on a separately compiled and edited model."""
    tasks = np.concatenate([family.tasks("test", 2), family.tasks("ood", 1)])
    env = begin(family, tasks)
    starts = [env.render_state(i) for i in range(3)]
    actions = random_actions(family, 40, 3)
    found = []
    for action in actions:
        env.step(action)
        found.append([env.render_state(i) for i in range(3)])
    for i, task in enumerate(tasks):
        expected = step_alone(build(family, task), env, starts[i], actions[:, i])
        assert np.array_equal([states[i] for states in found], expected)


def test_another_task_leaves_nothing_of_the_last(tmp_path):
    """A batch that is reset to other dynamics equals a new one."""
    for family in (HopperParams(), HalfCheetahBody()):
        tasks = family.tasks("train", 2)
        env = begin(family, tasks[:1])
        env.step(random_actions(family, 1)[0])
        env.reset(tasks[1:], [np.random.default_rng(0)])
        fresh = begin(family, tasks[1:])
        for action in random_actions(family, 10):
            assert all(map(np.array_equal, env.step(action), fresh.step(action)))


def test_a_usual_task_is_the_robot_as_it_is():
    for family, task in ((HopperParams(), usual(HopperParams())), (HalfCheetahBody(), np.ones(3))):
        made, own = family.task_model(task), family.model
        for name in ("body_mass", "body_inertia", "geom_friction", "dof_damping", "geom_size"):
            np.testing.assert_allclose(getattr(made, name), getattr(own, name), rtol=1e-14)


def test_the_head_grows_from_the_neck():
    family = HalfCheetahBody()
    ends = []
    for length in (1.0, 2.0):
        model = family.task_model(np.array([1.0, 1.0, length]))
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        head = data.geom("head")
        reach = head.xmat.reshape(3, 3)[:, 2] * model.geom("head").size[1]
        ends.append((head.xpos - reach, head.xpos + reach))
    (neck, tip), (long_neck, long_tip) = ends
    np.testing.assert_allclose(long_neck, neck, atol=1e-12)
    np.testing.assert_allclose(long_tip - long_neck, 2 * (tip - neck), atol=1e-12)


def test_the_mass_of_a_body_is_its_factor_times_the_usual():
    model = HalfCheetahBody().task_model(np.array([0.5, 1.0, 2.0]))
    assert model.body_mass.sum() == pytest.approx(0.5 * HalfCheetahBody().model.body_mass.sum())


# --- task distributions and variants ---


def test_ant_goals_fill_the_disk_evenly():
    goals = AntGoal().sample_tasks(np.random.default_rng(0), 4000)
    radius = np.linalg.norm(goals, axis=1)
    assert radius.max() <= 3
    np.testing.assert_allclose(np.mean(radius < 1.5), 1 / 4, atol=0.02)
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.1)


def test_ant_goals_fill_the_square():
    family = AntGoal(region="square")
    goals = family.sample_tasks(np.random.default_rng(0), 4000)
    assert np.abs(goals).max() <= 3
    assert (np.linalg.norm(goals, axis=1) > 3).mean() == pytest.approx(1 - math.pi / 4, abs=0.02)
    assert np.abs(family.tasks("ood", 20)).max(axis=1).min() > 3


def test_headings_go_all_around():
    headings = AntDir(plane=True).sample_tasks(np.random.default_rng(0), 4000)
    np.testing.assert_allclose([headings.min(), headings.max()], [-math.pi, math.pi], atol=0.01)
    assert set(AntDir().sample_tasks(np.random.default_rng(0), 50).ravel()) == {-1.0, 1.0}
    assert AntDir(plane=True).all_tasks is None


@pytest.mark.parametrize("family", [HalfCheetahDir(), AntDir(), TaskObserved(AntDir())])
def test_task_sets_of_directions_have_both_equally_often(family):
    for split in ("train", "validation", "test"):
        assert family.tasks(split, 5).tolist() == [[1.0], [-1.0], [1.0], [-1.0], [1.0]]
    assert family.num_all_tasks == 2


def test_bodies_are_log_uniform():
    factors = HalfCheetahBody().sample_tasks(np.random.default_rng(0), 4000)
    assert (factors.min(), factors.max()) == (pytest.approx(0.5, 0.01), pytest.approx(2.0, 0.01))
    np.testing.assert_allclose(np.log2(factors).mean(0), 0, atol=0.05)


def test_the_cheetahs_torso_can_be_observed(make_reference):
    """MAML's 20 numbers: the last three are the centre of mass, of the state they stand beside."""
    family = HalfCheetahVel(observe_torso=True)
    env, bare = begin(family, [1.0]), begin(HalfCheetahVel(), [1.0])
    for action in random_actions(family, 10):
        obs, reward, _ = env.step(action)
        bare_obs, bare_reward, _ = bare.step(action)
        assert np.array_equal(obs[:, :17], bare_obs)
        assert reward == bare_reward
        np.testing.assert_allclose(obs[0, 17:], com(env), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AntVel(lowest=1.0), r"highest: expected more than lowest \(1.0\), got 1.0"),
        (lambda: AntGoal(goal_range=0.0), "goal_range: expected more than 0, got 0.0"),
        (lambda: HopperParams(log_scale_limit=-1.0), "log_scale_limit: expected more than 0"),
    ],
)
def test_a_wrong_field_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_descriptions():
    def state(family, **values):
        """Positions and velocities that are zero but for some."""
        made = np.zeros(family.model.nq + family.model.nv)
        for name, value in values.items():
            made[int(name[1:]) + (name[0] == "v") * family.model.nq] = value
        return made

    ant = state(AntDir(), q0=1.0, v0=0.5, v1=1.0)
    assert AntVel().caption(ant, np.array([2.0])) == "speed +0.5, goal +2.0 m/s"
    assert AntDir().caption(ant, np.array([-1.0])) == "speed +0.5 m/s, goal backward"
    plane = dataclasses.replace(AntDir(), plane=True)
    assert plane.caption(ant, np.array([math.pi / 2])) == "speed +1.0 m/s along +90 degrees"
    assert AntGoal().caption(ant, np.array([1.0, 2.0])) == "goal 2.0 m away at +90 degrees"
    body = HalfCheetahBody().caption(np.zeros(18), np.array([0.5, 1.0, 2.0]))
    assert body == "mass x0.5, damping x1.0, head x2.0"
    hopper = HopperParams()
    light = np.where(np.arange(hopper.task_dim) < 4, -1.0, 0.0)
    assert hopper.caption(state(hopper, v0=2.0), light) == "speed +2.0 m/s, total mass x0.7"
