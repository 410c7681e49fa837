"""Policies as pure functions of stacked parameters: one set of parameters per task.

A policy's parameters are a dict of tensors. A *stack* of them has a leading axis B, one entry per
task, and acts on observations (B, N, obs_dim).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from metarl.core.actors import CategoricalActor, GaussianActor, MLPActor
from metarl.core.distributions import Categorical, Distribution, Normal
from metarl.core.errors import check
from metarl.core.params import Params
from metarl.core.schema import Section

FEW_COLUMNS = 16
MAX_STD_RATIO = 1000.0  # a policy whose standard deviation has changed by more is useless
MAX_WEIGHTS = 10**7


Positive = Annotated[float, Field(gt=0)]


class PolicyConfig(Section):
    """The policy, an MLP. For continuous actions it is a Gaussian whose standard deviation does not
    depend on the state; for discrete actions it is categorical."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64)
    """Sizes of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    initialisation: Literal["glorot", "orthogonal"] = "glorot"
    """Initial weights: uniform by Glorot and Bengio 2010, or orthogonal matrices. Biases are 0."""
    hidden_gain: Positive = 1.0
    """Factor on the initial weights of the hidden layers."""
    output_gain: Positive = 1.0
    """Factor on the initial weights of the last layer."""
    obs_scale: tuple[Positive, ...] = ()
    """Divisors of the numbers of an observation, none for 1. Adaptation is a plain gradient step,
    whose noise grows with the square of its inputs: where velocities are ten times the rest, they
    make nearly all of it."""
    bias_transform: tuple[Positive, ...] = ()
    """Factors of further inputs of the first layer that are parameters themselves, 0 at first (Finn
    et al. 2017b). A gradient step moves the policy along such an input by the square of its factor:
    with a large one and a small step size, adaptation is mostly along directions that are learned
    for it, and little of its noise elsewhere."""
    init_std: Positive = 1.0
    """Standard deviation at initialisation."""
    min_std: Positive = 1e-6
    """Lower bound of the standard deviation. A parameter below the bound has no gradient through
    it, so the bound is far from anything a run should reach."""
    max_std: Positive = 20.0
    """Upper bound of the standard deviation; as with `min_std` there is no gradient beyond."""

    @model_validator(mode="after")
    def _check(self) -> PolicyConfig:
        check(self.max_std > self.min_std, "max_std", "more than min_std", self.max_std)
        inside = self.min_std <= self.init_std <= self.max_std
        check(inside, "init_std", "between min_std and max_std", self.init_std)
        return self


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x @ weight + bias of stacks: (B, N, in), (B, in, out) and (B, 1, out)."""
    out = weight.shape[-1]
    if x.device.type == "cpu" and out < FEW_COLUMNS:
        # The CPU's library takes five times longer for 6 columns than for 16.
        padding = (0, FEW_COLUMNS - out)
        wide = torch.baddbmm(F.pad(bias, padding), x, F.pad(weight, padding))
        return wide[..., :out]
    return torch.baddbmm(bias, x, weight)


def glorot(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """Draw a uniform matrix, (fan_in, fan_out), by Glorot and Bengio 2010."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out))


def orthogonal(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """Draw a matrix, (fan_in, fan_out), with orthonormal rows or columns, the fewer of them."""
    tall = rng.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))  # without this, not uniform over the orthogonal matrices
    return q if fan_in >= fan_out else q.T


INITIALISATIONS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "glorot": glorot,
    "orthogonal": orthogonal,
}


class MLPPolicy(ABC):
    """A policy over stacks of parameters: `weight0`, `bias0`, `weight1`, ...

    Attributes:
        sizes: of the layers, from the observation to the outputs.
    """

    def __init__(self, config: PolicyConfig, obs_dim: int, num_outputs: int) -> None:
        self.config = config
        self.sizes = (obs_dim, *config.hidden, num_outputs)
        weights = sum(above * below for above, below in pairwise(self.sizes))
        weights += len(config.bias_transform) * self.sizes[1]
        expected = f"layers of at most {MAX_WEIGHTS:,} weights together"
        check(weights <= MAX_WEIGHTS, "policy.hidden", expected, config.hidden)
        scale = torch.tensor(config.obs_scale, dtype=torch.float64)
        self._obs_scale = scale.reshape(obs_dim, 1) if config.obs_scale else None
        self._input_scale = torch.tensor(config.bias_transform, dtype=torch.float64)

    @property
    def num_layers(self) -> int:
        return len(self.sizes) - 1

    @property
    def head(self) -> tuple[str, ...]:
        """The names of the last layer's parameters, and of others that belong to the outputs."""
        return (f"weight{self.num_layers - 1}", f"bias{self.num_layers - 1}")

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw initial parameters, unstacked."""
        params: Params = {}
        draw = INITIALISATIONS[self.config.initialisation]
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            last = layer == self.num_layers - 1
            gain = self.config.output_gain if last else self.config.hidden_gain
            weight = np.ascontiguousarray(gain * draw(rng, fan_in, fan_out))
            params[f"weight{layer}"] = torch.from_numpy(weight).to(dtype)
            params[f"bias{layer}"] = torch.zeros(1, fan_out, dtype=dtype)
        if size := len(self._input_scale):
            params["input"] = torch.zeros(1, size, dtype=dtype)
            params["input_weight"] = torch.from_numpy(draw(rng, size, self.sizes[1])).to(dtype)
        return params

    def layer(self, params: Params, number: int) -> tuple[Tensor, Tensor]:
        """Return a layer's weight and bias, (B, in, out) and (B, 1, out), from stacked `params`.

        The first one's weight is divided by the scale, which is cheaper than the observations, and
        its bias is that with the bias transformation.
        """
        weight, bias = params[f"weight{number}"], params[f"bias{number}"]
        if number == 0 and self._obs_scale is not None:
            weight = weight / self._obs_scale.to(weight)
        if number == 0 and len(self._input_scale):
            bias = bias + (params["input"] * self._input_scale.to(bias)) @ params["input_weight"]
        return weight, bias

    def forward(self, params: Params, obs: Tensor) -> Tensor:
        """Return the outputs, (B, N, num_outputs), at `obs`, (B, N, obs_dim)."""
        activation = torch.tanh if self.config.activation == "tanh" else torch.relu
        hidden = obs
        for number in range(self.num_layers):
            if number:
                hidden = activation(hidden)
            hidden = linear(hidden, *self.layer(params, number))
        return hidden

    def std_diagnostics(self, params: Iterable[Params]) -> dict[str, float]:
        """Count action dimensions with a useless standard deviation; here there is none."""
        return {}

    def layers_for_acting(self, params: Params) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return weight and bias of each layer of stacked `params`, as float32 arrays."""
        params = {name: value.detach().cpu().float() for name, value in params.items()}
        layers = (self.layer(params, number) for number in range(self.num_layers))
        return [(weight.numpy(), bias.numpy()) for weight, bias in layers]

    @abstractmethod
    def __call__(self, params: Params, obs: Tensor) -> Distribution:
        """Return the action distributions of stacked `params` at `obs`, (B, N, obs_dim)."""

    @abstractmethod
    def actor(self, params: Params) -> MLPActor:
        """Return the actor of stacked `params`, which acts during rollouts."""


class GaussianMLP(MLPPolicy):
    """Continuous actions: a Gaussian whose mean is the MLP, and a parameter `log_std`."""

    @property
    def head(self) -> tuple[str, ...]:
        return (*super().head, "log_std")

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        log_std = math.log(self.config.init_std)
        constant = torch.full((1, self.sizes[-1]), log_std, dtype=dtype)
        return {**super().init(rng, dtype), "log_std": constant}

    def std_diagnostics(self, params: Iterable[Params]) -> dict[str, float]:
        """Number of action dimensions whose std is at a bound or more than 1000 times away from
        `init_std`.

        Args:
            params: parameters, stacked or not, of which any may be beyond.

        Returns:
            `std_collapsed` and `std_exploded`, each only where it is not 0.
        """
        config = self.config
        low = math.log(max(config.min_std, config.init_std / MAX_STD_RATIO)) - 1e-5  # for rounding
        high = math.log(min(config.max_std, config.init_std * MAX_STD_RATIO)) + 1e-5
        known = [each["log_std"] for each in params if "log_std" in each]
        log_std = torch.cat([each.reshape(-1, self.sizes[-1]) for each in known])
        beyond = {"std_collapsed": log_std < low, "std_exploded": log_std > high}
        counts = {name: float(where.any(0).sum()) for name, where in beyond.items()}
        return {name: count for name, count in counts.items() if count}

    def __call__(self, params: Params, obs: Tensor) -> Normal:
        low, high = math.log(self.config.min_std), math.log(self.config.max_std)
        return Normal(self.forward(params, obs), params["log_std"].clamp(low, high))

    def actor(self, params: Params) -> GaussianActor:
        low, high = math.log(self.config.min_std), math.log(self.config.max_std)
        log_std = params["log_std"].detach().cpu().float().numpy()
        std = np.exp(np.clip(log_std, low, high))  # (B, 1, A)
        relu = self.config.activation == "relu"
        return GaussianActor(self.layers_for_acting(params), std, relu=relu)


class CategoricalMLP(MLPPolicy):
    """Discrete actions: the MLP gives their logits."""

    def __call__(self, params: Params, obs: Tensor) -> Categorical:
        return Categorical(self.forward(params, obs))

    def actor(self, params: Params) -> CategoricalActor:
        relu = self.config.activation == "relu"
        return CategoricalActor(self.layers_for_acting(params), relu=relu)


def make_policy(config: PolicyConfig, obs_space: Box, action_space: Space) -> MLPPolicy:
    """Make the policy for a family's spaces.

    Raises:
        TypeError: if the action space is neither Box nor Discrete.
    """
    obs_dim = int(np.prod(obs_space.shape))
    if isinstance(action_space, Discrete):
        return CategoricalMLP(config, obs_dim, int(action_space.n))
    if isinstance(action_space, Box):
        return GaussianMLP(config, obs_dim, int(np.prod(action_space.shape)))
    raise TypeError(f"no policy for the action space {action_space}: expected Box or Discrete")
