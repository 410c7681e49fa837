"""The settings of the inner loop, and the inner loop that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metarl.agents.maml.inner_loop import (
    SGD,
    AllParameters,
    Context,
    Head,
    InnerLoop,
    Latent,
    LayerStepSizes,
    MetaLSTM,
    MetaSGD,
)
from metarl.agents.maml.surrogates import EPISODIC
from metarl.agents.maml.task_parameters import Space
from metarl.agents.maml.update_rules import Rule
from metarl.core.errors import ConfigError, check, nearest
from metarl.core.policies import MLPPolicy
from metarl.envs.registry import import_object

RULES = ("sgd", "meta_sgd", "layer_step_sizes", "meta_lstm")


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop: how a task's policy follows from the meta-parameters and its episodes."""

    adapts: Literal["all", "head", "context", "latent"] = "all"
    """What adapts: all parameters (MAML), the last layer (ANIL), a context vector that is an input
    of the policy (CAVIA), or a latent code that is decoded to parameters (LEO)."""
    rule: str = "sgd"
    """How it adapts: sgd (gradient descent), meta_sgd (with a learned step size per parameter),
    layer_step_sizes (per layer and step), meta_lstm (a learned rule with gates), or a rule of your
    own as package.module:Class."""
    lr: float = 0.1
    """Step size of the gradient steps; the initial one, where it is learned."""
    lr_slope: float = 0.0
    """How much the step size of sgd grows with a task's loss, minus the mean reward of a step. The
    gradient of a distance to a goal does not tell how far the goal is; the loss does."""
    code_size: int = 8
    """Size of the context vector or the latent code."""
    surrogate: Literal["likelihood_ratio", "log_likelihood", "dice", "loaded_dice"] = (
        "likelihood_ratio"
    )
    """The loss whose gradient adapts. All adapt alike; they differ in the meta-gradient.
    `log_likelihood` is that of the first implementations; it loses the credit of the pre-adaptation
    policy when the meta-gradient passes through it."""
    dice_decay: float = 1.0
    """Of `loaded_dice`: below 1, less variance for some bias."""
    exploration: float = 0.0
    """Weight of E-MAML's term, which makes pre-adaptation data more likely that led to good
    policies. It belongs to `log_likelihood`: the others have that credit already. The weight that
    leaves no bias is far above 1, and noisy (docs/estimators.md)."""
    start_weight: float = 0.0
    """Weight, in the meta-objective, of the return before each adaptation step: 1 for as much as
    that of the return after adaptation."""
    first_order: bool = False
    """Whether the meta-gradient treats the inner gradients as constants (FOMAML)."""

    def __post_init__(self) -> None:
        if ":" in self.rule:
            own_rule(self.rule)
        elif self.rule not in RULES:
            expected = ", ".join((*RULES, "or your own as package.module:Class"))
            check(False, "rule", f"{expected}{nearest(self.rule, RULES)}", self.rule)
        check(self.lr > 0, "lr", "more than 0", self.lr)
        check(self.lr_slope >= 0, "lr_slope", "at least 0", self.lr_slope)
        expected = f"0 with rule {self.rule}: only the step size of sgd has a slope"
        check(not self.lr_slope or self.rule == "sgd", "lr_slope", expected, self.lr_slope)
        check(self.code_size >= 1, "code_size", "at least 1", self.code_size)
        check(self.code_size <= 1000, "code_size", "at most 1000", self.code_size)
        check(0 <= self.dice_decay <= 1, "dice_decay", "between 0 and 1", self.dice_decay)
        check(self.exploration >= 0, "exploration", "at least 0", self.exploration)
        check(self.start_weight >= 0, "start_weight", "at least 0", self.start_weight)
        check(
            self.rule != "meta_lstm" or self.lr < 1,
            "lr",
            "less than 1, as the gates of meta_lstm are shares",
            self.lr,
        )
        check(
            not self.exploration or self.surrogate == "log_likelihood",
            "surrogate",
            "log_likelihood with exploration, as the others have that credit already",
            self.surrogate,
        )
        check(
            not (self.first_order and self.surrogate in EPISODIC),
            "surrogate",
            "likelihood_ratio or log_likelihood with first_order, as the second derivatives are "
            "all that dice is for",
            self.surrogate,
        )


def own_rule(name: str) -> Callable[[float], Rule]:
    """Return a user's own rule, a class that is called with the step size.

    Raises:
        ConfigError: if it cannot be imported, or is no rule.
    """
    try:
        cls = import_object(name)
    except ValueError as error:
        raise ConfigError(f"rule: {error}") from error
    missing = [method for method in ("init", "step") if not hasattr(cls, method)]
    if missing:
        raise ConfigError(f"rule: {name} is no rule: it has no {missing[0]}; see docs/extending.md")
    return cls


def make_rule(config: InnerConfig, num_steps: int) -> Rule:
    """Make the rule of a config, for `num_steps` steps in training."""
    match config.rule:
        case "sgd":
            return SGD(config.lr, config.lr_slope)
        case "meta_sgd":
            return MetaSGD(config.lr)
        case "layer_step_sizes":
            return LayerStepSizes(config.lr, num_steps)
        case "meta_lstm":
            return MetaLSTM(config.lr)
        case own:
            return own_rule(own)(config.lr)


def make_space(config: InnerConfig, policy: MLPPolicy) -> Space:
    """Make what adapts, for a policy."""
    match config.adapts:
        case "all":
            return AllParameters()
        case "head":
            return Head(policy.head)
        case "context":
            return Context(config.code_size)
        case "latent":
            return Latent(config.code_size)


def make_inner_loop(config: InnerConfig, policy: MLPPolicy, num_steps: int) -> InnerLoop:
    """Make the inner loop of a config."""
    rule, space = make_rule(config, num_steps), make_space(config, policy)
    return InnerLoop(rule, space, first_order=config.first_order)
