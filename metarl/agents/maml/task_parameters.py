"""Which variables adapt per task, and how they map to model parameters.

The variables that adapt are the fast parameters. Meta-parameters of the mapping are in the same
dict as the model's; their names have a colon, which no parameter of a model has.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch

from metarl.core.errors import check_known
from metarl.core.params import Params, stack


class TaskParameters(Protocol):
    """The fast parameters of a task and their mapping to model parameters."""

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        """Draw the mapping's own meta-parameters for a model with these `params`."""
        ...

    def init(self, meta: Params, num_tasks: int) -> Params:
        """Return the fast parameters of B tasks before adaptation, stacked (B, ...)."""
        ...

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        """Return the model parameters that fast parameters map to, stacked (B, ...)."""
        ...


def model_params(meta: Params) -> Params:
    """Return those of the meta-parameters that are the model's."""
    return {name: value for name, value in meta.items() if ":" not in name}


def count_tasks(stacked: Params) -> int:
    """Return B, the number of tasks of stacked parameters."""
    return len(next(iter(stacked.values())))


def check_names(names: Collection[str], params: Params) -> None:
    """Refuse names that are none of a model's parameters.

    Raises:
        UserError: naming the nearest.
    """
    for name in names:
        check_known(name, params, "the model has no parameter")


class AllParameters:
    """All of the model's parameters adapt (MAML, Finn et al. 2017)."""

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        return {}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return stack(model_params(meta), num_tasks)

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        return fast_params


class Head:
    """The named parameters adapt, and the rest is shared (ANIL, Raghu et al. 2020)."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        check_names(self.names, params)
        return {}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return stack({name: meta[name] for name in self.names}, num_tasks)

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        return {**stack(model_params(meta), count_tasks(fast_params)), **fast_params}


class Context:
    """A context vector, 0 before adaptation, is a further input (CAVIA, Zintgraf et al. 2019).

    Inputs that are the same at every observation are a shift of the first layer's bias, so
    `bias + context @ weight` takes its place.
    """

    def __init__(self, context_dim: int, bias: str = "bias0") -> None:
        self.context_dim, self.bias = context_dim, bias

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        check_names([self.bias], params)
        bias = params[self.bias]
        # A weight of 0 would be stuck: with it, neither the context nor the weight has a gradient.
        bound = math.sqrt(6 / (self.context_dim + bias.numel()))
        weight = torch.from_numpy(rng.uniform(-bound, bound, (self.context_dim, bias.numel())))
        return {"context:weight": weight.to(bias)}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return {"context": meta["context:weight"].new_zeros(num_tasks, 1, self.context_dim)}

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        context = fast_params["context"]  # (B, 1, dim)
        bias = meta[self.bias]
        shift = context @ meta["context:weight"]  # (B, 1, units)
        params = stack(model_params(meta), len(context))
        return {**params, self.bias: bias + shift.view(-1, *bias.shape)}


class Latent:
    """A latent code is decoded to parameters, linearly, and adapts (LEO, Rusu et al. 2019).

    The code that all tasks begin with is learned. LEO's encoder, which draws that code from the
    data of a task, has no data yet where an agent must act before it knows anything.
    """

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        # The decoder's columns have length 1 on average: a step in the latent space is then, at
        # first, that step's projection on a random subspace of the parameters.
        std = 1 / math.sqrt(sum(value.numel() for value in params.values()))
        own: Params = {}
        for name, value in params.items():
            weight = std * rng.standard_normal((self.latent_dim, value.numel()))
            own[f"latent:decoder.{name}"] = torch.from_numpy(weight).to(value)
        first = next(iter(params.values()))
        return {"latent:start": first.new_zeros(1, self.latent_dim), **own}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return stack({"latent": meta["latent:start"]}, num_tasks)

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        latent = fast_params["latent"]  # (B, 1, dim)
        decoded = {}
        for name, value in model_params(meta).items():
            offset = latent @ meta[f"latent:decoder.{name}"]  # (B, 1, numel)
            decoded[name] = value + offset.view(-1, *value.shape)
        return decoded
