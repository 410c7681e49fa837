"""Outer updates, inner loops and tasks that the tests of the agent share."""

import torch

from metarl.agents.maml.inner_config import InnerConfig
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.envs import PointNav

FAMILY = PointNav(horizon=10, action_scale=1.0)
TASKS = FAMILY.tasks("train", 4)
OUTER = {
    "trpo": TRPOConfig(cg_steps=3),
    "adam": AdamConfig(),
    "ppo": PPOConfig(kl_weight=0.5, kl_target=1e-6, inner_kl_weight=0.1),
    "reptile": ReptileConfig(),
    "reptile adam": ReptileConfig(optimizer="adam", lr=1e-3),
}
INNER = {
    "sgd": InnerConfig(),
    "head with learned step sizes": InnerConfig(adapts="head", rule="meta_sgd"),
    "context with step sizes": InnerConfig(adapts="context", rule="lslr"),
    "latent with gates": InnerConfig(adapts="latent", rule="meta_lstm"),
    "loaded dice": InnerConfig(surrogate="loaded_dice", dice_decay=0.9),
    "E-MAML": InnerConfig(surrogate="log_likelihood", emaml_weight=1.0),
}


def values(agent) -> torch.Tensor:
    return torch.cat([value.flatten() for value in agent.meta.values()])


def assert_same(one: dict, other: dict) -> None:
    """All tensors are the same bit for bit."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
