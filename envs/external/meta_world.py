"""Meta-World's meta-learning benchmarks, under a Python environment of their own."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box

from metarl.envs.errors import TaskError
from metarl.envs.external.description import Environment
from metarl.envs.external.family import ExternalFamily
from metarl.envs.external.meta_world_setup import REQUIREMENTS, home, installed_python
from metarl.envs.external.process import WorkerError, worker_environ
from metarl.envs.task_distribution import SPLITS

PROGRAM = Path(__file__).with_name("meta_world_env.py")
MAX_HORIZON = 500  # limit of Meta-World's environments
EXTENT = 2.0  # bound of the coordinates of all goals and objects, m
GOAL_DIM = 6

BASE_NAMES = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall
    button-press button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble
    door-close door-lock door-open door-unlock drawer-close drawer-open faucet-close faucet-open
    hammer hand-insert handle-press-side handle-press handle-pull-side handle-pull lever-pull
    peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall
    plate-slide-back-side plate-slide-back plate-slide-side plate-slide push-back push push-wall
    reach reach-wall shelf-place soccer stick-pull stick-push sweep-into sweep window-close
    window-open
"""
NAMES = tuple(sorted(f"{name}-v3" for name in BASE_NAMES.split()))
"""The environments, in the order in which tasks number them."""

Benchmark = Literal["ML1", "ML10", "ML45"]


@dataclass(frozen=True)
class MetaWorld(ExternalFamily):
    """Move objects with a robot arm to goals that it cannot see: the benchmarks ML1, ML10, ML45.

    A task is the number of an environment and the six numbers that place its objects and goal.
    Train and test tasks are Meta-World's own; validation tasks are those of the environments
    trained on, with further goals. Success is that of any step of an episode.
    """

    horizon: int = MAX_HORIZON
    """Length of an episode in control steps, at most 500."""
    benchmark: Benchmark = "ML1"
    """ML1: goals of one environment; ML10, ML45: 10 or 45 environments to train on, 5 to test."""
    env_name: str = "reach-v3"
    """The environment of ML1; the others have their own."""
    goal_seed: int = 42
    """Seed by which Meta-World draws the goals of its tasks: 50 for each environment."""

    name: ClassVar[str] = "metaworld"
    source: ClassVar[str] = "Yu et al. 2019 (Meta-World), version 3"
    no_ood_reason: ClassVar[str] = "its test tasks are Meta-World's own"
    visible_task: ClassVar[tuple[int, ...]] = (1, 2, 3)  # where the object is

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon > MAX_HORIZON:
            raise ValueError(f"horizon: expected at most {MAX_HORIZON}, got {self.horizon}")
        if self.env_name not in NAMES:
            near = difflib.get_close_matches(self.env_name, NAMES, 3, cutoff=0.3)
            raise ValueError(f"env_name: unknown {self.env_name!r} (nearest: {', '.join(near)})")
        if not 0 <= self.goal_seed < 2**31:
            raise ValueError(f"goal_seed: expected between 0 and 2^31, got {self.goal_seed}")

    @property
    def interpreter(self) -> str:
        return os.path.expanduser(self.python) or str(installed_python())

    @property
    def environment(self) -> Environment:
        names = ("environment", *(f"place{i}" for i in range(GOAL_DIM)))
        return Environment(f"{PROGRAM}:MetaWorldEnv", names, "options", {"names": NAMES})

    @property
    def task_space(self) -> Box:
        places = [EXTENT] * GOAL_DIM
        low, high = np.array([0, *(-x for x in places)]), np.array([len(NAMES) - 1, *places])
        return Box(low.astype(float), high.astype(float), dtype=np.float64)

    @property
    def middle_task(self) -> np.ndarray:
        return self.tasks("train", 1)[0]

    @property
    def table(self) -> dict[str, np.ndarray]:
        """The tasks of each split, (n, 7), environment by environment in turn.

        Raises:
            WorkerError: if Meta-World is not installed.
        """
        env_name = self.env_name if self.benchmark == "ML1" else "all"
        return load_table(self.interpreter, self.benchmark, env_name, self.goal_seed)

    def tasks(self, split: str, num_tasks: int) -> np.ndarray:
        if num_tasks < 1 or split not in SPLITS:
            return super().tasks(split, num_tasks)
        if split not in self.table:
            raise ValueError(f"split: {self.name} has no {split} tasks")
        rows = self.table[split]
        if num_tasks > len(rows):
            raise ValueError(
                f"num_tasks: {self.benchmark} has {len(rows)} {split} tasks, got {num_tasks}"
            )
        return rows[:num_tasks].copy()

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        """Draw train tasks, (num_tasks, 7): numbers per environment differ by at most one."""
        rows = self.table["train"]
        kinds = len(np.unique(rows[:, 0]))
        # Index i of a batch gets the same environment every time, because making one is slow.
        kind = np.arange(num_tasks) % kinds
        rest = num_tasks % kinds
        if rest:
            kind[-rest:] = np.sort(rng.permutation(kinds)[:rest])
        return rows[kind + kinds * rng.integers(len(rows) // kinds, size=num_tasks)]

    def sample_sequences(
        self, rng: np.random.Generator, num_sequences: int, length: int
    ) -> np.ndarray:
        """Draw sequences of different train tasks, each in any order of environments."""
        rows = self.table["train"]
        if length > len(rows):
            most = f"at most {len(rows)}, the train tasks of {self.benchmark}"
            raise TaskError(f"the length of a sequence of tasks: expected {most}, got {length}")
        return np.stack([rng.permutation(rows)[:length] for _ in range(num_sequences)])

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        row = super().check_task(task)
        if row[0] != np.floor(row[0]):
            raise TaskError(f"a task of {self.name} begins with a whole number, got {row[0]}")
        return row

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        return NAMES[int(task[0])].removesuffix("-v3")


@cache
def load_table(python: str, benchmark: str, env_name: str, seed: int) -> dict[str, np.ndarray]:
    """Return a benchmark's tasks by split; the first time, Meta-World draws them (ML45: minutes).

    Raises:
        WorkerError: if Meta-World is not installed, or fails.
    """
    if shutil.which(python) is None:
        raise WorkerError(
            f"metaworld: there is no Python at {python}. Meta-World needs an environment of its "
            "own (it pins an older MuJoCo): run metarl setup metaworld, or set env.python"
        )
    version = REQUIREMENTS.read_text().split("metaworld==")[1].split()[0]
    file = home() / f"metaworld-{version}-tasks" / f"{benchmark}-{env_name}-{seed}.json"
    if not file.is_file():
        command = [python, "-I", str(PROGRAM), benchmark, env_name, str(seed)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=worker_environ(python)
        )
        if done.returncode:
            stderr = done.stderr.strip()[-2000:]
            raise WorkerError(
                f"metaworld: {python} cannot list the tasks of {benchmark}:\n{stderr}\n"
                "If its packages are missing or broken, run metarl setup metaworld"
            )
        write_atomically(file, done.stdout)
    splits = json.loads(file.read_text())
    return {split: interleaved(np.array(rows)) for split, rows in splits.items()}


def interleaved(rows: np.ndarray) -> np.ndarray:
    """Reorder tasks, (n, 7), with equally many per environment, so that environments alternate."""
    kinds = len(np.unique(rows[:, 0]))
    return rows.reshape(kinds, -1, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape)


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that other processes see either all of it or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as part:
        part.write(text)
    os.replace(part.name, file)
