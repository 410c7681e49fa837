"""metarl.agents.maml.inner_config: the inner loop of a config."""

import pytest

from metarl.agents.maml.inner_config import (
    InnerConfig,
    make_inner_loop,
    make_rule,
    make_task_parameters,
)
from metarl.agents.maml.task_parameters import AllParameters, Context, Head, Latent
from metarl.agents.maml.update_rules import SGD, MetaLSTM, MetaSGD, PerLayerPerStepLR
from metarl.core.errors import ConfigError
from metarl.core.policies import CategoricalMLP, PolicyConfig


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", SGD(0.3)),
        ("meta_sgd", MetaSGD(0.3)),
        ("lslr", PerLayerPerStepLR(0.3, 4)),
        ("meta_lstm", MetaLSTM(0.3)),
    ],
)
def test_the_rule_of_a_config(name, expected):
    rule = make_rule(InnerConfig(rule=name, lr=0.3), 4)
    assert type(rule) is type(expected)
    assert vars(rule) == vars(expected)


def test_the_step_size_of_sgd_may_grow_with_the_loss():
    rule = make_rule(InnerConfig(lr=0.3, loss_scaled_lr=0.2), 4)
    assert type(rule) is SGD
    assert vars(rule) == {"lr": 0.3, "loss_scaled_lr": 0.2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all", AllParameters()),
        ("head", Head(("weight1", "bias1", "log_std"))),
        ("context", Context(3)),
        ("latent", Latent(4)),
    ],
)
def test_the_task_parameters_of_a_config(name, expected, tiny_policy):
    config = InnerConfig(adapts=name, context_dim=3, latent_dim=4)
    found = make_task_parameters(config, tiny_policy)
    assert type(found) is type(expected)
    assert vars(found) == vars(expected)


def test_the_head_of_a_discrete_policy_is_its_last_layer():
    policy = CategoricalMLP(PolicyConfig(hidden=(4, 4)), 3, 2)
    assert make_task_parameters(InnerConfig(adapts="head"), policy).names == ("weight2", "bias2")


@pytest.mark.parametrize("first_order", [False, True])
def test_the_loop_of_a_config(first_order, tiny_policy):
    inner = InnerConfig(adapts="latent", rule="meta_sgd", lr=0.2, first_order=first_order)
    loop = make_inner_loop(inner, tiny_policy, 2)
    assert isinstance(loop.task_parameters, Latent)
    assert isinstance(loop.rule, MetaSGD)
    assert loop.first_order == first_order


@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "log_likelihood", "dice"])
def test_only_loaded_dice_has_a_decay(surrogate):
    expected = f"^dice_decay: expected 1 with surrogate {surrogate}: only loaded_dice has a decay, "
    with pytest.raises(ConfigError, match=f"{expected}got 0.9$"):
        InnerConfig(surrogate=surrogate, dice_decay=0.9)
    assert InnerConfig(surrogate="loaded_dice", dice_decay=0.9).dice_decay == 0.9
