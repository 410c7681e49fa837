"""Configs: read strictly, from files and from flags, with errors that help."""

import re
from collections.abc import Mapping
from typing import get_origin

import pytest
import torch
import yaml

from metarl.agents import agent_config_class
from metarl.agents.maml.config import InnerConfig, MAMLConfig
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.rl2.config import RL2Config
from metarl.config import Config, config_keys
from metarl.config_files import config_names, load_config, make_config
from metarl.core.errors import ConfigError
from metarl.core.parallel import available_cores
from metarl.core.schema_keys import by_path, field_docs
from metarl.envs import FAMILIES, PointNav, TabularMDP, TaskObserved

UPDATES = {
    "trpo": TRPOConfig,
    "ppo": PPOConfig,
    "adam": AdamConfig,
    "reptile": ReptileConfig,
}

# What makes a method the method it is; all else in its configs is a setting.
METHODS = {
    "maml_trpo": {},
    "fomaml": {"agent.inner.first_order": True},
    "anil": {"agent.inner.adapts": "head"},
    "cavia": {"agent.inner.adapts": "context"},
    "leo": {"agent.inner.adapts": "latent"},
    "meta_sgd": {"agent.inner.rule": "meta_sgd"},
    "lslr": {"agent.inner.rule": "lslr"},
    "meta_lstm": {"agent.inner.rule": "meta_lstm"},
    "dice_maml": {"agent.inner.surrogate": "dice"},
    "loaded_dice_maml": {"agent.inner.surrogate": "loaded_dice"},
    "emaml": {"agent.inner.surrogate": "log_likelihood", "agent.inner.emaml_weight": 1.0},
    "maml_ppo": {"agent.outer.update": "ppo", "agent.outer.inner_kl_weight": 0.0},
    "promp": {"agent.outer.update": "ppo", "agent.outer.inner_kl_weight": 5e-4},
    "reptile": {"agent.outer.update": "reptile"},
    "robust_maml": {"sampling.risk.alpha": 0.2},
    "pretrained": {"sampling.adaptation_steps": 0},
    "oracle": {
        "sampling.adaptation_steps": 0,
        "env.observe_task": True,
        "agent.inner.adapts": "nothing",
    },
}
USUAL = {
    "agent.kind": "maml",
    "sampling.adaptation_steps": 1,
    "agent.inner.adapts": "all",
    "agent.inner.rule": "sgd",
    "agent.inner.surrogate": "likelihood_ratio",
    "agent.inner.emaml_weight": 0.0,
    "agent.inner.first_order": False,
    "agent.outer.update": "trpo",
    "env.observe_task": False,
    "sampling.risk.alpha": 1.0,
}

CONTINUAL = "continual_"
"""Beginning of the names of configs that train a method on sequences of tasks."""

CAVIA_BY_PPO = {
    "ant_dir/cavia_tuned",
    "ant_vel/cavia_ppo",
    "half_cheetah_dir/cavia_gymnasium",
    "half_cheetah_dir/cavia_ppo",
    "half_cheetah_vel/cavia_gymnasium",
}
BY_PPO = {
    "half_cheetah_dir/oracle_gymnasium",
    "half_cheetah_vel/oracle_gymnasium",
    *CAVIA_BY_PPO,
}
"""Configs of a method whose outer update is PPO in place of TRPO."""

BY_FIRST_ORDER = {"ant_goal/cavia_tuned", *CAVIA_BY_PPO}
"""Configs of a method that has first-order meta-gradients as a variant, as CAVIA has."""

# Other settings of a method, and agents of other kinds
SETTINGS = {
    "maml_trpo_tuned",
    "maml_trpo_gymnasium",
    "cavia_tuned",
    "cavia_gymnasium",
    "cavia_ppo",
    "oracle_tuned",
    "oracle_gymnasium",
}


@pytest.mark.parametrize("name", config_names())
def test_every_config_matches_the_schema_and_survives_a_round_trip(name):
    config = load_config(name)
    again = make_config(yaml.safe_load(config.to_yaml()), "resolved", {})
    assert again == config
    # The environments of the gymnasium family have folders of their own.
    assert name.startswith(config.env.name) or config.env.name == "gymnasium"


@pytest.mark.parametrize("name", config_names())
def test_every_config_is_of_the_method_that_its_file_is_named_after(name):
    """It sets what makes that method, and nothing that makes another."""
    config = load_config(name)
    stem = name.partition("/")[2]
    method = "maml_trpo" if stem == "demo" else stem
    for setting in ("_tuned", "_gymnasium", "_drift"):
        method = method.removesuffix(setting)
    if name in BY_PPO:
        method = method.removesuffix("_ppo")
    assert (config.sampling.drift > 0) == stem.endswith("_drift")
    assert config.method == (method if stem == "demo" else stem)
    assert (config.sampling.sequence > 1) == stem.startswith(CONTINUAL)
    method = method.removeprefix(CONTINUAL)
    if config.agent.kind != "maml":
        assert method.partition("_")[0] == config.agent.kind
        return
    method = "maml_trpo" if method == "maml" else method
    values = {"env.observe_task": False, **by_path(config.to_dict())}
    steps = "sampling.adaptation_steps"
    values[steps] = min(values[steps], 1)  # more are no other method
    expected = {**USUAL, **METHODS[method]}
    if name in BY_FIRST_ORDER:
        expected["agent.inner.first_order"] = True
    if name in BY_PPO:
        expected["agent.outer.update"] = "ppo"
    assert {key: values[key] for key in expected} == expected


def test_every_method_has_a_config_for_point_nav():
    names = [name for name in config_names() if name.startswith("point_nav/")]
    named = {name.partition("/")[2] for name in names if load_config(name).agent.kind == "maml"}
    named = {name for name in named if not name.startswith(CONTINUAL)}
    assert named - SETTINGS == METHODS.keys()


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_documented(family, update):
    data = {"env": {"family": family}, "agent": {"outer": {"update": update}}}
    listed = config_keys(make_config(data, "test", {}))
    for key in listed:
        assert key.doc, key.path
    paths = [key.path for key in listed]
    assert len(set(paths)) == len(paths)
    config = make_config(data, "test", {})
    values = by_path(config.to_dict()).keys() - {"env.family"}
    open_mappings = {key.path for key in listed if get_origin(key.type) is Mapping}
    assert {path for path in values if path.rpartition(".")[0] not in open_mappings} <= set(paths)


def test_docstrings_of_inherited_fields_are_found():
    docs = field_docs(FAMILIES["half_cheetah_vel"])
    assert {"horizon", "action_scale", "goal_low", "goal_high"} <= docs.keys()


def test_configs_are_found_by_path_and_by_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav, horizon: 7}\nagent: {inner: {lr: 1e-2}}\n")
    config = load_config(path, seed=3, **{"agent.inner.surrogate": "log_likelihood"})
    assert (config.env.horizon, config.agent.inner.lr, config.seed) == (7, 0.01, 3)
    assert config.agent.inner.surrogate == "log_likelihood"
    assert config.method == "mine"
    assert load_config("configs/point_nav/maml_trpo.yaml") == load_config("point_nav/maml_trpo")


def test_published_settings():
    vel = load_config("half_cheetah_vel/maml_trpo")
    assert (vel.sampling.num_tasks, vel.sampling.num_episodes, vel.env.horizon) == (40, 10, 200)
    agent = vel.agent
    assert (agent.policy.hidden, agent.policy.activation) == ((100, 100), "relu")
    assert (agent.inner.lr, agent.outer.max_kl) == (0.1, 0.01)
    assert (agent.returns.discount, agent.returns.gae_lambda) == (0.99, 1.0)
    assert load_config("point_nav/maml_trpo").agent.inner.lr == 0.5
    assert load_config("half_cheetah_dir/maml_trpo").agent.outer.max_kl == 0.02


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sed", 1, "unknown key (nearest: seed)"),
        ("agent.policy.hiden", [8], "unknown key (nearest: hidden)"),
        ("agent_inner_lr", 0.1, "unknown key (nearest: agent.inner.lr)"),  # of Python
        ("agent.policy.hidden", "32,32", 'a list of whole numbers, such as "[32, 32]", got'),
        ("agent.update.lr", 0.1, "--agent.update.lr: unknown key where agent.kind is maml (known"),
        ("env.goal_hihg", 3, "unknown key (nearest: goal_high)"),
        (
            "env.goal_range",
            1.0,
            "unknown key where env.family is half_cheetah_vel (known where it is point_nav or ant_",
        ),
        ("iterations", "many", "expected whole number, got 'many'"),
        ("iterations", True, "expected whole number"),
        ("iterations", -1, "expected at least 1, got -1"),
        ("num_tasks", 0, "expected at least 1"),
        ("agent.inner.lr", "fast", "expected number, got 'fast'"),
        ("agent.inner.lr", -0.1, "expected more than 0"),
        ("agent.inner.first_order", "maybe", "expected true or false"),
        ("agent.inner.surrogate", "log_likelyhood", "(nearest: log_likelihood)"),
        ("agent.policy.hidden", 64, "expected a list of whole numbers"),
        ("agent.policy.hidden", [64, "x"], "agent.policy.hidden[1]: expected whole number"),
        ("agent.policy.init_std", 1e9, "expected between min_std and max_std"),
        ("env.horizon", 0, "expected at least 1"),
        ("env.goal_high", -1.0, "expected more than goal_low"),
        ("env.family", "half_cheeta_vel", "(nearest: half_cheetah_vel)"),
        ("device", "gpu", "expected cpu, cuda or cuda:NUMBER"),
        ("device", "cuda:", "expected cpu, cuda or cuda:NUMBER, from 0 to 127, got 'cuda:'"),
        ("device", "cpu:", "got 'cpu:'"),
        ("device", "cuda:²", "got 'cuda:²'"),
        ("device", "cuda:01", "got 'cuda:01'"),
        ("device", "cuda:128", "got 'cuda:128'"),
        ("device", "cuda:99999999999", "got 'cuda:99999999999'"),
        ("agent.outer.fisher_fraction", 0, "expected between 1e-06 and 1"),
        ("seed", -1, "expected between 0 and"),
    ],
)
def test_bad_values_are_refused_by_name(key, value, expected):
    with pytest.raises(ConfigError) as error:
        load_config("half_cheetah_vel/maml_trpo", **{key: value})
    assert expected in str(error.value)
    assert key.split(".")[0] in str(error.value).replace("-", "_")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:9", "cuda:10", "cuda:127"])
def test_devices_are_those_of_torch(device):
    assert str(torch.device(Config(env=PointNav(), device=device).device)) == device


# --- the outer update, by its key `update` ---


@pytest.mark.parametrize("update", UPDATES)
def test_the_outer_update_is_chosen_by_its_key(tmp_path, update):
    """With the defaults of its own; the round trip through YAML keeps the choice."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"env: {{family: point_nav}}\nagent: {{outer: {{update: {update}}}}}\n")
    config = load_config(path)
    assert config.agent.outer == UPDATES[update]()
    assert make_config(yaml.safe_load(config.to_yaml()), "resolved", {}) == config
    assert (
        load_config("point_nav/maml_trpo", **{"agent.outer.update": update}).agent.outer
        == config.agent.outer
    )


def test_without_the_key_it_is_trpo():
    config = load_config("point_nav/maml_trpo", **{"agent.outer.max_kl": 0.05})
    assert config.agent.outer == TRPOConfig(max_kl=0.05)
    assert load_config("point_nav/maml_trpo", **{"agent.outer": {}}).agent.outer == TRPOConfig()


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        (
            {"update": "pop"},
            "agent.outer.update: expected one of trpo, ppo, adam, reptile, "
            "got 'pop' (nearest: ppo)",
        ),
        (
            {"update": None},
            "agent.outer.update: expected one of trpo, ppo, adam, reptile, got None",
        ),
        (
            {"update": "ppo", "max_kl": 0.1},
            "agent.outer.max_kl: unknown key where agent.outer.update is ppo",
        ),
        (
            {"update": "ppo", "epohcs": 3},
            "agent.outer.epohcs: unknown key where agent.outer.update is ppo (nearest: epochs)",
        ),
        ({"epochs": 3}, "agent.outer.epochs: unknown key where agent.outer.update is trpo"),
        (
            {"update": "reptile", "optimizer": "adma"},
            "agent.outer.optimizer: expected one of sgd, adam",
        ),
        ({"update": "adam", "lr": "fast"}, "agent.outer.lr: expected number, got 'fast'"),
        ({"update": "adam", "lr": -1}, "agent.outer.lr: expected more than 0"),
        (
            {"update": "ppo", "kl_target": 0.1},
            "agent.outer.kl_weight: expected more than 0, as it adapts",
        ),
        (3, "agent.outer: expected keys with values, got 3"),
        ("ppo", "agent.outer: expected keys with values, got 'ppo'"),
        (None, "agent.outer: expected keys with values, got None"),
    ],
)
def test_a_bad_outer_update_is_refused_by_name(tmp_path, outer, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"env": {"family": "point_nav"}, "agent": {"outer": outer}}))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert f"mine.yaml: {expected}" in str(error.value)


@pytest.mark.parametrize("update", [["ppo"], {"ppo": 1}])
def test_an_outer_update_that_is_no_name_is_refused(update):
    with pytest.raises(ConfigError, match=r"agent.outer.update: expected one of trpo"):
        load_config("point_nav/maml_trpo", **{"agent.outer.update": update})


# --- parts that make no sense together ---


def refusal(**values) -> str:
    """Why a config is refused."""
    with pytest.raises(ConfigError) as error:
        load_config("point_nav/maml_trpo", **values)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("agent.inner.lr", 0.0, "expected more than 0"),
        ("agent.inner.context_dim", 0, "expected between 1 and 1000"),
        ("agent.inner.dice_decay", 1.5, "expected between 0 and 1"),
        ("agent.inner.dice_decay", -0.1, "expected between 0 and 1"),
        ("agent.inner.emaml_weight", -1.0, "expected at least 0"),
        ("agent.inner.pre_adaptation_weight", -1.0, "expected at least 0"),
        ("agent.inner.loss_scaled_lr", -0.1, "expected at least 0"),
        ("inner_steps", -1, "expected between 0 and 1000"),
        ("agent.inner.adapts", "heads", "(nearest: head)"),
        ("agent.inner.rule", "meta-sgd", "(nearest: meta_sgd)"),
    ],
)
def test_bad_settings_of_the_inner_loop_are_refused(key, value, expected):
    assert expected in refusal(**{key: value})


@pytest.mark.parametrize("rule", ["meta_sgd", "lslr", "meta_lstm"])
def test_only_a_fixed_step_size_has_a_slope(rule):
    message = refusal(**{"agent.inner.rule": rule, "agent.inner.loss_scaled_lr": 0.1})
    assert f"loss-scaled-lr: expected 0 with rule {rule}: only the step size of sgd" in message


def test_gates_are_shares():
    message = refusal(**{"agent.inner.rule": "meta_lstm", "agent.inner.lr": 1.0})
    assert "less than 1, as the gates of meta_lstm are shares, got 1.0" in message
    assert load_config("point_nav/maml_trpo", **{"agent.inner.lr": 1.0}).agent.inner.lr == 1.0
    assert InnerConfig(rule="meta_lstm", lr=0.999).lr == 0.999


@pytest.mark.parametrize("surrogate", ["dice", "loaded_dice"])
def test_dice_needs_second_derivatives(surrogate):
    message = refusal(**{"agent.inner.surrogate": surrogate, "agent.inner.first_order": True})
    assert "likelihood_ratio or log_likelihood with first_order" in message
    assert f"all that dice is for, got '{surrogate}'" in message
    assert InnerConfig(surrogate=surrogate).surrogate == surrogate
    assert InnerConfig(surrogate="log_likelihood", first_order=True).first_order


def test_a_scale_has_a_number_for_each_of_an_observation():
    message = refusal(**{"agent.policy.obs_scale": [1.0, 2.0, 3.0]})
    expected = "one number for each of the 2 of an observation, or none, got (1.0, 2.0, 3.0)"
    assert message == f"--agent.policy.obs-scale: expected {expected}"
    values = {"agent.policy.obs_scale": [1.0, 2.0]}
    assert load_config("point_nav/maml_trpo", **values).agent.policy.obs_scale == (1.0, 2.0)
    values = {"agent.policy.obs_scale": [1.0, 2.0, 3.0, 4.0], "env.observe_task": True}
    assert load_config("point_nav/maml_trpo", **values).agent.policy.obs_scale == (
        1.0,
        2.0,
        3.0,
        4.0,
    )


def test_a_head_needs_a_body():
    message = refusal(**{"agent.inner.adapts": "head", "agent.policy.hidden": []})
    assert "agent.inner.adapts: head makes no sense here: policy.hidden is []" in message
    values = {"agent.inner.adapts": "context", "agent.policy.hidden": []}
    assert load_config("point_nav/maml_trpo", **values).agent.policy.hidden == ()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("agent.inner.adapts", "head", "; expected all"),
        ("agent.inner.adapts", "context", "; expected all"),
        ("agent.inner.rule", "meta_sgd", "; expected sgd"),
        ("agent.inner.emaml_weight", 1.0, "; expected 0.0"),
        ("agent.inner.pre_adaptation_weight", 1.0, "; expected 0.0"),
        ("agent.inner.first_order", True, "; expected False"),
        ("agent.inner.surrogate", "dice", ", and the second derivatives are all that dice is for"),
        (
            "agent.inner.surrogate",
            "loaded_dice",
            ", and the second derivatives are all that dice is for",
        ),
    ],
)
def test_reptile_differentiates_nothing(key, value, reason):
    values = {key: value, **needed(key)}
    message = refusal(**{"agent.outer.update": "reptile", **values})
    expected = f"{value} makes no sense here: outer.update reptile differentiates nothing through"
    assert expected in message
    assert message.endswith(reason)
    assert load_config("point_nav/maml_trpo", **{**values, "agent.outer.update": "ppo"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agent.inner.rule", "meta_sgd"),
        ("agent.inner.rule", "meta_lstm"),
        ("agent.inner.emaml_weight", 1.0),
        ("agent.inner.pre_adaptation_weight", 1.0),
        ("agent.inner.adapts", "context"),
        ("agent.inner.adapts", "latent"),
    ],
)
def test_without_adaptation_there_is_nothing_to_learn_it_from(key, value):
    values = {key: value, **needed(key)}
    message = refusal(**{"inner_steps": 0, **values})
    assert (
        f"{value} makes no sense here: with 0 adaptation steps no adaptation takes place" in message
    )
    assert load_config("point_nav/maml_trpo", **values).sampling.adaptation_steps == 1


def needed(key: str) -> dict[str, str]:
    """What else a value of the key asks for."""
    return {"agent.inner.surrogate": "log_likelihood"} if key == "agent.inner.emaml_weight" else {}


@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "dice", "loaded_dice"])
def test_the_exploration_credit_is_not_counted_twice(surrogate):
    message = refusal(**{"agent.inner.emaml_weight": 1.0, "agent.inner.surrogate": surrogate})
    assert "surrogate: expected log_likelihood with emaml_weight" in message


def test_one_task_cannot_be_compared_with_others():
    message = refusal(
        **{
            "agent.inner.emaml_weight": 1.0,
            "agent.inner.surrogate": "log_likelihood",
            "num_tasks": 1,
        }
    )
    assert message.endswith("num_tasks is 1, and it compares the tasks of a meta-batch")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        (
            "half_cheetah_dir/maml_trpo",
            {"sampling.sequence": 3},
            "--sampling.sequence: expected at most 2, the number of all tasks of half_cheetah_dir, "
            "as its tasks differ, got 3",
        ),
        (
            "point_nav/maml_trpo",
            {"sampling.sequence": 6, "sampling.train_tasks": 5},
            "--sampling.sequence: expected at most 5, the number of sampling.train_tasks, as its "
            "tasks differ, got 6",
        ),
        (
            "point_nav/maml_trpo",
            {"sampling.sequence": 101},
            "--sampling.sequence: expected between 1 and 100, got 101",
        ),
        (
            "point_nav/pretrained",
            {"sampling.sequence": 2},
            "--sampling.sequence: expected 1 with sampling.adaptation_steps 0, which adapts to no "
            "task, got 2",
        ),
        *(
            (
                f"{family}/{kind}",
                {"sampling.sequence": 2},
                f"--sampling.sequence: expected 1 with agent.kind {kind}, which learns from one "
                "task at a time, got 2",
            )
            for family, kind in (("point_nav", "pearl"), ("gridworld", "varibad"))
        ),
        (
            "point_nav/robust_maml",
            {"sampling.sequence": 2},
            "sampling.risk.alpha: expected 1 with sequences, got 0.2",
        ),
        (
            "point_nav/reptile",
            {"sampling.sequence": 2},
            "agent.outer.update: reptile makes no sense here: sampling.sequence is 2, and reptile "
            "measures no return",
        ),
        (
            "point_nav/maml_trpo",
            {"agent.inner.retention_weight": 2},
            "--agent.inner.retention-weight: 2.0 makes no sense here: sampling.sequence is 1, so "
            "that no task is met before another one",
        ),
    ],
)
def test_sequences_that_cannot_be_trained_on_are_refused(name, values, expected):
    with pytest.raises(ConfigError) as error:
        load_config(name, **values)
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("point_nav/maml_trpo", {}, "point_nav, whose tasks are no parameters of dynamics"),
        (
            "half_cheetah_body/maml_trpo",
            {"inner_steps": 0},
            "sampling.adaptation_steps 0, which adapts to no task",
        ),
        (
            "walker_params/maml_trpo",
            {"sampling.sequence": 2},
            "sampling.sequence above 1, whose tasks come back unchanged",
        ),
        (
            "walker_params/maml_trpo",
            {"sampling.train_tasks": 100},
            "sampling.train_tasks, which would drift to other tasks",
        ),
        (
            "walker_params/maml_trpo",
            {"sampling.risk.alpha": 0.5, "sampling.risk.oversampling": 0.5},
            "sampling.risk.oversampling, whose tasks stay the same",
        ),
    ],
)
def test_a_drift_that_makes_no_sense_is_refused(name, values, reason):
    with pytest.raises(ConfigError) as error:
        load_config(name, **{"sampling.drift": 0.1, **values})
    assert str(error.value) == f"--sampling.drift: expected 0 with {reason}, got 0.1"


def test_an_agent_that_learns_from_one_task_at_a_time_refuses_a_drift():
    values = {"env": {"family": "half_cheetah_body"}, "agent": {"kind": "varibad"}}
    with pytest.raises(ConfigError, match=r"0 with agent\.kind varibad, which learns"):
        make_config({**values, "sampling": {"drift": 0.1}}, "test", {})
    for drift in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="expected between 0 and 1"):
            load_config("half_cheetah_body/maml_trpo", **{"sampling.drift": drift})


def test_the_longest_sequence_of_a_finite_set():
    values = {"sampling.sequence": 2, "agent.inner.retention_weight": 2}
    config = load_config("half_cheetah_dir/maml_trpo", **values)
    assert (config.sampling.sequence, config.agent.inner.retention_weight) == (2, 2.0)


def test_without_adaptation_there_is_no_policy_before_it():
    values = {"agent.outer.update": "ppo", "agent.outer.inner_kl_weight": 0.1}
    message = refusal(inner_steps=0, **values)
    expected = "--agent.outer.inner-kl-weight: 0.1 makes no sense here: there is no policy before"
    assert expected in message
    assert load_config("point_nav/maml_trpo", **values).agent.outer.inner_kl_weight == 0.1
    values = {"inner_steps": 0, "agent.inner.adapts": "head"}
    assert load_config("point_nav/maml_trpo", **values).sampling.adaptation_steps == 0, (
        "to fine-tune the head"
    )


# --- the oracle ---


def test_observe_task_wraps_the_family(tmp_path):
    """By YAML and by override, kept by a round trip; false is as if it were not there."""
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav, horizon: 7, observe_task: true}\n")
    config = load_config(path)
    assert config.env == TaskObserved(PointNav(horizon=7))
    assert make_config(yaml.safe_load(config.to_yaml()), "resolved", {}) == config
    assert "observe_task: true" in config.to_yaml()
    plain = load_config("point_nav/maml_trpo")
    for value, env in ((True, TaskObserved(plain.env)), (False, plain.env)):
        assert load_config("point_nav/maml_trpo", **{"env.observe_task": value}).env == env
    assert load_config("point_nav/oracle", **{"env.observe_task": False}).env == plain.env
    with pytest.raises(ConfigError, match=r"env\.observe_task: expected true or false, got 1"):
        make_config({"env": {"family": "point_nav", "observe_task": 1}}, "test", {})


@pytest.mark.parametrize("name", [name for name in config_names() if "/oracle" in name])
def test_an_oracles_agent_sees_the_task(name):
    values = {"agent.policy.hidden": [4], "agent.running_observations": False}
    config = load_config(name, **values)
    assert isinstance(config.env, TaskObserved)
    family = config.env.family
    inputs = family.observation_space.shape[0] + family.task_space.shape[0]
    assert config.make_agent().meta["weight0"].shape == (inputs, 4)


def test_a_discrete_family_makes_a_categorical_agent():
    data = {"env": {"family": "tabular_mdp", "num_states": 3, "num_actions": 4}}
    config = make_config(data, "test", {"agent.policy.hidden": [5]})
    assert config.env == TabularMDP(num_states=3, num_actions=4)
    agent = config.make_agent()
    assert agent.policy.sizes == (3, 5, 4)
    assert "log_std" not in agent.meta


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "env: {family: point_nav}\nagent: {inner: {lrr: 1}}",
            "agent.inner.lrr: unknown key (nearest: lr)",
        ),
        ("env: {family: point_nav, 3: 4}", "env.3: expected a key that is text"),
        (
            "env: {family: }",
            "env.family: expected the name of a task family (metarl list families), got None",
        ),
        (
            "env: [point_nav]",
            "env.family: expected the name of a task family (metarl list families), got ['point_",
        ),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_key(tmp_path, text, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"mine.yaml: {expected}")):
        load_config(path)


def test_fields_of_a_family_that_is_given_by_its_name_can_be_replaced(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: point_nav\n")
    assert load_config(path, **{"env.horizon": 3}).env == PointNav(horizon=3)


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [1\n", "", "agent: {inner: 3}\nenv: {family: point_nav}"]
)
def test_files_that_are_not_configs_are_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_config(path)


def test_a_section_that_is_none_is_refused_also_where_a_key_of_it_is_replaced(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav}\nagent: {inner: 3}\n")
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: agent\.inner: expected keys with values, got 3"
    ):
        load_config(path, **{"agent.inner.lr": 0.1})


# --- the kind of agent ---


def test_an_agent_without_a_kind_is_of_the_first_one():
    assert make_config({"env": {"family": "point_nav"}}, "test", {}).agent == MAMLConfig()


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (
            {"kind": "mamml"},
            "agent.kind: expected one of maml, rl2, varibad, pearl, or your own as package",
        ),
        ({"kind": "mamml"}, "got 'mamml' (nearest: maml)"),
        ({"kind": 3}, "agent.kind: expected the name of a kind of agent, got 3"),
        ({"kind": "no.such:Agent"}, "agent.kind: cannot import 'no.such:Agent': No module named"),
        (
            {"kind": "metarl.config:Config"},
            "agent.kind: metarl.config:Config is not a subclass of metarl.agents.AgentConfig",
        ),
        (
            {"kind": "metarl.agents:AgentConfig"},
            "agent.kind: metarl.agents:AgentConfig does not define make",
        ),
        ({"iner": {}}, "agent.iner: unknown key where agent.kind is maml (nearest: inner)"),
        ("maml", "agent: expected keys with values, got 'maml'"),
    ],
)
def test_a_bad_kind_of_agent_is_refused_by_name(agent, expected):
    with pytest.raises(ConfigError) as error:
        make_config({"env": {"family": "point_nav"}, "agent": agent}, "test", {})
    assert str(error.value).startswith("test: agent")
    assert expected in str(error.value)


def test_only_meta_parameters_may_be_averaged():
    """Not the state of the outer update."""
    config = load_config("point_nav/maml_trpo", **{"agent.outer.update": "adam"})
    names = config.make_agent().state_dict().keys()
    averaged = {name for name in names if config.agent.may_average(name)}
    assert averaged == {name for name in names if not name.startswith("outer.")}
    assert averaged < names


# --- names of keys ---


def test_short_names_stand_for_keys_of_the_sampling():
    short = {"num_tasks": 3, "num_episodes": 4, "inner_steps": 2}
    paths = dict(zip(("num_tasks", "num_episodes", "adaptation_steps"), (3, 4, 2), strict=True))
    long = {f"sampling.{name}": value for name, value in paths.items()}
    assert load_config("point_nav/maml_trpo", **short) == load_config("point_nav/maml_trpo", **long)
    assert refusal(inner_steps=-1).startswith("--inner-steps: expected")
    assert refusal(**{"sampling.adaptation_steps": -1}).startswith("--sampling.adaptation-steps: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("policy.hidden", "agent.policy.hidden"),
        ("inner.lr_slope", "agent.inner.loss_scaled_lr"),
        ("outer", "agent.outer"),
        ("tasks_per_chunk", "agent.tasks_per_microbatch"),
    ],
)
def test_keys_of_earlier_versions_are_refused_by_their_new_names(tmp_path, old, new):
    data: dict = {"env": {"family": "point_nav"}}
    section, _, key = old.partition(".")
    data[section] = {key: 1} if key else 1
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=rf"mine\.yaml: {old}: has moved to {new}$"):
        load_config(path)
    flags = (f"--{name.replace('_', '-')}" for name in (old, new))
    assert refusal(**{old: 1}) == "{}: has moved to {}".format(*flags)


def test_a_file_has_no_short_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {family: point_nav}\nnum_tasks: 3\n")
    with pytest.raises(ConfigError, match=r"num_tasks: has moved to sampling\.num_tasks"):
        load_config(path)


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(ConfigError, match="nearest: half_cheetah_vel/maml_trpo"):
        load_config("half_cheetah_vel/maml_trop")


def test_threads_default_to_the_cores():
    config = load_config("point_nav/maml_trpo")
    assert config.num_threads == available_cores()
    assert load_config("point_nav/maml_trpo", threads=3).num_threads == 3


# --- values from Python ---


def test_a_config_from_nested_and_dotted_values():
    nested = {"env": {"family": "point_nav", "horizon": 7}, "agent": {"inner": {"lr": 0.3}}}
    config = load_config(nested, seed=3, **{"agent.inner.rule": "meta_sgd"})
    assert (config.env.horizon, config.seed, config.method) == (7, 3, "unnamed")
    assert (config.agent.inner.lr, config.agent.inner.rule) == (0.3, "meta_sgd")
    dotted = {
        "env": "point_nav",
        "env.horizon": 7,
        "agent.inner": {"rule": "meta_sgd"},
        "agent.inner.lr": 0.3,
        "seed": 3,
    }
    assert load_config(dotted) == config
    assert load_config(config.to_dict()) == config
    assert load_config({"env": "point_nav", "num_tasks": 4}).sampling.num_tasks == 4
    own = Config(env="point_nav", iterations=5, agent={"kind": "rl2"})
    assert (own.env, own.agent.kind) == (PointNav(), "rl2")


def test_replace_says_what_takes_dotted_keys():
    config = load_config("point_nav/maml_trpo")
    changes = {"agent.inner.lr": 0.2}
    message = (
        r"^agent.inner.lr: expected agent, a section; metarl.load_config\(config, \*\*changes\)"
    )
    with pytest.raises(ConfigError, match=message):
        config.replace(**changes)
    assert load_config(config, **changes).agent.inner.lr == 0.2


def test_values_replace_those_of_a_base():
    base = load_config("point_nav/cavia", **{"env.horizon": 30})
    found = load_config({"agent": {"inner": {"lr": 0.25}}}, base=base)
    assert found == load_config("point_nav/cavia", **{"env.horizon": 30, "agent.inner.lr": 0.25})
    other = load_config({"env": "half_cheetah_vel", "method": "mine"}, base="point_nav/cavia")
    assert other.env == FAMILIES["half_cheetah_vel"]()
    assert (other.method, other.agent) == ("mine", load_config("point_nav/cavia").agent)
    assert base.env.horizon == 30
    assert load_config(base) == base
    assert load_config(base, num_tasks=4).sampling.num_tasks == 4


@pytest.mark.parametrize(
    "values",
    [
        {"agent": {"kind": "rl2", "update": {"lr": 0.5}}},
        {"agent": {"kind": "rl2"}, "agent.update.lr": 0.5},
        {"agent.update.lr": 0.5, "agent.kind": "rl2"},
        {"agent.update.lr": 0.5, "agent": {"kind": "rl2"}},
    ],
)
def test_a_section_of_another_kind_replaces_that_of_the_base(values):
    found = load_config(values, base="point_nav/maml_trpo_tuned")
    assert found.agent == RL2Config(update={"lr": 0.5})
    assert found.sampling == load_config("point_nav/maml_trpo_tuned").sampling
    outer = load_config({"agent": {"outer": {"update": "ppo"}}}, base="point_nav/maml_trpo_tuned")
    assert outer.agent.outer.update == "ppo"
    assert outer.agent.inner == load_config("point_nav/maml_trpo_tuned").agent.inner


@pytest.mark.parametrize("given", [{"update": {"lr": 0.5}}, {"kind": "rl2", "update": {"lr": 0.5}}])
def test_a_section_without_its_kind_keeps_that_of_the_config(given):
    expected = load_config("point_nav/rl2", **{"agent.update.lr": 0.5})
    assert load_config("point_nav/rl2", agent=given) == expected
    assert load_config({"agent": given}, base="point_nav/rl2") == expected


@pytest.mark.parametrize(
    ("values", "base", "expected"),
    [
        ({}, None, "config: env: missing"),
        ({"env": "point_nv"}, None, r"config: env\.family: unknown .*\(nearest: point_nav\)"),
        (
            {"agent.inner.lrr": 1},
            "point_nav/cavia",
            r"inner\.lrr: unknown key \(nearest: lr",
        ),
        ({"agent": {"inner": 3}}, "point_nav/cavia", r"agent\.inner: expected keys"),
        ({3: 4}, "point_nav/cavia", "config: 3: expected a key that is text"),
        ({"seed": 1}, "point_nav/cavai", r"no such config \(nearest: point_nav/cavia\)"),
        ("point_nav/cavia", "point_nav/cavia", "base: goes with values by key"),
        ({"seed": 1}, {"env": "point_nav"}, "base: expected a config, its name, a file, or None"),
        ({"base": "point_nav/cavia"}, None, "config: base: a file has none; change values of a"),
    ],
)
def test_wrong_values_are_refused_by_name(values, base, expected):
    with pytest.raises(ConfigError, match=expected) as error:
        load_config(values, base=base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "own.yaml: expected keys with values, got an empty file"),
        ("env:\n  familly: point_nav\n", r"env\.family: expected .* \(.*\), got the key familly$"),
    ],
)
def test_a_file_of_a_beginner_is_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_run_in_place_of_a_config_is_told(tmp_path):
    """Also by the commands that take several configs."""
    config = tmp_path / "config.yaml"
    config.write_text(load_config("point_nav/maml_trpo").to_yaml())
    expected = f"{tmp_path}: is a run, not a config; its config is {config}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        load_config(tmp_path)


def test_a_section_as_a_whole_keeps_the_values_that_it_does_not_name():
    """E-MAML with another step size is still E-MAML."""
    config = load_config("point_nav/emaml", **{"agent.inner": {"lr": 0.4}})
    assert config == load_config("point_nav/emaml", **{"agent.inner.lr": 0.4})
    assert config.agent.inner.emaml_weight == 1
    config = load_config("point_nav/emaml", agent={"inner": {"lr": 0.4}, "outer": {"max_kl": 0.02}})
    assert config.agent.inner.emaml_weight == 1
    assert config.agent.outer.max_kl == 0.02
    again = load_config(config, **{"agent.inner": {"lr": 0.3}})
    assert again == load_config(config, **{"agent.inner.lr": 0.3})


def test_a_section_of_another_kind_is_replaced():
    config = load_config("point_nav/emaml", agent={"kind": "rl2"})
    assert config.agent == agent_config_class("rl2")()
    config = load_config("point_nav/maml_trpo", **{"agent.outer": {"update": "ppo"}})
    assert config.agent.outer.update == "ppo"


def test_mappings_that_are_no_sections_are_replaced():
    data = {"env": {"family": "gymnasium", "env_id": "Pendulum-v1", "parameters": {"g": [1, 2]}}}
    config = load_config(data, **{"env.parameters": {"l": [0.5, 1.5]}})
    assert config.env.parameters == {"l": (0.5, 1.5)}


def test_an_unknown_key_in_a_section_names_the_flag_and_the_key():
    with pytest.raises(ConfigError, match=r"^--agent\.inner: lrr: unknown key \(nearest: lr\)$"):
        load_config("point_nav/emaml", **{"agent.inner": {"lrr": 0.4}})
