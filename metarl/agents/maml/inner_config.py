"""The settings of the inner loop, and the inner loop made from them."""

from __future__ import annotations

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
from metarl.core.errors import ConfigError, check, nearest
from metarl.core.policies import MLPPolicy
from metarl.core.schema import Section
from metarl.envs.registry import import_object

RULES = ("sgd", "meta_sgd", "lslr", "meta_lstm")

NonNegative = Annotated[float, Field(ge=0)]
Dimension = Annotated[int, Field(ge=1, le=1000)]


class InnerConfig(Section):
    """The inner loop: how a task's policy follows from the meta-parameters and its episodes."""

    adapts: Literal["all", "head", "context", "latent", "nothing"] = "all"
    """The parameters that adapt: all (MAML), the last layer (ANIL), a context vector that is an
    input of the policy (CAVIA), a latent code that is decoded to parameters (LEO), or nothing: an
    agent that does not adapt, such as an oracle."""
    rule: str = "sgd"
    """The update rule: sgd (gradient descent), meta_sgd (with a learned step size per parameter),
    lslr (per layer and step), meta_lstm (a learned rule with gates), or a rule of your own as
    package.module:Class."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Step size of the gradient steps; the initial one, where it is learned."""
    loss_scaled_lr: NonNegative = 0.0
    """Increase of sgd's step size per unit of a task's loss, minus the mean reward of a step. The
    gradient of a distance to a goal does not tell how far the goal is; the loss does."""
    test_lr_schedule: Schedule = "halving"
    """Step sizes outside training: halving (half the step size after the first adaptation, as in
    the MAML paper), geometric (half of the last at every adaptation) or constant."""
    context_dim: Dimension = 8
    """Size of the context vector."""
    latent_dim: Dimension = 8
    """Size of the latent code."""
    surrogate: Literal["likelihood_ratio", "log_likelihood", "dice", "loaded_dice"] = (
        "likelihood_ratio"
    )
    """The loss whose gradient adapts. All have the same gradient; they differ in the
    meta-gradient. `log_likelihood` is the loss of the first implementations; it loses the credit of
    the pre-adaptation policy when the meta-gradient passes through it."""
    dice_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Decay of `loaded_dice`: below 1, less variance for some bias."""
    emaml_weight: NonNegative = 0.0
    """Weight of E-MAML's term, which makes pre-adaptation data more likely that led to good
    policies. It belongs to `log_likelihood`: the other surrogates have that credit already. The
    weight that leaves no bias is far above 1, and noisy (docs/estimators.md)."""
    pre_adaptation_weight: NonNegative = 0.0
    """Weight, in the meta-objective, of the return before each adaptation step: 1 for as much as
    the return after adaptation."""
    first_order: bool = False
    """Whether the meta-gradient treats the inner gradients as constants (FOMAML)."""

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
        return self


def own_rule(name: str) -> Callable[[float], UpdateRule]:
    """Return a user's own update rule, a class that is called with the step size.

    Raises:
        ConfigError: if it cannot be imported, or is no update rule.
    """
    try:
        cls = import_object(name)
    except ValueError as error:
        raise ConfigError(f"rule: {error}") from error
    missing = [method for method in ("init", "step") if not hasattr(cls, method)]
    if missing:
        raise ConfigError(f"rule: {name} is no rule: it has no {missing[0]}; see docs/extending.md")
    return cls


def make_rule(config: InnerConfig, num_steps: int) -> UpdateRule:
    """Make the update rule of a config, for `num_steps` steps in training."""
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
    """Make the parameters that adapt, for a policy."""
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
    """Make the inner loop of a config, for `num_steps` steps in training."""
    rule, task_parameters = make_rule(config, num_steps), make_task_parameters(config, policy)
    return InnerLoop(rule, task_parameters, first_order=config.first_order)
