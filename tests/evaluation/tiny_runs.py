"""Tiny runs of all kinds of agents, one iteration old, and what is played with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config_files import make_config
from metarl.runs.run import Run
from metarl.training.loop import train

POINT = {"family": "point_nav", "horizon": 6, "action_scale": 2.0, "ends_at_goal": False}
SIZES = {"num_tasks": 2, "num_episodes": 2, "adaptation_steps": 1, "train_tasks": 2}
KINDS = {
    "maml": {"agent": {"policy": {"hidden": [5]}}},
    "rl2": {"agent": {"kind": "rl2", "network": {"size": 5}}},
    "varibad": {"agent": {"kind": "varibad", "encoder": {"size": 5, "latent": 2}}},
    "pearl": {
        "agent": {
            "kind": "pearl",
            "network": {"hidden": [5], "encoder_hidden": [5], "latent_dim": 2},
            "update": {"gradient_steps": 1, "context": 4, "batch": 4},
        }
    },
    "gridworld": {"env": {"family": "gridworld", "horizon": 6}},
}
TASK = [0.3, -0.4]


def train_tiny(kinds: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Run]:
    """Return a run of each kind, one iteration old, in folders of its name."""
    found = {}
    for kind, values in kinds.items():
        data = {"env": POINT, "sampling": SIZES, "iterations": 1, "threads": 1, **values}
        config = make_config({**data, "tracking": {"mode": "disabled"}}, "test", {})
        found[kind] = train(config, folder / kind)
    return found


def make_env(run, **settings):
    return run.make_env([2, 3] if run.config.env.name == "gridworld" else TASK, **settings)


def episode(adapted, env, *, deterministic=True, seed=0):
    """Play an episode by `predict`: observations and actions, (T, ...), and rewards, (T,)."""
    obs, _ = env.reset(seed=seed)
    state, reward, ended, steps = None, None, False, []
    while not ended:
        action, state = adapted.predict(obs, state, deterministic=deterministic, reward=reward)
        following, reward, terminated, truncated, _ = env.step(action)
        steps.append((obs, action, reward))
        obs, ended = following, terminated or truncated
    return [np.array(each) for each in zip(*steps, strict=True)]
