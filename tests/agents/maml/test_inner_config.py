"""metarl.agents.maml.inner_config: the inner loop of a config."""

import re
import sys
from types import ModuleType

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


@pytest.fixture
def own_rules(monkeypatch):
    """A module `own_rules`, in which tests put update rules."""
    module = ModuleType("own_rules")
    monkeypatch.setitem(sys.modules, "own_rules", module)
    return module


class Static:
    """A rule that is usable, though its methods have no `self`."""

    def __init__(self, lr, momentum=0.9):
        pass

    @staticmethod
    def init(fast_params):
        return {}

    @classmethod
    def step(cls, *arguments):
        return arguments[1:3]


class WithoutStep:
    def __init__(self, lr):
        pass

    def init(self, fast_params):
        return {}


class WithoutStepSize(Static):
    def __init__(self):
        pass


class EmptyInit(Static):
    def init(self):
        return {}


class ShortStep(Static):
    def step(self, meta, fast_params, gradient):
        return fast_params, {}


ARGUMENTS = "self, meta, fast_params, optimizer_state, gradient, loss, index"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (WithoutStep, "own_rules:Mine is no rule: it has no step;"),
        (WithoutStepSize, "own_rules:Mine takes (), expected (lr);"),
        (EmptyInit, "own_rules:Mine.init takes (self), expected (self, fast_params);"),
        (
            ShortStep,
            "own_rules:Mine.step takes (self, meta, fast_params, gradient), "
            f"expected ({ARGUMENTS});",
        ),
    ],
)
def test_a_rule_that_cannot_be_called_is_refused(rule, expected, own_rules):
    own_rules.Mine = rule
    with pytest.raises(ConfigError, match=re.escape(f"rule: {expected} see docs/extending.md")):
        InnerConfig(rule="own_rules:Mine")


def test_a_rule_of_the_user(own_rules):
    own_rules.Mine = Static
    assert type(make_rule(InnerConfig(rule="own_rules:Mine"), 1)) is Static


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
    sizes = {"context": {"context_dim": 3}, "latent": {"latent_dim": 4}}
    config = InnerConfig(adapts=name, **sizes.get(name, {}))
    found = make_task_parameters(config, tiny_policy)
    assert type(found) is type(expected)
    assert vars(found) == vars(expected)


def test_a_size_of_what_does_not_adapt_is_refused():
    with pytest.raises(
        ConfigError, match=r"^context_dim: expected 8 with adapts latent, which has"
    ):
        InnerConfig(adapts="latent", context_dim=3)
    with pytest.raises(ConfigError, match=r"^latent_dim: expected 8 with adapts all, .* got 3$"):
        InnerConfig(latent_dim=3)


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
