"""metarl.envs.external: tasks on environments that run in worker processes."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from metarl.envs import (
    GymnasiumFamily,
    RenderingUnavailable,
    SimulationDiverged,
    TaskObserved,
    WorkerError,
    make_family,
)
from metarl.envs.contract import run_check
from metarl.envs.external import rendering
from metarl.envs.external.worker import program
from metarl.evaluation.evaluate import evaluate
from metarl.reporting.evaluation import evaluation_table
from metarl.rollout.collect import collect
from metarl.runs.result import Evaluation

CARTPOLE = {"length": (0.25, 1.0), "gravity": (5.0, 15.0)}


def streams(num: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(num)]


# --- the same numbers as the plain environment ---


@pytest.mark.parametrize("route", ["keyword", "attribute", "options"])
def test_a_task_reaches_the_environment_by_each_route(walk, route):
    """The second number that Walk observes is its task."""
    family = walk(route=route)
    env, tasks = family.make_batch(3), family.tasks("test", 3)
    for given in (tasks, tasks[::-1]):  # also those that had another task before
        obs = env.reset(given, streams(3))
        assert np.array_equal(obs[:, 1], given[:, 0].astype(np.float32))


def test_episodes_are_those_of_the_plain_environment():
    """CartPole-v1 itself, stepped here: seeded from the episode's stream, its attribute set."""
    family = GymnasiumFamily(env_id="CartPole-v1", parameters={"gravity": (5.0, 15.0)}, horizon=30)
    tasks, actions = family.tasks("test", 2), np.random.default_rng(1).integers(2, size=(30, 2, 1))
    batch_env = family.make_batch(2, 2)
    all_obs = [batch_env.reset(tasks, streams(2))]
    outcomes = []
    for action in actions:
        obs, *outcome = batch_env.step(action.astype(float))
        all_obs.append(obs)
        outcomes.append(outcome)
    for episode, rng in enumerate(streams(2)):
        env = gymnasium.make("CartPole-v1")
        env.unwrapped.gravity = tasks[episode, 0]
        obs, _ = env.reset(seed=int(rng.integers(2**31 - 1)))
        assert np.array_equal(all_obs[0][episode], obs)
        for step, action in enumerate(actions):
            obs, reward, terminated, _, _ = env.step(int(action[episode, 0]))
            assert np.array_equal(all_obs[step + 1][episode], obs)
            assert [x[episode] for x in outcomes[step]] == [reward, terminated]
            if terminated:
                break
        env.close()


@pytest.mark.parametrize("name", ["Walk-v0", "tests/Walk-v0"])
def test_an_id_may_be_registered_by_the_import_of_a_package(walk, tmp_path, monkeypatch, name):
    """As `gymnasium.make("package:Id-v0")` takes it: package or file is imported first."""
    register = f"gymnasium.register({name!r}, entry_point='walk_package.walk:Walk')"
    package = tmp_path / "walk_package"
    package.mkdir()
    file = walk(preamble=register).env_id.partition(":")[0]
    Path(file).rename(package / "walk.py")
    (package / "__init__.py").write_text(f"import gymnasium\n{register}\n")
    monkeypatch.syspath_prepend(tmp_path)
    tasks = np.array([[0.25]])
    for module in ("walk_package", package / "walk.py"):
        family = GymnasiumFamily(env_id=f"{module}:{name}", parameters={"pull": (0.0, 1.0)})
        obs = family.make_batch(1).reset(tasks, streams(1))
        assert obs[0, 1] == 0.25
    wrong = GymnasiumFamily(env_id=f"walk_package:{name[:-1]}7")
    with pytest.raises(WorkerError, match=f"after the import of walk_package; nearest: {name}"):
        wrong.observation_space  # noqa: B018


def test_the_parameters_of_our_cartpole_follow_one_another():
    family = GymnasiumFamily(parameters={"length": (0.25, 1.0), "wiring": (-1.0, 1.0)})
    env = family.make_batch(3)
    tasks = np.array([[0.5, 1.0], [0.5, -1.0], [1.0, 1.0]])
    env.reset(tasks, [np.random.default_rng(0) for _ in range(3)])
    obs, _, _ = env.step(np.array([[1.0], [0.0], [1.0]]))
    assert np.array_equal(obs[0], obs[1]), "swapped actions through swapped wires"
    obs, _, _ = env.step(np.array([[1.0], [0.0], [1.0]]))
    assert not np.array_equal(obs[0], obs[2]), "another length"


def test_discrete_actions_are_indices_from_the_spaces_start(walk):
    family = walk()
    assert family.action_space == Discrete(3)
    env = family.make_batch(3)
    before = env.reset(np.zeros((3, 1)), [np.random.default_rng(0) for _ in range(3)])
    obs, _, _ = env.step(np.array([[0.0], [1.0], [2.0]]))  # Walk's -1, 0 and 1
    assert np.diff(obs[:, 0] - before[:, 0]) == pytest.approx([1.0, 1.0])


def test_box_actions_are_scaled_and_clipped(walk):
    """Push acts within [-1, 1], [0, 10], and without bounds."""
    family = walk(cls="Push", action_scale=2.0)
    assert family.action_space == Box(
        np.array([-2, -2, -np.inf], np.float32), np.array([2, 2, np.inf], np.float32)
    )
    policy = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 7.0], [-9.0, 9.0, -9.0]])
    expected = [[0.0, 5.0, 0.0], [0.5, 0.0, 7.0], [-1.0, 10.0, -9.0]]
    assert np.array_equal(family.control(policy), expected)
    env = family.make_batch(3)
    before = env.reset(np.zeros((3, 1)), [np.random.default_rng(0) for _ in range(3)])
    obs, _, _ = env.step(policy)
    moved = obs[:, 0] - before[:, 0]
    assert moved - moved[0] == pytest.approx(np.sum(expected, axis=1) - 5.0, abs=1e-5)


def test_saturated_actions_are_in_the_box_whatever_is_rounded(walk, monkeypatch):
    """The middle of -1 and 0.3, plus half the width, is more than 0.3, and so in many Boxes."""
    family = walk(cls="Push")
    found = family.description
    for low, high in itertools.combinations(np.arange(-20, 21) / 10, 2):
        bounded = replace(found, action_low=np.full(3, low), action_high=np.full(3, high))
        monkeypatch.setattr(type(family), "description", bounded)
        action = family.control(np.array([[-9.0, 9.0, 1.0]]))
        assert (low <= action).all()
        assert (action <= high).all()


def test_an_environment_that_refuses_actions_outside_its_box_refuses_nan_too(walk):
    family = walk("assert self.action_space.contains(action)", cls="Push")
    check = run_check("divergence", family)
    assert (check.outcome, check.reason.endswith("it refuses an action of NaN")) == ("pass", True)


def test_a_package_that_is_missing_is_one_line(walk):
    with pytest.raises(WorkerError, match=r"^[^\n]*ModuleNotFoundError: No module named 'box3d'$"):
        walk(preamble="import box3d").observation_space  # noqa: B018


def test_success_may_have_the_name_that_our_own_environments_give(walk):
    source = """class Renamed(Walk):
    def step(self, action):
        *outcome, info = super().step(action)
        return *outcome, dict(is_success=info["success"])"""
    family = walk()
    env = replace(family, env_id=with_class(family, source)).make_batch(1)
    env.reset(np.zeros((1, 1)), streams(1))
    env.step(np.zeros((1, 1)))
    assert env.success is not None


def test_action_spaces_that_depend_on_the_task_are_refused(walk):
    text = "self.action_space = Box(-1 - self.pull, 1 + self.pull, (1,))"
    env = walk(text, cls="Push").make_batch(2)
    env.reset(np.array([[0.0], [0.0]]), streams(2))
    env.step(np.zeros((2, 3)))
    with pytest.raises(WorkerError, match="expected the same action space for all tasks"):
        env.reset(np.array([[0.5], [0.5]]), streams(2))


def test_a_frame_rate_may_be_a_number_of_numpy(walk):
    rate = "gymnasium.Env.metadata = dict(render_modes=[], render_fps=np.int64(20))"
    assert walk(preamble=rate).frames_per_second == 20


def test_an_answer_that_is_no_json_is_an_error_of_the_environment(monkeypatch):
    class Odd:
        def open(self):
            return object()

        def close(self):
            pass

    monkeypatch.setattr(program, "Worker", Odd)
    answers = io.BytesIO()
    program.serve(io.BytesIO(b'{"do": "open", "number": 1}\n'), answers)
    assert json.loads(answers.getvalue())["raised"].startswith("TypeError")


def test_actions_of_a_space_of_integers_are_rounded(walk):
    """-0.1 of [-1, 1] is 4.5 of [0, 10], and -0.08 is 4.6; 4.5 is rounded to the even 4."""
    family = walk(cls="Count")
    env = family.make_batch(2)
    before = env.reset(np.zeros((2, 1)), [np.random.default_rng(0) for _ in range(2)])
    obs, _, _ = env.step(np.array([[-1.0, -0.1], [-1.0, -0.08]]))
    moved = obs[:, 0] - before[:, 0]
    assert moved[1] - moved[0] == pytest.approx(1.0, abs=1e-5)


def test_observations_of_several_dimensions_are_flat(walk):
    assert walk().observation_space.shape == (2,)


def test_only_the_given_episodes_are_stepped(walk):
    env = walk().make_batch(4, 2)
    before = env.reset(np.zeros((4, 1)), streams(4))
    obs, _, _ = env.step(np.ones((4, 1)), np.array([1, 2]))
    assert np.array_equal(obs[[0, 3]], before[[0, 3]])
    assert not np.isclose(obs[[1, 2], 0], before[[1, 2], 0]).any()


def test_success_is_that_of_any_step_so_far(walk):
    env = walk().make_batch(2)
    env.reset(np.array([[1.0], [0.0]]), streams(2))
    assert env.success is None
    for _ in range(5):
        env.step(np.array([[2.0], [1.0]]))
    assert env.success is not None
    assert env.success.tolist() == [True, False]
    for _ in range(6):
        env.step(np.array([[0.0], [1.0]]))
    assert env.success.tolist() == [True, False]
    env = GymnasiumFamily().make_batch(1)
    env.reset(GymnasiumFamily().tasks("test", 1), streams(1))
    env.step(np.zeros((1, 1)))
    assert env.success is None, "CartPole knows none"


def test_the_environments_own_time_limit(walk):
    """That of a registered id is taken off; one of its own must not come before the horizon."""
    pendulum = GymnasiumFamily(env_id="Pendulum-v1", parameters={"g": (5.0, 10.0)}, horizon=201)
    env = pendulum.make_batch(1)
    env.reset(pendulum.tasks("test", 1), streams(1))
    ended = [env.step(np.zeros((1, 1)))[2][0] for _ in range(201)]  # Pendulum-v1's limit is 200
    assert not any(ended)
    for horizon, message in ((3, None), (4, r"after 3 steps .*Set env.horizon to 3")):
        env = walk(kwargs={"steps": 3}, horizon=horizon).make_batch(1)
        env.reset(np.zeros((1, 1)), streams(1))
        for _ in range(2):
            env.step(np.ones((1, 1)))
        if message is None:
            assert not env.step(np.ones((1, 1)))[2][0]
        else:
            with pytest.raises(WorkerError, match=message):
                env.step(np.ones((1, 1)))


def test_truncations_may_be_ends_that_are_bootstrapped(walk, timer):
    """Walk truncates after 2 steps where it is pulled right, and after 4, the horizon, where it is
    pulled left: bootstrapped both, but not the episode that it does not truncate at all."""
    family = walk(
        "self.steps = 2 if self.pull > 0 else 4 if self.pull < 0 else 99",
        horizon=4,
        truncation="bootstrap",
    )
    tasks = np.array([[0.5], [-0.5], [0.0]])
    episodes = collect(family.make_batch(3, 2), Still(), tasks, streams(3), timer)
    assert episodes.mask.sum(axis=2).tolist() == [[2], [4], [4]]
    assert episodes.bootstrap.tolist() == [[True], [True], [False]]
    assert not episodes.terminated.any()
    plain = walk(horizon=4)  # which is never truncated
    same = collect(plain.make_batch(3, 1), Still(), tasks, streams(3), timer)
    assert np.array_equal(episodes.reward[episodes.mask], same.reward[episodes.mask])
    assert np.array_equal(episodes.last_obs[0, 0], same.obs[0, 0, 2])


class Still:
    """An actor whose action is 0 of Walk, the index 1."""

    def noise(self, rng, horizon):
        return np.zeros((horizon, 1), np.float32)

    def act(self, obs, noise, last_reward, active):
        return np.ones((*obs.shape[:2], 1), np.float32)


def test_a_measurement_of_speed_goes_on_after_the_end(walk):
    env = walk(kwargs={"steps": 3}).make_batch(2)
    env.reset(np.zeros((2, 1)), streams(2))
    for _ in range(8):
        env.advance(np.ones((2, 1)))
    assert env.physics_seconds > 0


def test_numbers_that_are_not_finite_are_a_divergence(walk):
    env = walk("self.x = np.nan if self.t == 2 and self.pull > 0.5 else self.x").make_batch(3)
    env.reset(np.array([[0.0], [0.9], [0.1]]), streams(3))
    env.step(np.ones((3, 1)))
    with pytest.raises(SimulationDiverged) as error:
        env.step(np.ones((3, 1)))
    assert error.value.ids.tolist() == [1]
    healthy = walk().make_batch(3)
    healthy.reset(np.array([[0.0], [0.0], [0.1]]), streams(3))
    healthy.step(np.ones((3, 1)))
    for ours, theirs in zip(error.value.result, healthy.step(np.ones((3, 1))), strict=True):
        assert np.array_equal(ours[[0, 2]], theirs[[0, 2]])
    assert env.success is not None


# --- wrong input, found before long work ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {}}, "parameters: expected at least one"),
        ({"parameters": {"length": 3}}, r"parameters.length: expected \[low, high\] .* got 3"),
        ({"parameters": {"length": (1, "a")}}, r"parameters.length: expected .* got \(1, 'a'\)"),
        ({"parameters": {"length": (1, 2, 3)}}, "parameters.length: expected"),
        ({"parameters": [("length", (1, 2))]}, "parameters: expected names and ranges"),
        ({"parameters": {"length": (1, 1)}}, "parameters: expected a range with low < high"),
        ({"env_id": 5}, "env_id: expected a text, got 5"),
        ({"parameters": {"length": (2.0, 1.0)}}, r"parameters.length: .* got \(2.0, 1.0\)"),
        ({"parameters": {"length": (0.0, np.inf)}}, "parameters.length: expected"),
        ({"route": "magic"}, "route: expected one of keyword, attribute, options, got 'magic'"),
        ({"truncation": "never"}, "truncation: expected one of refuse, bootstrap, got 'never'"),
        ({"workers": -1}, "workers: expected at least 0"),
        ({"timeout": 0.0}, "timeout: expected more than 0"),
        ({"action_scale": 0.0}, "action_scale: expected more than 0"),
        ({"kwargs": {"file": object()}}, "kwargs: expected plain values"),
    ],
)
def test_a_wrong_field_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumFamily(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env_id": "CartPol-v1"}, r"CartPol-v1 is not .*; nearest: CartPole-v1"),
        ({"env_id": "no_such_module:Env"}, "cannot be imported .*No module named 'no_such_module'"),
        ({"env_id": "gymnasium:NoSuchEnv"}, "cannot be imported .*NoSuchEnv"),
        ({"env_id": "no_such_file.py:Env"}, r"cannot be imported .*no_such_file\.py"),
        ({"env_id": "sys:path"}, "is neither a class nor a function"),
        (
            {"env_id": "CartPole-v1", "parameters": {"lenght": (0.2, 1.0)}},
            "has no attribute 'lenght' .*nearest: length",
        ),
        (
            {"env_id": "CartPole-v1", "route": "keyword", "parameters": {"length": (0.2, 1.0)}},
            r"does not take these keyword arguments \(length\)",
        ),
        ({"kwargs": {"colour": "red"}}, r"does not take these keyword arguments \(colour\)"),
        ({"python": "/no/such/python"}, "python: cannot run the interpreter '/no/such/python'"),
        (
            {"env_id": "Blackjack-v1", "parameters": {"natural": (0.0, 1.0)}},
            "observes Tuple.*expected a Box; name a function",
        ),
    ],
)
def test_an_environment_that_cannot_be_used_is_explained(fields, message):
    family = GymnasiumFamily(**fields)
    with pytest.raises(WorkerError, match=message):
        family.observation_space  # noqa: B018


def with_class(family: GymnasiumFamily, source: str) -> str:
    """Add a class to the file of a family's environment, and return its name for `env_id`."""
    file = family.env_id.partition(":")[0]
    with open(file, "a") as text:
        text.write(f"\n\n{source}\n")
    name = source.removeprefix("class ").partition("(")[0]
    return f"{file}:{name}"


def test_a_type_error_in_a_constructor_is_not_one_of_its_keywords(walk):
    family = walk()
    env_id = with_class(family, "class Broken(Walk):\n    def __init__(self):\n        int([])")
    with pytest.raises(WorkerError, match=r"raised TypeError: int\(\) argument must be"):
        replace(family, env_id=env_id).observation_space  # noqa: B018


def test_large_observations_are_described_in_short(walk):
    """A million bounds that are all the same are one number on the way from the worker."""
    family = walk()
    env_id = with_class(
        family,
        "class Large(Walk):\n"
        "    observation_space = gymnasium.spaces.Box(0, 255, (1000, 1000), np.uint8)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return np.zeros((1000, 1000), np.uint8), {}",
    )
    space = replace(family, env_id=env_id).observation_space
    assert space.shape == (1_000_000,)
    assert (space.low.max(), space.high.min()) == (0, 255)


def test_an_observation_that_is_no_box_is_refused(walk):
    with pytest.raises(WorkerError, match=r"observes Dict.*FlattenObservation"):
        walk(cls="Unfit").observation_space  # noqa: B018


def test_spaces_may_be_of_subclasses(walk, tmp_path):
    family = walk()
    env_id = with_class(
        family,
        "class Own(Walk):\n"
        "    observation_space = type('OwnBox', (Box,), {})(-np.inf, np.inf, (1, 2))\n"
        "    action_space = type('Three', (Discrete,), {})(3, start=-1)",
    )
    own = GymnasiumFamily(env_id=env_id, parameters={"pull": (-1, 1)}, horizon=10)
    assert own.action_space == Discrete(3)
    envs = [each.make_batch(2) for each in (own, family)]
    for env in envs:
        env.reset(np.zeros((2, 1)), streams(2))
    results = [env.step(np.array([[0.0], [2.0]])) for env in envs]
    for ours, theirs in zip(*results, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("seen", ["{'a': self.x}", "'text'"])
def test_an_observation_space_that_is_no_box_is_named_before_the_first_observation(walk, seen):
    family = walk()
    env_id = with_class(family, f"class Odd(Unfit):\n    def observe(self):\n        return {seen}")
    odd = GymnasiumFamily(env_id=env_id, parameters={"pull": (-1, 1)}, horizon=10)
    with pytest.raises(WorkerError, match=r"observes Dict\('x': Discrete\(2\)\): expected a Box"):
        odd.observation_space  # noqa: B018


# --- pictures ---

DRAWS = """
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}
    def __init__(self, render_mode=None, **kwargs):
        super().__init__(**kwargs)
        self.render_mode = render_mode
    def render(self):
        assert self.render_mode == "rgb_array"
        frame = np.zeros((20, 40, 3), np.uint8)
        frame[:, : 10 + self.t] = 255
        return frame
"""


def test_a_picture_is_drawn_by_the_environment_itself(walk):
    """Played again from seed and actions; here the white part grows with each step."""
    family = walk()
    env_id = with_class(family, f"class Drawn(Walk):{DRAWS}")
    family = GymnasiumFamily(env_id=env_id, parameters={"pull": (-1, 1)}, horizon=10)
    assert family.frames_per_second == 12
    env, task = family.make_batch(1), np.array([0.5])
    env.reset(task[None], streams(1))
    states = [env.render_state(0)]
    for _ in range(4):
        env.step(np.ones((1, 1)))
        states.append(env.render_state(0))
    renderer = family.make_renderer(80, 60)
    for count in (1, 3, 5, 2):  # forwards, and back again
        picture = renderer.draw(np.stack(states[:count]), task)
        assert picture.shape == (60, 80, 3)
        assert picture.dtype == np.uint8
        white = (picture[30] > 127).all(axis=1).sum()
        assert white == pytest.approx(2 * (10 + count - 1), abs=1)
        # There is nothing between two steps, and what comes later does not show.
        assert np.array_equal(renderer.draw(np.stack(states), task, min(count - 0.6, 4)), picture)
    renderer.close()
    assert family.caption(states[0], task) == "pull 0.5"


SHOWS_X = DRAWS.replace("10 + self.t", "int(20 + 4 * self.x)")


@pytest.fixture
def drawn(walk):
    """A family whose picture has a white part as wide as 20 pixels + 4 for each unit of x."""
    env_id = with_class(walk(), f"class Drawn(Walk):{SHOWS_X}")
    return GymnasiumFamily(env_id=env_id, parameters={"pull": (-1, 1)}, horizon=10)


def whites(renderer, states, time: float) -> int:
    picture = renderer.draw(states, np.array([0.0]), time)
    return int((picture[10] > 127).all(axis=1).sum())


def test_episodes_with_one_seed_and_other_actions_have_pictures_of_their_own(drawn):
    """Each step of Walk goes 1 to the left or to the right; both episodes have the same noise."""
    renderer = drawn.make_renderer(40, 20)
    left, right = (np.array([[7.0, 0.0]] + [[7.0, action]] * 3) for action in (0.0, 2.0))
    for time in (0, 3, 1, 2):
        widths = [whites(renderer, states, time) for states in (left, right, left, right)]
        assert widths[:2] == widths[2:]
        assert widths[1] - widths[0] == pytest.approx(4 * 2 * time, abs=1)
    renderer.close()


def test_episodes_drawn_in_turn_need_no_more_workers_than_are_kept(drawn, monkeypatch):
    made, make_pool = [], GymnasiumFamily.make_pool

    def counted(*args, **settings):
        made.append(make_pool(*args, **settings))
        return made[-1]

    episodes = [np.array([[seed, 0.0]] + [[seed, 1.0]] * 3) for seed in range(4)]
    found = []
    for limit in (4, 3):
        monkeypatch.setattr(rendering, "MAX_REPLAYS", limit)
        monkeypatch.setattr(GymnasiumFamily, "make_pool", counted)
        made.clear()
        renderer = drawn.make_renderer(40, 20)
        found.append([whites(renderer, each, time) for time in range(4) for each in episodes])
        renderer.close()
        assert len(made) == limit
    assert found[0] == found[1]
    assert len({*found[0]}) > 4


def test_an_environment_that_cannot_draw_says_so(walk):
    with pytest.raises(RenderingUnavailable, match="Walk cannot draw: it has no render mode"):
        walk().make_renderer(64, 48)


# --- settings ---


def test_where_an_environment_runs_does_not_tell_its_tasks_apart():
    family = make_family("gymnasium", parameters=CARTPOLE)
    tasks = family.tasks("test", 3)
    elsewhere = make_family("gymnasium", parameters=CARTPOLE, workers=3, python="x", timeout=1.0)
    assert elsewhere.task_hash(tasks) == family.task_hash(tasks)
    other = make_family("gymnasium", parameters={**CARTPOLE, "gravity": (5.0, 14.0)})
    assert other.task_hash(tasks) != family.task_hash(tasks)


# --- what is reported ---


@pytest.mark.parametrize("observed", [False, True])
def test_the_success_rate_is_reported(walk, make_agent, observed):
    """Walk succeeds further than 3 from the origin, as a strong pull alone ensures."""
    family = walk(parameters={"pull": (2.0, 3.0)}, horizon=10)
    family = TaskObserved(family) if observed else family
    result = evaluate(make_agent(family), family, tasks=2, episodes=3, steps=1)
    assert result.success is not None
    assert result.success.shape == (2, 2, 3)
    assert result.success_rate is not None
    assert result.success_rate.tolist() == [1.0, 1.0]
    assert result.to_dict()["success_rate"] == [1.0, 1.0]
    again = Evaluation.from_dict(json.loads(json.dumps(result.to_dict())))
    assert np.array_equal(again.success, result.success)
    assert evaluation_table({"maml": result}).columns[-1].header == "success"


def test_where_success_is_unknown_nothing_is_said_of_it(make_agent):
    family = GymnasiumFamily(horizon=5)
    result = evaluate(make_agent(family), family, tasks=2, episodes=2, steps=1)
    assert result.success is None
    assert "success_rate" not in result.to_dict()
    assert evaluation_table({"maml": result}).columns[-1].header == "tasks made worse"
