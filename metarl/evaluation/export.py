"""The adapted policy as a torch module of one's environment, and as an ONNX file.

n is the number of episodes that are played at a time.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from metarl.core.errors import UserError
from metarl.core.policy_module import PolicyModule, PolicyStep, add_constant
from metarl.evaluation.live_env import ActionUnits
from metarl.runs.atomic_io import write_atomically


class EnvPolicy(nn.Module):
    """A policy with the actions of an environment: a plain torch module on the CPU, float32.

    `policy(obs)` takes raw observations, (n, obs_dim), and returns a `PolicyStep`, whose actions
    are those of `AdaptedAgent.predict(deterministic=True)`, (n, ...) in the environment's units.
    `policy(obs, noise, reward, state)` as in `metarl.core.policy_module.PolicyModule`; outputs and
    standard deviations are in the units of the policy.

    Attributes:
        policy: the policy in its own units.
    """

    low: Tensor
    high: Tensor
    policy_low: Tensor
    policy_high: Tensor

    def __init__(self, policy: PolicyModule, units: ActionUnits) -> None:
        super().__init__()
        self.policy, self._space = policy, units.env
        env, own = units.env, units.policy
        self._scales = not units.same and isinstance(env, Box)
        if isinstance(env, Box) and isinstance(own, Box):
            bounds = {"low": env.low, "high": env.high}
            if self._scales:
                bounds |= {"policy_low": own.low, "policy_high": own.high}
            for name, value in bounds.items():
                add_constant(self, name, value.ravel())
        self.eval()

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        step = self.policy(obs, noise, reward, state)
        action, space = step.action, self._space
        if isinstance(space, Discrete):
            return step._replace(action=action[:, 0].to(torch.int64) + int(space.start))
        if self._scales:
            share = (action - self.policy_low) / (self.policy_high - self.policy_low)
            action = self.low + share * (self.high - self.low)
        action = action.clamp(self.low, self.high).reshape(-1, *(space.shape or ()))
        dtype = torch_dtype(space.dtype)
        return step._replace(
            action=(action if dtype.is_floating_point else action.round()).to(dtype)
        )

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs without n, by name."""
        policy = self.policy
        shapes: dict[str, tuple[int, ...]] = {"observation": (policy.obs_dim,)}
        shapes["noise"] = (policy.noise_size,)
        if policy.uses_reward:
            shapes["reward"] = ()
        if policy.state_size:
            shapes["state"] = (policy.state_size,)
        return shapes


class Positional(nn.Module):
    """A policy with tensors as arguments and results, in the order of names."""

    def __init__(self, policy: EnvPolicy, names: list[str]) -> None:
        super().__init__()
        self.policy, self._names = policy, names

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self._names, values, strict=True))
        step = self.policy(given.pop("observation"), **given)
        return tuple(value for value in step if value is not None)


def write_onnx(
    policy: EnvPolicy, path: str | Path, source: Mapping[str, str], *, sampling: bool
) -> Path:
    """Write a policy as an ONNX file, with named inputs and outputs, and any n.

    Args:
        policy: the policy.
        path: the file, which may exist.
        source: what the file says of its origin, by key.
        sampling: whether `noise` is an input, which draws the actions.

    Returns:
        The file.

    Raises:
        UserError: if the packages of the extra `onnx` are not installed, the folder of the file
            does not exist, or a policy of the user's is for a fixed n.
        StorageError: if the file cannot be written.
    """
    path = Path(path)
    if missing := [each for each in ("onnx", "onnxscript") if not importlib.util.find_spec(each)]:
        raise UserError(
            f"to_onnx: needs {' and '.join(missing)}, of the extra `onnx`: "
            'pip install "metarl-torch[onnx]"'
        )
    if not path.resolve().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.resolve().parent}")
    shapes = {name: shape for name, shape in policy.inputs.items() if sampling or name != "noise"}
    outputs = ["action", "logits"] if policy.policy.discrete else ["action", "mean", "std"]
    outputs += ["next_state"] * ("state" in shapes)
    example = tuple(torch.zeros(2, *shape) for shape in shapes.values())  # 2: 1 may become fixed
    dynamic = tuple({0: torch.export.Dim("n")} for _ in shapes)
    logger, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    logger.setLevel(logging.ERROR)  # it tells of torchvision
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                Positional(policy, [*shapes]).eval(),
                example,
                input_names=[*shapes],
                output_names=outputs,
                dynamic_shapes=(dynamic,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    model = program.model_proto
    for value in model.graph.input:
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise UserError(
                f"to_onnx: the policy fixes the number of rows of {value.name}; expected a module "
                "for any number, which takes it from obs.shape[0], not from len(obs)"
            )
    model.producer_name, model.producer_version = "metarl", metadata.version("metarl-torch")
    for key, value in {**source, **description(policy, [*shapes])}.items():
        model.metadata_props.add(key=key, value=value)
    write_atomically(path, model.SerializeToString())
    return path


def description(policy: EnvPolicy, inputs: list[str]) -> dict[str, str]:
    """Return what a program has to know to use an ONNX file, by key."""
    found = {"version": metadata.version("metarl-torch"), "inputs": json.dumps(inputs)}
    if "noise" in inputs:
        drawn = "Gumbel(0, 1)" if policy.policy.discrete else "standard normal"
        found["noise"] = f"{drawn} numbers, drawn anew at each step; zeros for the best actions"
    if "state" in inputs:
        found["state"] = "zeros begin an episode; then next_state of the step before"
    if "reward" in inputs:
        found["reward"] = "of the step before; without influence where an episode begins"
    return found


def torch_dtype(dtype: Any) -> torch.dtype:
    """Return the torch type of a NumPy type."""
    return torch.from_numpy(np.zeros(0, dtype)).dtype
