"""Short names of keys; configs of earlier versions: new names of their keys, and conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIASES = {
    "num_tasks": "sampling.num_tasks",
    "num_episodes": "sampling.num_episodes",
    "inner_steps": "sampling.adaptation_steps",
}
"""Short names of keys, for command-line flags (`--num-tasks`) and for overrides in Python. Earlier
versions had them as keys."""

SECTIONS = {"policy": "agent.policy", "inner": "agent.inner", "outer": "agent.outer"} | {
    "returns": "agent.returns"
}
KEYS = ALIASES | {
    "tasks_per_chunk": "agent.tasks_per_microbatch",
    "inner_lr_schedule": "agent.inner.test_lr_schedule",
    "inner.lr_slope": "agent.inner.loss_scaled_lr",
    "inner.code_size": "agent.inner.context_dim",
    "inner.exploration": "agent.inner.emaml_weight",
    "inner.start_weight": "agent.inner.pre_adaptation_weight",
    "outer.start_kl_weight": "agent.outer.inner_kl_weight",
}
EARLIER_TRPO = {"preconditioner": "none", "cg_steps": 10, "jacobian_fraction": 0.5}
"""Defaults of `agent.outer` where `update` is trpo, of versions without a preconditioner."""
VALUES = {
    ("agent.inner.rule", "layer_step_sizes"): "lslr",
    ("agent.outer.update", "gradient"): "adam",
}


def renamed_key(path: str) -> str | None:
    """Return the present path of a key of an earlier version; None for all other paths."""
    section, _, key = path.partition(".")
    if path in KEYS:
        return KEYS[path]
    if section in SECTIONS:
        return f"{SECTIONS[section]}.{key}" if key else SECTIONS[section]
    return None


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run's folder, written by any version, in its present form.

    Args:
        data: the values of config.yaml. Invalid values are kept, so that validation reports them.
    """
    if "agent" in data or "sampling" in data:
        return _with_earlier_defaults(data)
    upgraded: dict[str, Any] = {}
    for name, value in data.items():
        if name not in SECTIONS or not isinstance(value, Mapping):
            _set(upgraded, renamed_key(str(name)) or name, value)
            continue
        for key, each in value.items():
            _set(upgraded, renamed_key(f"{name}.{key}") or f"{name}.{key}", each)
    agent = upgraded.get("agent")
    if isinstance(agent, Mapping):
        upgraded["agent"] = {"kind": "maml", **agent}
    inner = agent.get("inner") if isinstance(agent, Mapping) else None
    if isinstance(inner, dict) and inner.get("adapts") == "latent" and "context_dim" in inner:
        inner["latent_dim"] = inner.pop("context_dim")
    if _is_oracle(data):
        _set(upgraded, "agent.inner.adapts", "nothing")
    return _with_earlier_defaults(upgraded)


def _with_earlier_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config in which keys that its version did not have are as it behaved."""
    agent = data.get("agent")
    outer = agent.get("outer") if isinstance(agent, Mapping) else None
    if not isinstance(agent, Mapping) or not isinstance(outer, Mapping):
        return {**data}
    if outer.get("update", "trpo") != "trpo" or "preconditioner" in outer:
        return {**data}
    return {**data, "agent": {**agent, "outer": {**EARLIER_TRPO, **outer}}}


def _is_oracle(data: Mapping[str, Any]) -> bool:
    """Return whether a config trains an oracle, which observes the task and does not adapt."""
    env = data.get("env")
    told = isinstance(env, Mapping) and env.get("observe_task") is True
    steps = data.get("inner_steps")
    return told and type(steps) is int and steps == 0


def _set(nested: dict[str, Any], path: Any, value: Any) -> None:
    """Set a value by its dotted path, in place; a renamed value gets its present name."""
    if not isinstance(path, str):
        nested[path] = value
        return
    *sections, key = path.split(".")
    for section in sections:
        inside = nested.setdefault(section, {})
        if not isinstance(inside, dict):
            return
        nested = inside
    known = isinstance(value, str)
    nested[key] = VALUES.get((path, value), value) if known else value
