"""What adapts: the variables that belong to a task, and the model's parameters that they stand for.

A space takes its own meta-parameters from the same dict as the model's; their names have a colon,
which no parameter of a model has.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch

from metarl.core.errors import check_known
from metarl.core.params import Params, stack


class Space(Protocol):
    """The variables that adapt."""

    def init(self, params: Params, rng: np.random.Generator) -> Params:
        """Draw the space's own meta-parameters for a model with these `params`."""
        ...

    def start(self, meta: Params, num_tasks: int) -> Params:
        """Return the variables of B tasks before adaptation, stacked (B, ...)."""
        ...

    def decode(self, meta: Params, variables: Params) -> Params:
        """Return the model's parameters that the variables stand for, stacked (B, ...)."""
        ...


def model_params(meta: Params) -> Params:
    """Return those of the meta-parameters that are the model's."""
    return {name: value for name, value in meta.items() if ":" not in name}


def count(variables: Params) -> int:
    """Return B, the number of tasks of stacked variables."""
    return len(next(iter(variables.values())))


def check_names(names: Collection[str], params: Params) -> None:
    """Refuse names that are none of a model's parameters.

    Raises:
        UserError: naming the nearest.
    """
    for name in names:
        check_known(name, params, "the model has no parameter")


class AllParameters:
    """All of the model's parameters adapt (MAML, Finn et al. 2017)."""

    def init(self, params: Params, rng: np.random.Generator) -> Params:
        return {}

    def start(self, meta: Params, num_tasks: int) -> Params:
        return stack(model_params(meta), num_tasks)

    def decode(self, meta: Params, variables: Params) -> Params:
        return variables


class Head:
    """The named parameters adapt, and the rest is shared (ANIL, Raghu et al. 2020)."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def init(self, params: Params, rng: np.random.Generator) -> Params:
        check_names(self.names, params)
        return {}

    def start(self, meta: Params, num_tasks: int) -> Params:
        return stack({name: meta[name] for name in self.names}, num_tasks)

    def decode(self, meta: Params, variables: Params) -> Params:
        return {**stack(model_params(meta), count(variables)), **variables}


class Context:
    """A context vector, 0 before adaptation, is a further input (CAVIA, Zintgraf et al. 2019).

    Inputs that are the same at every observation are a shift of the first layer's bias, so
    `bias + context @ weight` takes its place.
    """

    def __init__(self, size: int, bias: str = "bias0") -> None:
        self.size, self.bias = size, bias

    def init(self, params: Params, rng: np.random.Generator) -> Params:
        check_names([self.bias], params)
        bias = params[self.bias]
        # A weight of 0 would be stuck: with it, neither the context nor the weight has a gradient.
        bound = math.sqrt(6 / (self.size + bias.numel()))
        weight = torch.from_numpy(rng.uniform(-bound, bound, (self.size, bias.numel())))
        return {"context:weight": weight.to(bias)}

    def start(self, meta: Params, num_tasks: int) -> Params:
        return {"context": meta["context:weight"].new_zeros(num_tasks, 1, self.size)}

    def decode(self, meta: Params, variables: Params) -> Params:
        context = variables["context"]  # (B, 1, size)
        bias = meta[self.bias]
        shift = context @ meta["context:weight"]  # (B, 1, units)
        params = stack(model_params(meta), len(context))
        return {**params, self.bias: bias + shift.view(-1, *bias.shape)}


class Latent:
    """A latent code is decoded to parameters, linearly, and adapts (LEO, Rusu et al. 2019).

    The code that all tasks begin with is learned. LEO's encoder, which draws that code from the
    data of a task, has no data yet where an agent must act before it knows anything.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def init(self, params: Params, rng: np.random.Generator) -> Params:
        # The decoder's columns have length 1 on average: a step in the latent space is then, at
        # first, that step's projection on a random subspace of the parameters.
        std = 1 / math.sqrt(sum(value.numel() for value in params.values()))
        own: Params = {}
        for name, value in params.items():
            weight = std * rng.standard_normal((self.size, value.numel()))
            own[f"latent:decoder.{name}"] = torch.from_numpy(weight).to(value)
        first = next(iter(params.values()))
        return {"latent:start": first.new_zeros(1, self.size), **own}

    def start(self, meta: Params, num_tasks: int) -> Params:
        return stack({"latent": meta["latent:start"]}, num_tasks)

    def decode(self, meta: Params, variables: Params) -> Params:
        latent = variables["latent"]  # (B, 1, size)
        decoded = {}
        for name, value in model_params(meta).items():
            offset = latent @ meta[f"latent:decoder.{name}"]  # (B, 1, numel)
            decoded[name] = value + offset.view(-1, *value.shape)
        return decoded
