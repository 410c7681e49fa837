"""MLP policies as pure functions of stacked parameters, with one set of parameters per task.

The parameters of a policy are a dict of tensors. Stacked parameters have a leading axis of B tasks,
and map observations (B, N, obs_dim) to action distributions at N observations of each task.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from pydantic import Field, model_validator
from torch import Tensor, nn

from metarl.core.actors import CategoricalActor, GaussianActor, MLPActor
from metarl.core.distributions import Categorical, Distribution, Normal
from metarl.core.errors import check
from metarl.core.layers import INITIALISATIONS, check_num_weights, linear, tanh
from metarl.core.params import Params
from metarl.core.policy_module import (
    CategoricalModule,
    GaussianModule,
    PolicyModule,
    mlp_module,
)
from metarl.core.schema import Positive, Section

MAX_STD_RATIO = 1000.0  # largest ratio of a useful standard deviation to `init_std`


class PolicyConfig(Section):
    """The policy, an MLP: Gaussian with a state-independent standard deviation for continuous
    actions, categorical for discrete actions."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64)
    """Sizes of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    initialisation: Literal["glorot", "orthogonal"] = "glorot"
    """Initial weights: uniform (Glorot and Bengio 2010), or orthogonal matrices. Biases are 0."""
    hidden_gain: Positive = 1.0
    """Factor on the initial weights of the hidden layers."""
    output_gain: Positive = 1.0
    """Factor on the initial weights of the last layer."""
    obs_scale: tuple[Positive, ...] = ()
    """Divisors of the components of an observation; [] divides nothing. The noise of a gradient
    step grows with the square of the inputs: velocities that are ten times larger than the other
    components cause nearly all of the noise. The linear baseline sees the observations as they are,
    between -10 and 10; where they are larger, choose `normalize_observations`."""
    bias_transform: tuple[Positive, ...] = ()
    """Factors of additional inputs of the first layer which are parameters, initially 0 (Finn et
    al. 2017b). The effect of a gradient step along such an input is proportional to the square of
    its factor: with a large factor and a small step size, adaptation mostly follows learned
    directions, and other parameters receive little noise."""
    init_std: Positive = 1.0
    """Initial standard deviation of the actions."""
    min_std: Positive = 1e-6
    """Lower bound of the standard deviation. The gradient is 0 below the bound, so a standard
    deviation that reaches it stays there. Adaptation by gradients learns from the differences
    between noisy actions, which a bound not far below `init_std` preserves."""
    max_std: Positive = 20.0
    """Upper bound of the standard deviation. The gradient is 0 above the bound."""

    @model_validator(mode="after")
    def _check(self) -> PolicyConfig:
        check(self.max_std > self.min_std, "max_std", "more than min_std", self.max_std)
        inside = self.min_std <= self.init_std <= self.max_std
        check(inside, "init_std", "between min_std and max_std", self.init_std)
        return self


class MLPPolicy(ABC):
    """A policy with the parameters `weight0`, `bias0`, `weight1`, ...

    Attributes:
        config: the settings.
        sizes: sizes of the layers, from the observation to the outputs.
        num_weights: number of weights of all layers.
    """

    def __init__(self, config: PolicyConfig, obs_dim: int, num_outputs: int) -> None:
        """Set up for observations (obs_dim,) and `num_outputs` parameters of the distribution.

        Raises:
            ConfigError: if the policy has more than `MAX_WEIGHTS` weights.
        """
        self.config = config
        self.sizes = (obs_dim, *config.hidden, num_outputs)
        self.num_weights = sum(above * below for above, below in pairwise(self.sizes))
        self.num_weights += len(config.bias_transform) * self.sizes[1]
        check_num_weights({"policy.hidden": (self.num_weights, config.hidden)})
        scale = torch.tensor(config.obs_scale, dtype=torch.float64)
        self._obs_scale = scale.reshape(obs_dim, 1) if config.obs_scale else None
        self._input_scale = torch.tensor(config.bias_transform, dtype=torch.float64)

    @property
    def num_layers(self) -> int:
        return len(self.sizes) - 1

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the head: the last layer, and `log_std` of a Gaussian."""
        return (f"weight{self.num_layers - 1}", f"bias{self.num_layers - 1}")

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw the initial parameters, unstacked: weights (in, out) and biases (1, out)."""
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
        """Return weight (B, in, out) and bias (B, 1, out) of a layer of stacked `params`.

        The weight of the first layer is divided by `obs_scale`, which is cheaper than dividing the
        observations. Its bias includes the bias transformation (Finn et al. 2017b).
        """
        weight, bias = params[f"weight{number}"], params[f"bias{number}"]
        if number == 0 and self._obs_scale is not None:
            weight = weight / self._obs_scale.to(weight)
        if number == 0 and len(self._input_scale):
            bias = bias + (params["input"] * self._input_scale.to(bias)) @ params["input_weight"]
        return weight, bias

    def forward(self, params: Params, obs: Tensor) -> Tensor:
        """Return the outputs of the MLP, (B, N, num_outputs), at `obs`, (B, N, obs_dim)."""
        last = self.num_layers - 1
        return linear(self.layer_inputs(params, obs)[last], *self.layer(params, last))

    def layer_inputs(self, params: Params, obs: Tensor) -> list[Tensor]:
        """Return the input of each layer, (B, N, in), at `obs`, (B, N, obs_dim)."""
        relu = self.config.activation == "relu"
        inputs = [obs]
        for number in range(self.num_layers - 1):
            outputs = linear(inputs[-1], *self.layer(params, number), relu=relu)
            inputs.append(outputs if relu else tanh(outputs))
        return inputs

    def activation_slope(self, hidden: Tensor) -> Tensor:
        """Return the derivatives of the activation that gave `hidden`, of the same shape."""
        return 1 - hidden**2 if self.config.activation == "tanh" else (hidden > 0).to(hidden)

    def layer_rows(self, params: Params, number: int, inputs: Tensor) -> Params:
        """Return what a layer multiplies each of its parameters with: the output of the layer is
        the sum of rows @ parameter, with rows (B, N, rows of the parameter) by name.

        Args:
            params: stacked parameters.
            number: the layer.
            inputs: its inputs, (B, N, in), as in `layer_inputs`.
        """
        first = number == 0
        if first and self._obs_scale is not None:
            inputs = inputs / self._obs_scale[:, 0].to(inputs)
        rows = {f"weight{number}": inputs, f"bias{number}": torch.ones_like(inputs[..., :1])}
        if first and len(self._input_scale):
            own = params["input"] * self._input_scale.to(inputs)  # (B, 1, k)
            rows["input_weight"] = own.expand(*inputs.shape[:2], -1)
        return rows

    def input_effect(self, params: Params) -> Tensor:
        """Return the derivatives of the first layer's output with respect to the inputs of the bias
        transformation, (B, k, units)."""
        weight = params["input_weight"]
        return self._input_scale.to(weight)[:, None] * weight

    def std_diagnostics(self, params: Iterable[Params]) -> dict[str, float]:
        """Return diagnostics of the standard deviation; {} for policies without one."""
        return {}

    def layers_for_acting(self, params: Params) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return weight (B, in, out) and bias (B, 1, out) of each layer as float32 arrays."""
        params = {name: value.detach().cpu().float() for name, value in params.items()}
        layers = (self.layer(params, number) for number in range(self.num_layers))
        return [(weight.numpy(), bias.numpy()) for weight, bias in layers]

    @abstractmethod
    def __call__(self, params: Params, obs: Tensor) -> Distribution:
        """Return the action distributions of stacked `params` at `obs`, (B, N, obs_dim)."""

    @abstractmethod
    def actor(self, params: Params, *, deterministic: bool = False) -> MLPActor:
        """Return the actor of stacked `params`, which chooses actions in rollouts.

        Args:
            deterministic: whether to choose the most probable action instead of drawing one.
        """

    @abstractmethod
    def module(self, params: Params) -> PolicyModule:
        """Return the policy of stacked `params` of one task as a torch module on the CPU."""

    def mlp_module(self, params: Params) -> nn.Sequential:
        """Return the MLP of stacked `params` of one task as a torch module."""
        layers = [(weight[0], bias[0, 0]) for weight, bias in self.layers_for_acting(params)]
        return mlp_module(layers, relu=self.config.activation == "relu")


class GaussianMLP(MLPPolicy):
    """Continuous actions: a Gaussian with the output of the MLP as mean, and a state-independent
    parameter `log_std`, (1, action_dim)."""

    @property
    def head(self) -> tuple[str, ...]:
        return (*super().head, "log_std")

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        log_std = math.log(self.config.init_std)
        constant = torch.full((1, self.sizes[-1]), log_std, dtype=dtype)
        return {**super().init(rng, dtype), "log_std": constant}

    def std_diagnostics(self, params: Iterable[Params]) -> dict[str, float]:
        """Number of action dimensions whose std is at `max_std` or more than 1000 times away from
        `init_std`. One at a `min_std` that is nearer than that has not collapsed: it is kept there.

        Args:
            params: several sets of parameters, stacked or not. A dimension is counted if the std of
                any set is out of range.

        Returns:
            The counts `std_collapsed` and `std_exploded`; a count of 0 is left out.
        """
        config = self.config
        # 1e-5: tolerance for rounding
        low = math.log(config.init_std / MAX_STD_RATIO) - 1e-5
        high = math.log(min(config.max_std, config.init_std * MAX_STD_RATIO)) + 1e-5
        log_stds = [each["log_std"] for each in params if "log_std" in each]
        log_std = torch.cat([each.reshape(-1, self.sizes[-1]) for each in log_stds])  # (n, A)
        kept = log_std.clamp(min=math.log(config.min_std))
        out_of_range = {"std_collapsed": kept < low, "std_exploded": log_std > high}
        counts = {name: float(mask.any(0).sum()) for name, mask in out_of_range.items()}
        return {name: count for name, count in counts.items() if count}

    def __call__(self, params: Params, obs: Tensor) -> Normal:
        low, high = math.log(self.config.min_std), math.log(self.config.max_std)
        return Normal(self.forward(params, obs), params["log_std"].clamp(low, high))

    def actor(self, params: Params, *, deterministic: bool = False) -> GaussianActor:
        std = self._std_for_acting(params)
        std = np.zeros_like(std) if deterministic else std
        relu = self.config.activation == "relu"
        return GaussianActor(self.layers_for_acting(params), std, relu=relu)

    def module(self, params: Params) -> GaussianModule:
        std = self._std_for_acting(params)[0, 0]
        return GaussianModule(self.mlp_module(params), self.sizes[0], std)

    def _std_for_acting(self, params: Params) -> np.ndarray:
        """Return the standard deviations, (B, 1, A), as a float32 array."""
        low, high = math.log(self.config.min_std), math.log(self.config.max_std)
        log_std = params["log_std"].detach().cpu().float().numpy()
        return np.exp(np.clip(log_std, low, high))


class CategoricalMLP(MLPPolicy):
    """Discrete actions: a categorical distribution with the outputs of the MLP as logits."""

    def __call__(self, params: Params, obs: Tensor) -> Categorical:
        return Categorical(self.forward(params, obs))

    def actor(self, params: Params, *, deterministic: bool = False) -> CategoricalActor:
        relu = self.config.activation == "relu"
        layers = self.layers_for_acting(params)
        return CategoricalActor(layers, relu=relu, deterministic=deterministic)

    def module(self, params: Params) -> CategoricalModule:
        return CategoricalModule(self.mlp_module(params), self.sizes[0], self.sizes[-1])


def make_policy(config: PolicyConfig, obs_space: Box, action_space: Space) -> MLPPolicy:
    """Make the policy for the observation and action spaces of a task family.

    Raises:
        ConfigError: if the policy has too many weights.
        TypeError: if the action space is neither Box nor Discrete.
    """
    obs_dim = int(np.prod(obs_space.shape))
    if isinstance(action_space, Discrete):
        return CategoricalMLP(config, obs_dim, int(action_space.n))
    if isinstance(action_space, Box):
        return GaussianMLP(config, obs_dim, int(np.prod(action_space.shape)))
    raise TypeError(f"no policy for the action space {action_space}: expected Box or Discrete")
