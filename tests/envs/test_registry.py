"""metarl.envs.registry: families by name."""

import re

import pytest

from metarl.config import Config
from metarl.core.errors import ConfigError
from metarl.envs import (
    FAMILIES,
    HalfCheetahVel,
    PointNav,
    TaskObserved,
    family_name,
    family_settings,
    make_family,
)
from metarl.envs.contract import run_check
from metarl.envs.mujoco.family import MujocoFamily
from metarl.envs.registry import name_of_another, undefined_members


class OwnNav(PointNav):
    """A user's family, which is not registered."""

    name = "own_nav"


class Unnamed(PointNav):
    """A family of the name of a registered one."""


class SecondNav(OwnNav):
    """A family of the name of another own one."""


class NamedAgain(PointNav):
    """A family that takes a registered name."""

    name = "bandit"


@pytest.mark.parametrize("observe_task", [False, True])
@pytest.mark.parametrize("name", [*FAMILIES, f"{__name__}:OwnNav"])
def test_name_and_settings_make_the_family_again(name, observe_task):
    family = make_family(name, observe_task=observe_task, horizon=7)
    assert isinstance(family, TaskObserved) == observe_task
    assert family_name(family) == name
    settings = family_settings(family)
    assert settings["horizon"] == 7
    assert ("observe_task" in settings) == observe_task
    assert make_family(name, **settings) == family


@pytest.mark.parametrize(
    ("family", "other"),
    [
        (Unnamed, "'point_nav' of metarl.envs.point:PointNav"),
        (SecondNav, f"'own_nav' of {__name__}:OwnNav"),
        (NamedAgain, "'bandit' of metarl.envs.bandit:Bandit"),
    ],
)
def test_a_name_of_another_family_is_refused(family, other):
    """Their runs would be taken for ones on the same tasks."""
    named = f"{__name__}:{family.__name__}"
    said = f"{named} has the name {other}: expected a `name` of its own"
    with pytest.raises(ValueError, match=re.escape(said)):
        make_family(named)
    for env in (named, family(), TaskObserved(family())):
        with pytest.raises(ConfigError, match=re.escape(said)):
            Config(env=env)
    assert run_check("declaration", family()).reason.endswith(said)
    assert not any(map(name_of_another, FAMILIES.values()))


def test_the_class_of_a_family_is_not_a_family():
    with pytest.raises(ConfigError, match=r"^env.family: expected an object, OwnNav\(\), got the"):
        Config(env=OwnNav)


def test_settings_are_the_fields():
    fields = {
        "horizon": 200,
        "action_scale": 10.0,
        "frame_skip": 0,
        "observe_torso": False,
        "velocity_of": "torso",
        "goal_low": 0.0,
        "goal_high": 3.0,
    }
    family = HalfCheetahVel(goal_high=3.0)
    assert family_settings(family) == fields
    assert family_settings(TaskObserved(family)) == {**fields, "observe_task": True}


@pytest.mark.parametrize(
    ("name", "nearest"), [("half_cheetah_vell", "half_cheetah_vel"), ("pointnav", "point_nav")]
)
def test_an_unknown_family_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"unknown family '{name}' \(nearest: {nearest}\)"):
        make_family(name)


def test_a_users_own_family_is_found_by_module_and_class(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "from metarl.envs import PointNav\n\n\nclass MyNav(PointNav):\n    name = 'my_nav'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    family = make_family("my_tasks:MyNav", horizon=7)
    assert (family.name, family.horizon) == ("my_nav", 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Nav", "cannot import 'no_such_module:Nav'"),
        ("metarl.envs:NoSuchFamily", "cannot import 'metarl.envs:NoSuchFamily'"),
        (":PointNav", "cannot import ':PointNav'"),
        ("my/tasks.py:Nav", "cannot import 'my/tasks.py:Nav': expected package.module:Class, such"),
        ("my/tasks.py:Nav", "such as my.tasks:MyClass for a class of my/tasks.py"),
        ("tasks.py:Nav", "such as tasks:MyClass for a class of tasks.py"),
        ("../tasks.py:Nav", "such as my_package.my_module:MyClass for a class of my_package/"),
        ("no_such:Nav", r"No module named 'no_such' \(run in the folder that holds it"),
        (
            "metarl.envs:TaskError",
            "'metarl.envs:TaskError' is not a subclass of metarl.envs.TaskFamily",
        ),
        (
            "metarl.envs:FAMILIES",
            "'metarl.envs:FAMILIES' is not a subclass of metarl.envs.TaskFamily",
        ),
    ],
)
def test_a_wrong_family_of_the_users_is_explained(name, message):
    with pytest.raises(ValueError, match=message):
        make_family(name)


def test_members_that_a_family_has_to_define_are_listed():
    assert not any(undefined_members(family) for family in FAMILIES.values())
    assert "model_file, name, obs_dim" in ", ".join(undefined_members(MujocoFamily))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = (\n", "SyntaxError: '(' was never closed (own_code.py, line 1)"),
        ("import no_such", "Error: No module named 'no_such' (own_code.py, line 1, in"),
        ("\nx = {}['y']", "KeyError: 'y' (own_code.py, line 2, in <module>)"),
        ("import json\njson.loads('?')", "(own_code.py, line 2, in <module>)"),
    ],
)
def test_an_error_in_the_users_module_is_one_line_with_its_place(
    code, message, tmp_path, monkeypatch
):
    (tmp_path / "own_code.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"cannot import 'own_code:Nav': .*{re.escape(message)}"):
        make_family("own_code:Nav")


def test_a_family_that_calls_every_task_usual_has_none_out_of_distribution():
    class Careless(PointNav):
        def in_distribution(self, task):
            return True

    with pytest.raises(RuntimeError, match="point_nav: in_distribution accepts nearly all tasks"):
        Careless().tasks("ood", 2)
