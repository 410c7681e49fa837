"""Configs: read strictly, from files and from flags, with errors that help."""

import pytest
import yaml

from envs import FAMILIES
from metarl.checks import ConfigError
from metarl.config import Config, config_keys, config_names, load_config, make_config
from metarl.schema import field_docs


@pytest.mark.parametrize("name", config_names())
def test_every_config_matches_the_schema_and_survives_a_round_trip(name):
    config = load_config(name)
    again = make_config(yaml.safe_load(config.to_yaml()), "resolved", {})
    assert again == config
    assert name.startswith(config.env.name + "/")


@pytest.mark.parametrize("family", FAMILIES.values())
def test_every_key_is_documented(family):
    for key in config_keys(family):
        assert key.doc, key.path


def test_docstrings_of_inherited_fields_are_found():
    docs = field_docs(FAMILIES["half_cheetah_vel"])
    assert {"horizon", "action_scale", "goal_low", "goal_high"} <= docs.keys()


def test_configs_are_found_by_path_and_by_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav, horizon: 7}\ninner: {lr: 1e-2}\n")
    config = load_config(path, seed=3, **{"inner.surrogate": "log_likelihood"})
    assert (config.env.horizon, config.inner.lr, config.seed) == (7, 0.01, 3)
    assert config.inner.surrogate == "log_likelihood"
    assert config.method == "mine"
    assert load_config("configs/point_nav/maml_trpo.yaml") == load_config("point_nav/maml_trpo")


def test_published_settings():
    vel = load_config("half_cheetah_vel/maml_trpo")
    assert (vel.num_tasks, vel.num_episodes, vel.env.horizon, vel.inner.lr) == (40, 20, 200, 0.1)
    assert (vel.policy.hidden, vel.policy.activation) == ((100, 100), "relu")
    assert (vel.outer.max_kl, vel.returns.discount, vel.returns.gae_lambda) == (0.01, 0.99, 1.0)
    assert load_config("point_nav/maml_trpo").inner.lr == 0.5
    assert load_config("half_cheetah_dir/maml_trpo").outer.max_kl == 0.02


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sed", 1, "unknown key (nearest: seed)"),
        ("policy.hiden", [8], "unknown key (nearest: hidden)"),
        ("env.goal_hihg", 3, "unknown key (nearest: goal_high)"),
        ("iterations", "many", "expected whole number, got 'many'"),
        ("iterations", True, "expected whole number"),
        ("iterations", -1, "expected at least 1, got -1"),
        ("num_tasks", 0, "expected at least 1"),
        ("inner.lr", "fast", "expected number, got 'fast'"),
        ("inner.lr", -0.1, "expected more than 0"),
        ("inner.first_order", "maybe", "expected true or false"),
        ("inner.surrogate", "log_likelyhood", "(nearest: log_likelihood)"),
        ("policy.hidden", 64, "expected a list of whole numbers"),
        ("policy.hidden", [64, "x"], "policy.hidden[1]: expected whole number"),
        ("policy.init_std", 1e9, "expected between min_std and max_std"),
        ("env.horizon", 0, "expected at least 1"),
        ("env.goal_high", -1.0, "expected more than goal_low"),
        ("env.family", "half_cheeta_vel", "(nearest: half_cheetah_vel)"),
        ("device", "gpu", "expected cpu, cuda or cuda:NUMBER"),
        ("outer.fisher_fraction", 0, "expected more than 0, at most 1"),
        ("seed", -1, "expected between 0 and"),
    ],
)
def test_bad_values_are_refused_by_name(key, value, expected):
    with pytest.raises(ConfigError) as error:
        load_config("half_cheetah_vel/maml_trpo", **{key: value})
    assert expected in str(error.value)
    assert key.split(".")[0] in str(error.value).replace("-", "_")


def test_an_error_in_a_file_names_the_file_and_the_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav}\ninner: {lrr: 1}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: inner\.lrr: unknown key \(nearest: lr\)"):
        load_config(path)


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [1\n", "", "inner: 3\nenv: {family: point_nav}"]
)
def test_files_that_are_not_configs_are_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_config(path)


def test_a_section_that_is_none_is_refused_also_where_a_key_of_it_is_replaced(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav}\ninner: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: inner: expected keys with values, got 3"):
        load_config(path, **{"inner.lr": 0.1})


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(ConfigError, match="nearest: half_cheetah_vel/maml_trpo"):
        load_config("half_cheetah_vel/maml_trop")


def test_threads_default_to_the_cores():
    config = load_config("point_nav/maml_trpo")
    assert config.threads == 0
    assert config.num_threads >= 1
    assert load_config("point_nav/maml_trpo", threads=3).num_threads == 3
    assert isinstance(config, Config)
