"""Which variables adapt per task, and how they map to model parameters.

The variables that adapt are the fast parameters. The meta-parameters of the mapping are in the same
dict as the model parameters. Their names contain a colon, and names of model parameters do not.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch

from metarl.core.errors import check, check_known
from metarl.core.params import Params, stack


class TaskParameters(Protocol):
    """The fast parameters of a task and their mapping to model parameters."""

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        """Draw the meta-parameters of the mapping, for a model with the parameters `params`.

        Raises:
            UserError: if the mapping names a parameter that the model does not have.
        """
        ...

    def init(self, meta: Params, num_tasks: int) -> Params:
        """Return the fast parameters of B tasks before adaptation, stacked (B, ...)."""
        ...

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        """Return the model parameters of fast parameters (B, ...), stacked (B, ...)."""
        ...


def model_params(meta: Params) -> Params:
    """Return the model parameters among the meta-parameters."""
    return {name: value for name, value in meta.items() if ":" not in name}


def count_tasks(stacked: Params) -> int:
    """Return the number of tasks B of stacked parameters."""
    return len(next(iter(stacked.values())))


def check_names(names: Collection[str], params: Params) -> None:
    """Check that all names are names of parameters of a model.

    Raises:
        UserError: if a name is unknown; gives the nearest name.
    """
    for name in names:
        check_known(name, params, "the model has no parameter")


class AllParameters:
    """All model parameters adapt (MAML, Finn et al. 2017)."""

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        return {}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return stack(model_params(meta), num_tasks)

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        return fast_params


class Head:
    """The named parameters adapt, and all tasks share the other parameters (ANIL, Raghu et al.
    2020, section 4)."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)
        check(len(self.names) > 0, "names", "at least one parameter", names)

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        check_names(self.names, params)
        return {}

    def init(self, meta: Params, num_tasks: int) -> Params:
        return stack({name: meta[name] for name in self.names}, num_tasks)

    def to_model_params(self, meta: Params, fast_params: Params) -> Params:
        return {**stack(model_params(meta), count_tasks(fast_params)), **fast_params}


class Context:
    """A context vector adapts, which is an additional input of the model and 0 before adaptation
    (CAVIA, Zintgraf et al. 2019, section 3).

    Inputs that are equal at all observations shift the bias of the first layer, so the context is
    implemented as the bias `bias + context @ weight`.
    """

    def __init__(self, context_dim: int, bias: str = "bias0") -> None:
        self.context_dim, self.bias = context_dim, bias

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        check_names([self.bias], params)
        bias = params[self.bias]
        # Not 0: at weight 0 and context 0, the gradients of both are 0.
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
    """A latent code adapts, which is decoded linearly to an offset of the model parameters (LEO,
    Rusu et al. 2019, section 2.3).

    The initial code is learned and equal for all tasks. The encoder of LEO, which infers the
    initial code from data of the task, is left out: an agent acts before it has any data.
    """

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def init_meta(self, params: Params, rng: np.random.Generator) -> Params:
        # The expected squared length of the decoder's rows is 1. A gradient step on the code is
        # then initially the projection of a gradient step on all parameters to a random subspace.
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
