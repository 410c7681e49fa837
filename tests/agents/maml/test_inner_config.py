"""metarl.agents.maml.inner_config: the inner loop of a config."""

import re
import sys
from types import ModuleType

import pytest
import torch

from metarl.adaptation import InnerLoop, batched, leaves, parameters
from metarl.agents.maml.inner_config import (
    InnerConfig,
    make_inner_loop,
    make_rule,
    make_task_parameters,
)
from metarl.agents.maml.task_parameters import AllParameters, Context, Head, Latent
from metarl.agents.maml.update_rules import SGD, MetaLSTM, MetaSGD, PerLayerPerStepLR
from metarl.core.errors import ConfigError, UserError
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [("own_rules:Mine", "is no class"), ("metarl.adaptation:UpdateRule", "is the interface of")],
)
def test_a_rule_is_a_class_of_ones_own(name, expected, own_rules):
    own_rules.Mine = SGD(0.1)
    with pytest.raises(ConfigError, match=f"rule: {name} {expected}"):
        InnerConfig(rule=name)


def returned(stepped):
    """An update rule whose steps return a function of the stepped parameters."""

    class Mine(SGD):
        def step(self, *arguments):
            return stepped(super().step(*arguments)[0])

    return Mine(0.1)


@pytest.mark.parametrize(
    ("stepped", "expected"),
    [
        (lambda new: new, r"step: expected the new fast parameters and the new .*, got \{"),
        (lambda new: ({}, {}), "step: expected new values of bias, weight, got those of none"),
        (
            lambda new: ({name: value.mean(0) for name, value in new.items()}, {}),
            r"step: expected weight of shape \(3, 1, 2\), where the first .*, got \(1, 2\)",
        ),
        (
            lambda new: ({name: value.detach() for name, value in new.items()}, {}),
            "step: expected results with derivatives, got detached ones",
        ),
    ],
)
def test_what_a_rule_of_the_user_returns_is_checked(stepped, expected):
    module = torch.nn.Linear(2, 1)
    loop = InnerLoop(returned(stepped))
    meta = leaves(loop.init(parameters(module)))
    forward, x = batched(module), torch.ones(3, 5, 2)
    losses = [lambda params: forward(params, x).square().mean((1, 2))] * 2
    with pytest.raises(UserError, match=f"^the update rule Mine: {expected}"):
        loop.adapt(meta, losses, 3, differentiable=True)


def test_the_parameters_that_a_rule_of_the_user_begins_with_are_checked():
    rule = SGD(0.1)
    rule.init = lambda fast_params: None
    with pytest.raises(UserError, match="the update rule SGD: init: expected a dict, got None"):
        InnerLoop(rule).init(parameters(torch.nn.Linear(2, 1)))
    rule.init = lambda fast_params: {"lr:all": 0.1}
    with pytest.raises(UserError, match=r"SGD: init: expected tensors, got lr:all: 0\.1"):
        InnerLoop(rule).init(parameters(torch.nn.Linear(2, 1)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: PerLayerPerStepLR(0.1, 0), "num_steps: expected at least 1, got 0"),
        (lambda: MetaLSTM(1.0), "lr: expected between 0 and 1, as it is the value of a gate, got"),
        (lambda: Head([]), "names: expected at least one parameter, got "),
    ],
)
def test_parts_of_a_loop_that_cannot_work_are_refused(make, expected):
    with pytest.raises(ConfigError, match=expected):
        make()


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
