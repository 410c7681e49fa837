"""The settings of the inner loop, and its construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.schedules import Schedule
from metarl.agents.maml.surrogates import EPISODIC
from metarl.agents.maml.task_parameters import (
    AllParameters,
    Context,
    Head,
    Latent,
    TaskParameters,
)
from metarl.agents.maml.update_rules import SGD, MetaLSTM, MetaSGD, PerLayerPerStepLR, UpdateRule
from metarl.core.errors import ConfigError, check, check_arguments, nearest
from metarl.core.policies import MLPPolicy
from metarl.core.schema import Section
from metarl.envs.registry import import_object

RULES = ("sgd", "meta_sgd", "lslr", "meta_lstm")

NonNegative = Annotated[float, Field(ge=0)]
Dimension = Annotated[int, Field(ge=1, le=1000)]


class InnerConfig(Section):
    """The inner loop: the adaptation of the policy to a task by gradient steps on its episodes."""

    adapts: Literal["all", "head", "context", "latent", "nothing"] = "all"
    """The parameters that adapt: all (MAML), head (the last layer and the standard deviation,
    ANIL), context (a context vector that is an input of the policy, CAVIA), latent (a latent code
    that is decoded to parameters, LEO), or nothing (an agent that does not adapt, such as an
    oracle)."""
    rule: str = "sgd"
    """The update rule: sgd (gradient descent), meta_sgd (a learned step size for each parameter),
    lslr (a learned step size for each layer and step), meta_lstm (a learned rule with gates), or a
    rule of your own as package.module:Class."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Step size of the gradient steps; the initial step size where step sizes are learned."""
    loss_scaled_lr: NonNegative = 0.0
    """Increase of sgd's step size per unit of the task's loss, the negative mean reward per step.
    The gradient of a distance to a goal does not depend on the distance, but the loss does. Step
    sizes are never negative: where a mean reward exceeds lr / loss_scaled_lr, there is no step."""
    test_lr_schedule: Schedule = "halving"
    """Step sizes outside training, after as many adaptations as in training: halving (half the step
    size, as in Finn et al. 2017), geometric (half the previous step size at every adaptation) or
    constant."""
    context_dim: Dimension = 8
    """Size of the context vector."""
    latent_dim: Dimension = 8
    """Size of the latent code."""
    surrogate: Literal["likelihood_ratio", "log_likelihood", "dice", "loaded_dice"] = (
        "likelihood_ratio"
    )
    """The loss of the inner loop. All losses have the same expected gradient (`dice` with discounts
    counted from the first step of an episode, and only with `returns.gae_lambda` of 1), but
    different meta-gradients. `log_likelihood` is the loss of the first implementations of MAML; its
    meta-gradient lacks the credit of the pre-adaptation policy for the data that it collects."""
    dice_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Decay of `loaded_dice`; values below 1 reduce the variance and introduce bias."""
    emaml_weight: NonNegative = 0.0
    """Weight of E-MAML's term, which increases the probability of pre-adaptation data that led to
    high returns after adaptation. Requires `log_likelihood`; the other surrogates include this
    credit (`likelihood_ratio` only a part of it). The unbiased weight is far above 1, and its
    variance is high (docs/estimators.md)."""
    pre_adaptation_weight: NonNegative = 0.0
    """Weight of the return before each adaptation step in the meta-objective, relative to the
    return after adaptation."""
    retention_weight: NonNegative = 1.0
    """In training on sequences of tasks (`sampling.sequence`), weight of the mean return on the
    earlier tasks after the last adaptation, relative to the mean return on each task directly after
    the adaptation to it. 0 measures plasticity only."""
    first_order: bool = False
    """Whether the meta-gradient treats inner gradients as constants (FOMAML, Finn et al. 2017)."""

    @model_validator(mode="after")
    def _check(self) -> InnerConfig:
        if ":" in self.rule:
            own_rule(self.rule)
        elif self.rule not in RULES:
            known = ", ".join((*RULES, "or your own as package.module:Class"))
            check(False, "rule", f"{known}{nearest(self.rule, RULES)}", self.rule)
        wanted = f"0 with rule {self.rule}: only the step size of sgd scales with the loss"
        scaled = self.loss_scaled_lr
        check(not scaled or self.rule == "sgd", "loss_scaled_lr", wanted, scaled)
        check(
            self.rule != "meta_lstm" or self.lr < 1,
            "lr",
            "less than 1, as the gates of meta_lstm are shares",
            self.lr,
        )
        check(
            not self.emaml_weight or self.surrogate == "log_likelihood",
            "surrogate",
            "log_likelihood with emaml_weight, as the others have that credit already",
            self.surrogate,
        )
        check(
            not (self.first_order and self.surrogate in EPISODIC),
            "surrogate",
            "likelihood_ratio or log_likelihood with first_order, as the second derivatives are "
            "all that dice is for",
            self.surrogate,
        )
        wanted = f"1 with surrogate {self.surrogate}: only loaded_dice has a decay"
        loaded = self.surrogate == "loaded_dice"
        check(loaded or self.dice_decay == 1, "dice_decay", wanted, self.dice_decay)
        for kind in ("context", "latent"):
            key = f"{kind}_dim"
            value, default = getattr(self, key), InnerConfig.model_fields[key].default
            wanted = f"{default} with adapts {self.adapts}, which has no {kind}"
            check(self.adapts == kind or value == default, key, wanted, value)
        return self


def own_rule(name: str) -> Callable[[float], UpdateRule]:
    """Return an update rule of the user: a class, made with the step size.

    Args:
        name: the rule as `package.module:Class`.

    Raises:
        ConfigError: if the rule cannot be imported, is no class, is not made with one argument, or
            has no `init` or `step` with the arguments of `UpdateRule`.
    """
    try:
        cls = import_object(name)
    except ValueError as error:
        raise ConfigError(f"rule: {error}") from error
    if not isinstance(cls, type) or cls is UpdateRule:
        kind = "the interface of a rule" if cls is UpdateRule else "no class"
        raise ConfigError(f"rule: {name} is {kind}; expected a class, see docs/extending.md")
    missing = [method for method in ("init", "step") if not hasattr(cls, method)]
    if missing:
        raise ConfigError(f"rule: {name} is no rule: it has no {missing[0]}; see docs/extending.md")
    check_arguments("rule", name, cls, ("lr",))
    for method in ("init", "step"):
        expected = list(inspect.signature(getattr(UpdateRule, method)).parameters)
        bound = isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod)
        check_arguments("rule", f"{name}.{method}", getattr(cls, method), expected[bound:])
    return cls


def make_rule(config: InnerConfig, num_steps: int) -> UpdateRule:
    """Make the update rule of a config, for `num_steps` adaptation steps in training.

    Raises:
        ConfigError: if a rule of the user is not usable.
    """
    match config.rule:
        case "sgd":
            return SGD(config.lr, config.loss_scaled_lr)
        case "meta_sgd":
            return MetaSGD(config.lr)
        case "lslr":
            return PerLayerPerStepLR(config.lr, num_steps)
        case "meta_lstm":
            return MetaLSTM(config.lr)
        case own:
            return own_rule(own)(config.lr)


def make_task_parameters(config: InnerConfig, policy: MLPPolicy) -> TaskParameters:
    """Make the task parameters of a config, for a policy."""
    match config.adapts:
        case "all" | "nothing":
            return AllParameters()
        case "head":
            return Head(policy.head)
        case "context":
            return Context(config.context_dim)
        case "latent":
            return Latent(config.latent_dim)


def make_inner_loop(config: InnerConfig, policy: MLPPolicy, num_steps: int) -> InnerLoop:
    """Make the inner loop of a config, for `num_steps` adaptation steps in training.

    Raises:
        ConfigError: if an update rule of the user is not usable.
    """
    rule, task_parameters = make_rule(config, num_steps), make_task_parameters(config, policy)
    return InnerLoop(rule, task_parameters, first_order=config.first_order)
