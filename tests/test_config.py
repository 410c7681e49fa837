"""Configs: read strictly, from files and from flags, with errors that help."""

from collections.abc import Mapping
from typing import get_origin

import pytest

from metarl.agents.base import make_agent
from metarl.agents.maml.config import InnerConfig
from metarl.agents.maml.outer.gradient import GradientConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.config import Config, config_keys, config_names, load_config, make_config
from metarl.core.errors import ConfigError
from metarl.core.parsing import dump_yaml, read_yaml
from metarl.core.schema import field_docs, flat
from metarl.envs import FAMILIES, PointNav, TabularMDP, TaskObserved

UPDATES = {
    "trpo": TRPOConfig,
    "ppo": PPOConfig,
    "gradient": GradientConfig,
    "reptile": ReptileConfig,
}

# What makes a method the method it is; all else in its configs is a setting.
METHODS = {
    "maml_trpo": {},
    "fomaml": {"inner.first_order": True},
    "anil": {"inner.adapts": "head"},
    "cavia": {"inner.adapts": "context"},
    "leo": {"inner.adapts": "latent"},
    "meta_sgd": {"inner.rule": "meta_sgd"},
    "layer_step_sizes": {"inner.rule": "layer_step_sizes"},
    "meta_lstm": {"inner.rule": "meta_lstm"},
    "dice_maml": {"inner.surrogate": "dice"},
    "loaded_dice_maml": {"inner.surrogate": "loaded_dice"},
    "emaml": {"inner.surrogate": "log_likelihood", "inner.exploration": 1.0},
    "maml_ppo": {"outer.update": "ppo", "outer.start_kl_weight": 0.0},
    "promp": {"outer.update": "ppo", "outer.start_kl_weight": 5e-4},
    "reptile": {"outer.update": "reptile"},
    "pretrained": {"inner_steps": 0},
    "oracle": {"inner_steps": 0, "env.observe_task": True},
}
USUAL = {
    "inner_steps": 1,
    "inner.adapts": "all",
    "inner.rule": "sgd",
    "inner.surrogate": "likelihood_ratio",
    "inner.exploration": 0.0,
    "inner.first_order": False,
    "outer.update": "trpo",
    "env.observe_task": False,
}


# Other settings of a method, and no methods.
SETTINGS = {"maml_trpo_tuned", "maml_trpo_gymnasium", "cavia_tuned", "oracle_tuned"}


@pytest.mark.parametrize("name", config_names())
def test_every_config_matches_the_schema_and_survives_a_round_trip(name):
    config = load_config(name)
    again = make_config(read_yaml(config.to_yaml(), "resolved"), "resolved", {})
    assert again == config
    # The environments of the gymnasium family have folders of their own.
    assert name.startswith(config.env.name) or config.env.name == "gymnasium"


@pytest.mark.parametrize("name", config_names())
def test_every_config_is_of_the_method_that_its_file_is_named_after(name):
    """It sets what makes that method, and nothing that makes another."""
    config = load_config(name)
    stem = name.partition("/")[2]
    method = "maml_trpo" if stem == "demo" else stem
    method = method.removesuffix("_tuned").removesuffix("_gymnasium")
    assert config.method == (method if stem == "demo" else stem)
    values = {"env.observe_task": False, **flat(config.to_dict())}
    values["inner_steps"] = min(values["inner_steps"], 1)  # more are no other method
    expected = {**USUAL, **METHODS[method]}
    assert {key: values[key] for key in expected} == expected


def test_every_method_has_a_config_for_point_nav():
    named = {name.partition("/")[2] for name in config_names() if name.startswith("point_nav/")}
    assert named - SETTINGS == METHODS.keys()


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_documented(family, update):
    data = {"env": {"family": family}, "outer": {"update": update}}
    listed = config_keys(make_config(data, "test", {}))
    for key in listed:
        assert key.doc, key.path
    paths = [key.path for key in listed]
    assert len(set(paths)) == len(paths)
    config = make_config(data, "test", {})
    values = flat(config.to_dict()).keys() - {"env.family"}
    open_mappings = {key.path for key in listed if get_origin(key.type) is Mapping}
    assert {path for path in values if path.rpartition(".")[0] not in open_mappings} <= set(paths)


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
    assert (vel.num_tasks, vel.num_episodes, vel.env.horizon, vel.inner.lr) == (40, 10, 200, 0.1)
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


# --- the outer update, by its key `update` ---


@pytest.mark.parametrize("update", UPDATES)
def test_the_outer_update_is_chosen_by_its_key(tmp_path, update):
    """With the defaults of its own; the round trip through YAML keeps the choice."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"env: {{family: point_nav}}\nouter: {{update: {update}}}\n")
    config = load_config(path)
    assert config.outer == UPDATES[update]()
    assert make_config(read_yaml(config.to_yaml(), "resolved"), "resolved", {}) == config
    assert load_config("point_nav/maml_trpo", **{"outer.update": update}).outer == config.outer


def test_without_the_key_it_is_trpo():
    config = load_config("point_nav/maml_trpo", **{"outer.max_kl": 0.05})
    assert config.outer == TRPOConfig(max_kl=0.05)
    assert load_config("point_nav/maml_trpo", outer={}).outer == TRPOConfig()


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        (
            {"update": "pop"},
            "outer.update: expected one of trpo, ppo, gradient, reptile, got 'pop' (nearest: ppo)",
        ),
        ({"update": None}, "outer.update: expected one of trpo, ppo, gradient, reptile, got None"),
        (
            {"update": "ppo", "max_kl": 0.1},
            "outer.max_kl: unknown key where outer.update is ppo",
        ),
        (
            {"update": "ppo", "epohcs": 3},
            "outer.epohcs: unknown key where outer.update is ppo (nearest: epochs)",
        ),
        ({"epochs": 3}, "outer.epochs: unknown key where outer.update is trpo"),
        ({"update": "reptile", "optimizer": "adma"}, "outer.optimizer: expected one of sgd, adam"),
        ({"update": "gradient", "lr": "fast"}, "outer.lr: expected number, got 'fast'"),
        ({"update": "gradient", "lr": -1}, "outer.lr: expected more than 0"),
        (
            {"update": "ppo", "kl_target": 0.1},
            "outer.kl_weight: expected more than 0, as it adapts",
        ),
        (3, "outer: expected keys with values, got 3"),
        ("ppo", "outer: expected keys with values, got 'ppo'"),
        (None, "outer: expected keys with values, got None"),
    ],
)
def test_a_bad_outer_update_is_refused_by_name(tmp_path, outer, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml({"env": {"family": "point_nav"}, "outer": outer}))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert f"mine.yaml: {expected}" in str(error.value)


@pytest.mark.parametrize("update", [["ppo"], {"ppo": 1}])
def test_an_outer_update_that_is_no_name_is_refused(update):
    with pytest.raises(ConfigError, match=r"outer\.update: expected one of trpo"):
        load_config("point_nav/maml_trpo", **{"outer.update": update})


# --- parts that make no sense together ---


def refusal(**values) -> str:
    """Why a config is refused."""
    with pytest.raises(ConfigError) as error:
        load_config("point_nav/maml_trpo", **values)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("inner.lr", 0.0, "expected more than 0"),
        ("inner.code_size", 0, "expected at least 1"),
        ("inner.dice_decay", 1.5, "expected between 0 and 1"),
        ("inner.dice_decay", -0.1, "expected between 0 and 1"),
        ("inner.exploration", -1.0, "expected at least 0"),
        ("inner.start_weight", -1.0, "expected at least 0"),
        ("inner.lr_slope", -0.1, "expected at least 0"),
        ("inner_steps", -1, "expected at least 0"),
        ("inner.adapts", "heads", "(nearest: head)"),
        ("inner.rule", "meta-sgd", "(nearest: meta_sgd)"),
    ],
)
def test_bad_settings_of_the_inner_loop_are_refused(key, value, expected):
    assert expected in refusal(**{key: value})


@pytest.mark.parametrize("rule", ["meta_sgd", "layer_step_sizes", "meta_lstm"])
def test_only_a_fixed_step_size_has_a_slope(rule):
    message = refusal(**{"inner.rule": rule, "inner.lr_slope": 0.1})
    assert f"lr-slope: expected 0 with rule {rule}: only the step size of sgd" in message


def test_gates_are_shares():
    message = refusal(**{"inner.rule": "meta_lstm", "inner.lr": 1.0})
    assert "less than 1, as the gates of meta_lstm are shares, got 1.0" in message
    assert load_config("point_nav/maml_trpo", **{"inner.lr": 1.0}).inner.lr == 1.0
    assert InnerConfig(rule="meta_lstm", lr=0.999).lr == 0.999


@pytest.mark.parametrize("surrogate", ["dice", "loaded_dice"])
def test_dice_needs_second_derivatives(surrogate):
    message = refusal(**{"inner.surrogate": surrogate, "inner.first_order": True})
    assert "likelihood_ratio or log_likelihood with first_order" in message
    assert f"all that dice is for, got '{surrogate}'" in message
    assert InnerConfig(surrogate=surrogate).surrogate == surrogate
    assert InnerConfig(surrogate="log_likelihood", first_order=True).first_order


def test_a_scale_has_a_number_for_each_of_an_observation():
    message = refusal(**{"policy.obs_scale": [1.0, 2.0, 3.0]})
    expected = "one number for each of the 2 of an observation, or none, got (1.0, 2.0, 3.0)"
    assert message == f"--policy.obs-scale: expected {expected}"
    values = {"policy.obs_scale": [1.0, 2.0]}
    assert load_config("point_nav/maml_trpo", **values).policy.obs_scale == (1.0, 2.0)
    values = {"policy.obs_scale": [1.0, 2.0, 3.0, 4.0], "env.observe_task": True}
    assert load_config("point_nav/maml_trpo", **values).policy.obs_scale == (1.0, 2.0, 3.0, 4.0)


def test_a_head_needs_a_body():
    message = refusal(**{"inner.adapts": "head", "policy.hidden": []})
    assert "inner.adapts: head makes no sense here: policy.hidden is []" in message
    values = {"inner.adapts": "context", "policy.hidden": []}
    assert load_config("point_nav/maml_trpo", **values).policy.hidden == ()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("inner.adapts", "head", "; expected all"),
        ("inner.adapts", "context", "; expected all"),
        ("inner.rule", "meta_sgd", "; expected sgd"),
        ("inner.exploration", 1.0, "; expected 0.0"),
        ("inner.start_weight", 1.0, "; expected 0.0"),
        ("inner.first_order", True, "; expected False"),
        ("inner.surrogate", "dice", ", and the second derivatives are all that dice is for"),
        ("inner.surrogate", "loaded_dice", ", and the second derivatives are all that dice is for"),
    ],
)
def test_reptile_differentiates_nothing(key, value, reason):
    values = {key: value, **needed(key)}
    message = refusal(**{"outer.update": "reptile", **values})
    expected = f"{value} makes no sense here: outer.update reptile differentiates nothing through"
    assert expected in message
    assert message.endswith(reason)
    assert load_config("point_nav/maml_trpo", **{**values, "outer.update": "ppo"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inner.rule", "meta_sgd"),
        ("inner.rule", "meta_lstm"),
        ("inner.exploration", 1.0),
        ("inner.start_weight", 1.0),
        ("inner.adapts", "context"),
        ("inner.adapts", "latent"),
    ],
)
def test_without_adaptation_there_is_nothing_to_learn_it_from(key, value):
    values = {key: value, **needed(key)}
    message = refusal(**{"inner_steps": 0, **values})
    assert f"{value} makes no sense here: with inner_steps 0 no adaptation takes place" in message
    assert load_config("point_nav/maml_trpo", **values).inner_steps == 1


def needed(key: str) -> dict[str, str]:
    """What else a value of the key asks for."""
    return {"inner.surrogate": "log_likelihood"} if key == "inner.exploration" else {}


@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "dice", "loaded_dice"])
def test_the_exploration_credit_is_not_counted_twice(surrogate):
    message = refusal(**{"inner.exploration": 1.0, "inner.surrogate": surrogate})
    assert "surrogate: expected log_likelihood with exploration" in message


def test_one_task_cannot_be_compared_with_others():
    message = refusal(
        **{"inner.exploration": 1.0, "inner.surrogate": "log_likelihood", "num_tasks": 1}
    )
    assert message.endswith("num_tasks is 1, and it compares the tasks of a meta-batch")


def test_without_adaptation_there_is_no_policy_before_it():
    values = {"outer.update": "ppo", "outer.start_kl_weight": 0.1}
    message = refusal(inner_steps=0, **values)
    expected = "--outer.start-kl-weight: 0.1 makes no sense here: there is no policy before"
    assert expected in message
    assert load_config("point_nav/maml_trpo", **values).outer.start_kl_weight == 0.1
    values = {"inner_steps": 0, "inner.adapts": "head"}
    assert load_config("point_nav/maml_trpo", **values).inner_steps == 0, "to fine-tune the head"


# --- the oracle ---


def test_observe_task_wraps_the_family(tmp_path):
    """By YAML and by override, kept by a round trip; false is as if it were not there."""
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav, horizon: 7, observe_task: true}\n")
    config = load_config(path)
    assert config.env == TaskObserved(PointNav(horizon=7))
    assert make_config(read_yaml(config.to_yaml(), "resolved"), "resolved", {}) == config
    assert "observe_task: true" in config.to_yaml()
    plain = load_config("point_nav/maml_trpo")
    for value, env in ((True, TaskObserved(plain.env)), (False, plain.env)):
        assert load_config("point_nav/maml_trpo", **{"env.observe_task": value}).env == env
    assert load_config("point_nav/oracle", **{"env.observe_task": False}).env == plain.env
    with pytest.raises(ConfigError, match=r"env\.observe_task: expected true or false, got 1"):
        make_config({"env": {"family": "point_nav", "observe_task": 1}}, "test", {})


@pytest.mark.parametrize("name", [name for name in config_names() if name.endswith("/oracle")])
def test_an_oracles_agent_sees_the_task(name):
    config = load_config(name, **{"policy.hidden": [4]})
    assert isinstance(config.env, TaskObserved)
    family = config.env.family
    inputs = family.observation_space.shape[0] + family.task_space.shape[0]
    assert make_agent(config).meta["weight0"].shape == (inputs, 4)


def test_a_discrete_family_makes_a_categorical_agent():
    data = {"env": {"family": "tabular_mdp", "num_states": 3, "num_actions": 4}}
    config = make_config(data, "test", {"policy.hidden": [5]})
    assert config.env == TabularMDP(num_states=3, num_actions=4)
    agent = make_agent(config)
    assert agent.policy.sizes == (3, 5, 4)
    assert "log_std" not in agent.meta


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
