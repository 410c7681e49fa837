"""envs.registry: families by name."""

import pytest

from envs import make_family


@pytest.mark.parametrize(
    ("name", "nearest"), [("half_cheetah_vell", "half_cheetah_vel"), ("pointnav", "point_nav")]
)
def test_an_unknown_family_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"unknown family '{name}' \(nearest: {nearest}\)"):
        make_family(name)


def test_a_users_own_family_is_found_by_module_and_class(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "from envs import PointNav\n\n\nclass MyNav(PointNav):\n    name = 'my_nav'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    family = make_family("my_tasks:MyNav", horizon=7)
    assert (family.name, family.horizon) == ("my_nav", 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Nav", "cannot import the family 'no_such_module:Nav'"),
        ("envs:NoSuchFamily", "cannot import the family 'envs:NoSuchFamily'"),
        (":PointNav", "cannot import the family ':PointNav'"),
        ("envs:TaskError", "'envs:TaskError' is not a subclass of envs.TaskFamily"),
        ("envs:FAMILIES", "'envs:FAMILIES' is not a subclass of envs.TaskFamily"),
    ],
)
def test_a_wrong_family_of_the_users_is_explained(name, message):
    with pytest.raises(ValueError, match=message):
        make_family(name)
