"""A robot adapts, its policy becomes an ONNX file, and the file drives the robot without metarl.

    python examples/use_adapted_policy.py --out policy.onnx
    python examples/use_adapted_policy.py --drive policy.onnx

The environment is Gymnasium's own HalfCheetah, whose reward is for running backward: the agent
finds this out from 20 episodes. The second command needs gymnasium[mujoco], numpy and onnxruntime.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

RUN = "pretrained/half_cheetah_dir"


class Backward(gymnasium.Wrapper):
    """A reward for running backward, minus the cost of control."""

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = self.env.step(action)
        return obs, info["reward_ctrl"] - info["x_velocity"], terminated, truncated, info


def make_env() -> gymnasium.Env:
    """Return the robot, 200 steps of 0.05 s an episode, as in the training of the agent."""
    return Backward(gymnasium.make("HalfCheetah-v5", max_episode_steps=200))


def export(path: Path) -> None:
    """Let the agent adapt to the robot, and write the adapted policy."""
    import metarl

    adapted = metarl.load(RUN).adapt_to(make_env(), episodes=20)
    adapted.to_onnx(path)
    print(f"return while it explored: {np.mean(adapted.returns):.0f}; wrote {path}")


def drive(path: Path) -> float:
    """Drive the robot for an episode by the file alone; return its displacement in metres."""
    import onnxruntime

    policy, env = onnxruntime.InferenceSession(path), make_env()
    robot: Any = env.unwrapped
    obs, _ = env.reset(seed=1)
    begin, done, total = robot.data.qpos[0], False, 0.0
    while not done:
        (actions,) = policy.run(["action"], {"observation": np.asarray([obs], np.float32)})
        obs, reward, terminated, truncated, _ = env.step(np.asarray(actions)[0])
        done, total = terminated or truncated, total + float(reward)
    distance = float(robot.data.qpos[0] - begin)
    print(f"return {total:.0f}, displacement {distance:.1f} m in ten seconds")
    return distance


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Adapt a robot; drive it.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="adapt, write FILE, and drive")
    parser.add_argument("--drive", type=Path, metavar="FILE", help="drive by FILE")
    arguments = parser.parse_args()
    if arguments.out:
        export(arguments.out)
    if file := arguments.drive or arguments.out:
        drive(file)
    else:
        parser.error("expected --out FILE or --drive FILE")
