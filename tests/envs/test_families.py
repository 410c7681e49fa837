"""What holds for every family: the contract of metarl.envs, and Gymnasium's interface."""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from metarl.envs import (
    FAMILIES,
    ExternalFamily,
    HalfCheetahVel,
    PointNav,
    RenderingUnavailable,
    TabularMDP,
    TaskError,
    TaskFamily,
    WorkerError,
    make_family,
)
from metarl.envs.contract import check_family
from metarl.envs.gymnasium_env import MujocoTaskEnv, task_env
from metarl.envs.mujoco.family import MujocoFamily

GOLDEN_HASHES = {
    "gymnasium": {
        "train": "65ea569bc3ee852b",
        "validation": "8f10eeff9300e05d",
        "test": "d165d61025694ad0",
        "ood": "74a07fe46b8525ec",
    },
    "metaworld": {
        "train": "d23bd9136286ec87",
        "validation": "518e3d7101495616",
        "test": "cc86bad21705b536",
    },
    "point_nav": {
        "train": "631d781e876ce1fc",
        "validation": "6d62614f5134bb0b",
        "test": "5f712a2c140e9812",
        "ood": "0cd6c01ff8053e1f",
    },
    "gridworld": {
        "train": "059a098a7aef7588",
        "validation": "059a098a7aef7588",
        "test": "059a098a7aef7588",
    },
    "bandit": {
        "train": "c5fd756bf611e4bf",
        "validation": "a6ca86a9ea180cfb",
        "test": "a1571053d0e5ed89",
    },
    "tabular_mdp": {
        "train": "a3992b251cf7a856",
        "validation": "c59d728f9eaf6094",
        "test": "4690b2b702a76bbe",
    },
    "half_cheetah_vel": {
        "train": "cbffb549967845b6",
        "validation": "6057f78ee2d166dc",
        "test": "518c7cfba6f32f61",
        "ood": "50b5f47323bb36aa",
    },
    "half_cheetah_dir": {
        "train": "0fbdee5fc2b321aa",
        "validation": "0fbdee5fc2b321aa",
        "test": "0fbdee5fc2b321aa",
    },
    "half_cheetah_body": {
        "train": "b35f20f5ffee4d28",
        "validation": "ef219498245c9f5d",
        "test": "4c06cdd5e80c2f36",
        "ood": "07d9861c9ed2875a",
    },
    "ant_vel": {
        "train": "1218800d3a9227dc",
        "validation": "3a9669af8ccb07d5",
        "test": "f54ceea2861eb224",
        "ood": "44c5ebeaf88f2b08",
    },
    "ant_dir": {
        "train": "41758d7c16feeb82",
        "validation": "41758d7c16feeb82",
        "test": "41758d7c16feeb82",
    },
    "ant_goal": {
        "train": "a7816c9d954a6391",
        "validation": "f24ce898dce930a9",
        "test": "d93b50f10805accc",
        "ood": "e22e3ec7c8e52708",
    },
    "humanoid_dir": {
        "train": "2536d1de2bb43caf",
        "validation": "9dd733cdfb532016",
        "test": "1e3a666198a9671c",
    },
    "walker_vel": {
        "train": "112dc60958acf5da",
        "validation": "d3a714cd3a13174c",
        "test": "832e54035797653d",
        "ood": "ffb9d68a57b4a4dc",
    },
    "walker_params": {
        "train": "a458f55e6b26c0ef",
        "validation": "d5c1085477193537",
        "test": "2f7e5e3e77496523",
        "ood": "f79ac904cbd92304",
    },
    "hopper_params": {
        "train": "f7f800cc87b52fe0",
        "validation": "1b65a7a0206d0864",
        "test": "c31a70b28ad47533",
        "ood": "2733c4c99d9e9818",
    },
}
"""Of the first five tasks of each split. They name the task sets of published results: a change
here makes these results incomparable."""


# Meta-World's hidden goals are observed as zeros, of which Gymnasium warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*maximum and minimum values are equal")


# Each environment of Meta-World takes a while to make.
SLOW = {"metaworld": [pytest.mark.slow]}


@pytest.fixture(params=[pytest.param(name, marks=SLOW.get(name, [])) for name in FAMILIES])
def family(request) -> TaskFamily:
    made = make_family(request.param)
    try:
        made.observation_space  # noqa: B018
    except WorkerError as error:
        pytest.skip(f"its environment is not installed here: {error}")
    return made


@pytest.fixture
def make_env(family):
    """Makes the family's registered Gymnasium environment, unwrapped, and closes it."""
    made = []

    def make(**options) -> gymnasium.Env:
        made.append(gymnasium.make(f"metarl/{type(family).__name__}-v0", **options).unwrapped)
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_a_family_keeps_the_contract(family):
    """Nothing is skipped but what cannot be had here: a family's package, or OpenGL."""
    checks = check_family(family)
    if checks[0].outcome == "skipped":
        pytest.skip(checks[0].reason)
    assert [check for check in checks if check.outcome == "FAIL"] == []
    assert {check.name for check in checks if check.outcome == "skipped"} <= {"pictures"}
    assert all(check.reason for check in checks)


# --- as a Gymnasium environment ---


@pytest.mark.parametrize("given", [True, False], ids=["a given task", "a task per episode"])
def test_gymnasiums_checker_has_no_complaints(family, make_env, given):
    options = {"task": family.tasks("test", 1)[0]} if given else {}
    env = make_env(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if isinstance(family, ExternalFamily):  # whose bounds are not ours to choose
            warnings.filterwarnings("ignore", ".*A Box observation space m")
        check_env(env, skip_render_check=True)


def test_gymnasiums_checker_has_no_complaints_about_rendering(family, make_env):
    env = make_env(render_mode="rgb_array", width=64, height=48)
    try:
        env.reset(seed=0)
        picture = env.render()
    except RenderingUnavailable as error:
        pytest.skip(f"this machine cannot render: {error}")
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if isinstance(family, ExternalFamily):
            warnings.filterwarnings("ignore", ".*A Box observation space m")
        check_env(env)


def test_without_a_render_mode_there_is_no_picture(make_env):
    env = make_env()
    env.reset(seed=0)
    assert env.render() is None


def test_one_environment_equals_a_batch_of_one(family, make_env):
    """The same numbers for the same stream, task and actions."""
    task = family.tasks("test", 1)
    env = make_env(task=task[0], **dataclasses.asdict(family))
    batch_env = family.make_batch(1)
    obs, _ = env.reset(seed=3)
    rng, _ = gymnasium.utils.seeding.np_random(3)
    assert np.array_equal(obs, batch_env.reset(task, [rng])[0])
    env.action_space.seed(0)
    for step in range(min(10, family.horizon)):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, info = env.step(action)
        row = np.reshape(action, (1, family.action_dim))
        batch_obs, batch_reward, batch_terminated = batch_env.step(row)
        assert np.array_equal(obs, batch_obs[0])
        assert (reward, terminated) == (batch_reward[0], batch_terminated[0])
        assert truncated == (step == family.horizon - 1)
        assert np.array_equal(info["task"], task[0])


def test_a_given_task_is_used_in_every_episode(family, make_env):
    tasks = family.tasks("test", 2)
    env = make_env(task=tasks[0].tolist())
    for seed in (0, 1, None):
        _, info = env.reset(seed=seed)
        assert np.array_equal(info["task"], tasks[0])
    _, info = env.reset(options={"task": tasks[1]})  # for this episode only
    assert np.array_equal(info["task"], tasks[1])
    _, info = env.reset()
    assert np.array_equal(info["task"], tasks[0])


def test_without_a_task_every_episode_draws_one(family, make_env):
    env = make_env()
    drawn = [tuple(env.reset(seed=seed)[1]["task"]) for seed in (*range(20), *range(20))]
    assert drawn[:20] == drawn[20:], "the seed decides"
    assert len(set(drawn)) > 1
    assert all(np.array_equal(family.check_task(task), task) for task in drawn)


@pytest.mark.parametrize("how", ["make", "options"])
def test_a_wrong_task_is_refused(family, make_env, how):
    """Of a wrong size, outside the task space, or not a number; the message names the family."""
    high = family.ood_space.high.astype(float)
    env = make_env()
    for task in ([*high, 0.0], [], high + 1, np.full_like(high, np.nan)):
        with pytest.raises(TaskError, match=family.name):
            make_env(task=task) if how == "make" else env.reset(options={"task": task})


def test_the_time_limit_is_the_horizon(family):
    """Of the registered environment: truncated, not terminated."""
    short = min(family.horizon, 5)  # before any episode ends by itself
    task = family.tasks("test", 1)[0]
    env = gymnasium.make(f"metarl/{type(family).__name__}-v0", task=task, horizon=short)
    env.reset(seed=0)
    still = np.zeros_like(env.action_space.sample())
    ends = [env.step(still)[2:4] for _ in range(short)]
    env.close()
    assert ends == [*[(False, False)] * (short - 1), (False, True)]


def test_state_vector_and_set_state_of_mujoco_environments(family, make_env):
    """state_vector is qpos and qvel, as in Gymnasium's MuJoCo environments; the seed decides it."""
    if not isinstance(family, MujocoFamily):
        pytest.skip("no physics engine, no state vector")
    env = make_env()
    assert isinstance(env, MujocoTaskEnv)
    env.reset(seed=0)
    first = env.state_vector()
    assert first.shape == (family.model.nq + family.model.nv,)
    env.step(np.zeros(env.action_space.shape, np.float32))
    assert not np.array_equal(env.state_vector(), first)
    env.set_state(first[: family.model.nq], first[family.model.nq :])
    assert np.array_equal(env.state_vector(), first)
    assert np.array_equal(env._states[-1], first)  # which is drawn
    assert len(env._states) == 2
    env.reset(seed=0)
    assert np.array_equal(env.state_vector(), first)
    assert env.metadata["render_fps"] == round(1 / env.dt)


# --- tasks ---


def test_an_unknown_task_set_is_refused(family):
    with pytest.raises(ValueError, match="unknown split 'tests': expected one of train, valid"):
        family.tasks("tests", 3)


def test_task_sets_and_hashes_stay_what_they_are(family):
    hashes = {split: family.task_hash(family.tasks(split, 5)) for split in family.splits}
    assert hashes == GOLDEN_HASHES.get(family.name), "a new family needs golden hashes here"


def test_the_hash_tells_tasks_and_settings_apart(family):
    tasks = family.tasks("test", 5)
    # The sets of a finite distribution are all the same.
    others = family.tasks("train", 5) if family.all_tasks is None else -tasks
    other_settings = dataclasses.replace(family, horizon=family.horizon - 1)
    hashes = {
        family.task_hash(tasks),
        family.task_hash(tasks[:4]),
        family.task_hash(tasks + 1e-12),
        family.task_hash(others),
        other_settings.task_hash(tasks),
    }
    assert len(hashes) == 5
    assert dataclasses.replace(family).task_hash(tasks.copy()) in hashes


def test_every_field_of_a_family_is_documented_and_has_a_default(family):
    type(family)()
    assert type(family).__doc__
    assert family.source


def test_a_family_that_draws_its_tasks_otherwise_has_no_coordinates_until_it_says_so():
    """Those of its base class would give the tasks of the base class."""

    class Inner(PointNav):
        def sample_tasks(self, rng, num_tasks):
            return 0.5 * super().sample_tasks(rng, num_tasks)

    class Known(Inner):
        num_coordinates = 2

        def tasks_at(self, coordinates):
            return 0.5 * PointNav.tasks_at(self, coordinates)

    class Even(Inner):
        uniform_tasks = True
        num_coordinates = TaskFamily.num_coordinates

    assert [cls().num_coordinates for cls in (PointNav, Inner, Known, Even)] == [2, 0, 2, 2]
    assert [cls().num_coordinates for cls in (HalfCheetahVel, TabularMDP)] == [1, 0]


def test_numbers_of_any_type_make_one_family():
    """A whole number for another one, and NumPy's: the hash is of their text."""
    own = HalfCheetahVel(horizon=100, goal_high=3.0, observe_torso=True)
    for other in (
        HalfCheetahVel(horizon=100, goal_high=3, observe_torso=True),
        HalfCheetahVel(horizon=np.int64(100), goal_high=np.float32(3), observe_torso=np.bool_(1)),
    ):
        assert repr(other) == repr(own)
        assert other.task_hash(other.tasks("test", 3)) == own.task_hash(own.tasks("test", 3))


def test_an_action_of_another_size_is_refused():
    """Numbers fewer than the motors would be repeated for all of them."""
    env = task_env(HalfCheetahVel())
    env.reset(seed=0)
    for wrong in ([0.5], np.zeros(5), np.zeros((6, 1)), 0.5):
        with pytest.raises(ValueError, match=r"^action: expected one of Box"):
            env.step(wrong)
    env.step(np.zeros(6))


def test_no_task_among_the_options_leaves_the_fixed_one():
    env = task_env(HalfCheetahVel(), [1.0])
    _, info = env.reset(seed=0, options={"task": None})
    assert info["task"].tolist() == [1.0]


@pytest.mark.parametrize("mode", ["human", "nope"])
def test_a_render_mode_that_there_is_not_is_refused(mode):
    with pytest.raises(ValueError, match=f"^render_mode: expected rgb_array or None, got '{mode}'"):
        task_env(PointNav(), render_mode=mode)
