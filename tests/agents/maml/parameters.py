"""Copies, comparisons and joins of parameters that the tests of the agent share."""

import torch

from metarl.core.params import Params


def copy_of(params: Params) -> Params:
    return {name: value.clone() for name, value in params.items()}


def equal(one: Params, other: Params) -> bool:
    """Whether two dicts of parameters are the same bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def joined(state) -> Params:
    """The parameters of all microbatches of a state, (B, ...)."""
    stacks = [microbatch.params for microbatch in state.microbatches]
    return {name: torch.cat([params[name] for params in stacks]) for name in stacks[0]}
