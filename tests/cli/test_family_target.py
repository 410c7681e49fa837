"""`metarl check-env` of a config: its section `env` is checked."""

from __future__ import annotations

import pytest

from metarl.cli.family_target import FamilyTarget
from metarl.envs import PointNav, TaskObserved
from metarl.envs.contract import CHECKS


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a config and returns its path."""

    def make(text: str) -> str:
        (tmp_path / "own.yaml").write_text(text)
        return str(tmp_path / "own.yaml")

    return make


def test_the_family_is_that_of_the_section_env(write):
    file = write("env: {family: point_nav, horizon: 7, observe_task: true}\niterations: -1\n")
    assert FamilyTarget(file).make({}) == TaskObserved(PointNav(horizon=7))
    changed = FamilyTarget(file).make({"env.horizon": 3, "env.observe_task": False})
    assert changed == PointNav(horizon=3)
    assert FamilyTarget(write("env: point_nav\n")).make({}) == PointNav()


def test_a_config_may_be_given_by_its_name():
    assert FamilyTarget("point_nav/maml_trpo").make({}) == PointNav()
    assert FamilyTarget("point_nav").make({"env.horizon": 3}) == PointNav(horizon=3)


def test_the_name_of_a_family_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "point_nav").write_text("env: tabular_mdp\n")
    assert FamilyTarget("point_nav").make({}) == PointNav()


def test_a_value_inside_a_key_is_replaced(write):
    file = write("env: {family: gymnasium, env_id: Pendulum-v1, parameters: {g: [1, 2]}}\n")
    family = FamilyTarget(file).make({"env.parameters.l": [0.5, 1.5]})
    assert family.parameters == {"g": (1.0, 2.0), "l": (0.5, 1.5)}


def test_every_check_is_made_of_a_config(write, output):
    file = write("env: {family: point_nav, horizon: 7}\n")
    code, text, _ = output("check-env", file)
    assert code == 0
    assert text.splitlines()[-1] == f"{file}: {len(CHECKS)} passed"


def test_help_shows_the_values_of_the_config(write, output):
    file = write("env: {family: point_nav, horizon: 7}\n")
    text = " ".join(output("check-env", file, "--help")[1].split())
    assert "--env.goal-range VALUE" in text
    assert "[default: 7]" in text


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        (
            "env: {family: point_nav, horizn: 3}",
            (),
            "own.yaml: env.horizn: unknown key (nearest: h",
        ),
        ("env: {family: point_nav, horizon: 0}", (), "own.yaml: env.horizon: expected at least 1"),
        (
            "env: {family: point_nv}",
            (),
            "own.yaml: env.family: unknown family 'point_nv' (nearest:",
        ),
        ("seed: 1", (), "own.yaml: env.family: expected the name of a task family"),
        ("env: [1]", (), "own.yaml: env.family: expected the name of a task family"),
        ("[1]", (), "own.yaml: expected keys with values, got [1]"),
        ("env: {family", (), "own.yaml"),
        ("env: point_nav", ("--env.horizon", "few"), "error: --env.horizon: expected whole number"),
        ("env: point_nav", ("--env.horizn", "3"), "error: --env.horizn: unknown key (nearest: h"),
        ("env: point_nav", ("--env.family", "x"), "error: --env.family: unknown flag"),
        ("env: point_nav", ("--seed", "3"), "error: --seed: unknown flag"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_key_or_the_flag(
    write, output, text, flags, expected
):
    code, _, error = output("check-env", write(text), *flags)
    assert code == 2
    assert expected in error
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("point_nav/maml_trpp", "no such config (nearest: point_nav/maml_trpo)"),
        ("no/such.yaml", "no/such.yaml: no such config"),
        ("point_navv", "unknown family 'point_navv' (nearest: point_nav)"),
    ],
)
def test_a_name_that_is_neither_is_told_with_the_nearest(output, name, expected):
    code, _, error = output("check-env", name)
    assert code == 2
    assert expected in error
    assert error.count("\n") == 1
