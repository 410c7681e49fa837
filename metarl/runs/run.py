"""The folder of a run: config, logs, checkpoints and provenance."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from metarl.agents.base import MetaAgent
from metarl.config import Config
from metarl.config_files import find_config, make_config, read_values
from metarl.config_upgrade import upgrade
from metarl.core.errors import ConfigError, StorageError, UserError, as_path, nearest
from metarl.core.parsing import shell_path
from metarl.envs.gymnasium_env import TaskEnv, task_env
from metarl.rollout.failures import Failure, lines_of
from metarl.runs import checkpoint
from metarl.runs.atomic_io import wrap_os_errors, write_atomically
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.identity import BEGUN_WITH, check_unchanged, fixed_texts
from metarl.runs.lock import training_lock
from metarl.runs.logs import RunLogs
from metarl.runs.origin import KEY, Origin, read_origin
from metarl.runs.pretrained import (
    PREFIX,
    is_pretrained,
    output_folder,
    pretrained_names,
    run_folder,
)
from metarl.runs.provenance import provenance
from metarl.runs.replay_log import ReplayLog
from metarl.runs.result import Evaluation
from metarl.runs.result_files import read_evaluations
from metarl.runs.run_checkpoints import INITIAL, RunCheckpoints
from metarl.runs.untrusted import check_code, check_links

PARTIAL_RUN_FILES = {".lock", "checkpoints", "provenance.json"} | {
    f".{name}.partial" for name in ("provenance.json", "config.yaml")
}
"""The possible content of a run's folder before its config is written."""


@dataclass(frozen=True)
class Run(RunCheckpoints):
    """A training run on disk.

    Attributes:
        directory: the run's folder.
        config: its resolved config.
    """

    def make_agent(self, state: Checkpoint) -> MetaAgent:
        """Make the agent of one of the run's checkpoints, with the settings of `config`.

        Raises:
            ConfigError: if the device is not available.
            UserError: if the checkpoint does not fit the config; names the run.
        """
        try:
            return self.config.make_agent(state.agent)
        except ConfigError:
            raise
        except UserError as error:
            raise UserError(f"{self.directory}: {error}") from error

    @classmethod
    def create(
        cls,
        config: Config,
        directory: Path,
        origin: Origin | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create the folder of a new run. If several processes try at once, one succeeds.

        Args:
            config: the config of the run.
            directory: the folder.
            origin: the origin of a warm start.
            state: the agent's state before the first iteration, which is kept as checkpoint 0 after
                a warm start; None if the config and the seed determine it.

        Raises:
            UserError: if the folder exists already, or cannot be created.
        """
        check_free(directory)
        run = cls(directory, config)
        try:
            with wrap_os_errors(directory):
                run.checkpoints.mkdir(parents=True, exist_ok=True)
            with run.lock():
                check_free(directory)
                # Not of the config's seed: it tells runs apart that are otherwise equal.
                made = {"id": uuid4().hex, **provenance(), BEGUN_WITH: fixed_texts(config)}
                if origin is not None:
                    made[KEY] = origin.to_dict()
                write_atomically(directory / "provenance.json", encode(made))
                with wrap_os_errors(run.checkpoints):
                    for path in run.checkpoints.iterdir():  # of an interrupted creation
                        path.unlink()
                if state is not None:
                    initial = Checkpoint(0, 0, -math.inf, state)
                    checkpoint.save(run.checkpoints / INITIAL, initial)
                # Last, since a folder with a config is the folder of a run.
                run.write_config()
        except StorageError as error:
            raise UserError(str(error)) from error
        return run

    @classmethod
    def open(
        cls, directory: str | Path, *, config_class: type[Config] = Config, **overrides: Any
    ) -> Run:
        """Open the folder of an existing run, which may be untrusted.

        No file of the folder is executed, and nothing is written outside the folder: the config is
        data, and links that lead out of the folder are errors. There is one deliberate exception. A
        config may name a task family, update rule or environment of the user as
        `package.module:Class`, and opening the run imports this module if Python finds it. Do not
        open an untrusted run from a folder of untrusted modules. Modules in the run's folder are
        errors.

        Args:
            directory: the run's folder, or `pretrained/NAME`.
            config_class: the class of the config, which tells what is checked of it.
            overrides: values that replace values of the config, such as device="cpu".

        Raises:
            UserError: if the folder contains no run, a link leads out of the folder, or the config
                names code in the folder.
        """
        directory = run_folder(as_path("directory", directory))
        path = directory / "config.yaml"
        if not path.is_file():
            raise UserError(f"{directory}: {no_run(directory)}")
        check_links(directory)
        data = upgrade(read_values(path))
        check_code(directory, data)
        config = make_config(data, str(path), overrides, config_class)
        if is_pretrained(directory) and config.tracking.trackers:
            raise ConfigError(
                f"--tracking.trackers: {PREFIX}{directory.name} is not tracked, as its folder "
                f"belongs to the installation; copy {directory}, and name the copy"
            )
        return cls(directory, config)

    def write_config(self) -> None:
        """Write the config, which may replace another one.

        Raises:
            StorageError: if the file cannot be written.
        """
        write_atomically(self.directory / "config.yaml", self.config.to_yaml().encode())

    @property
    def origin(self) -> Origin | None:
        """The origin of the initial parameters; None if the run was not warm started.

        Raises:
            UserError: if it cannot be read.
        """
        return read_origin(self.directory / "provenance.json")

    @property
    def output(self) -> Path:
        """The folder for results of evaluations, which may not exist; see `output_folder`."""
        return output_folder(self.directory)

    def evaluations(self) -> dict[str, dict[str, Evaluation]]:
        """Return the results of `metarl evaluate` in the run's folder.

        Returns:
            The evaluations of the run's method first, then of its baselines, by method, or by
            `method, part` for a protocol with several parts; by the name of the result file, such
            as `k_step-test`.

        Raises:
            UserError: if a result file cannot be read.
        """
        return read_evaluations(self.output / "evaluation")

    def check_trainable(self) -> None:
        """Check that the run can be continued.

        Raises:
            UserError: if it is a package, or its config was changed by hand in what a run keeps;
                names the file, the key and both values.
        """
        if self.packaged:
            raise UserError(
                f"{self.directory}: has weights, but nothing to continue from; begin a new run "
                f"from them: metarl train CONFIG --init-from {shell_path(self.directory)}"
            )
        check_unchanged(self.config, self.directory)

    @property
    def replay(self) -> ReplayLog:
        """The episodes that the agent learns from again, if there are any."""
        return ReplayLog(self.directory / "replay")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the exclusive training lock of the run; see `training_lock`."""
        return training_lock(self.directory)

    def make_env(self, task: Sequence[float] | None = None, **settings: Any) -> TaskEnv:
        """Return a task of the run's family, with the run's settings, as a Gymnasium environment.

        Args:
            task: the task, (task_dim,); without one each reset draws another.
            settings: `render_mode`, `width` and `height`.

        Raises:
            TaskError: if the task is not one of the family's.
        """
        return task_env(self.config.env, task, **settings)

    def record(self, iteration: int, failures: Sequence[Failure]) -> None:
        """Append the failures and warnings of an iteration to the log of failures.

        Raises:
            StorageError: if the log cannot be written.
        """
        if failures:
            self.log_failures(lines_of(failures, iteration, self.config.on_failure))


def no_run(directory: Path) -> str:
    """Return why a path without a config.yaml is no run's folder, and what can be meant by it."""
    for parent in [*directory.parents][:2] if directory.exists() else []:
        if is_run(parent):
            return f"is part of a run; expected the run's folder, {parent}"
    if directory.is_file() and directory.suffix not in (".yaml", ".yml"):
        return "is a file; expected a run's folder"
    with contextlib.suppress(ConfigError):
        find_config(directory)
        return f"is a config, not a run; train it first: metarl train {shell_path(directory)}"
    reason = "no config.yaml" if directory.exists() else "it does not exist"
    siblings = directory.parent.iterdir() if directory.parent.is_dir() else []
    beside = [other for other in siblings if (other / "config.yaml").is_file()]
    runs = {other.name.lower(): str(other) for other in beside}
    if near := difflib.get_close_matches(directory.name.lower(), runs, 1, cutoff=0.5):
        return f"not a run's folder ({reason}) (nearest: {runs[near[0]]})"
    known = [str(path.parent) for path in sorted(Path("runs").glob("*/config.yaml"))]
    known += pretrained_names()
    return f"not a run's folder ({reason}){nearest(directory.name, known)}"


def is_run(directory: Path) -> bool:
    """Return whether a folder is that of a run."""
    return all((directory / name).is_file() for name in ("config.yaml", "provenance.json"))


def check_no_run(directory: Path) -> None:
    """Check that a folder for other results is not that of a run, among whose files they would lie.

    Raises:
        UserError: if it is.
    """
    if is_run(directory):
        raise UserError(f"--out: {directory} is the folder of a run; expected another one")


def is_free(directory: Path) -> bool:
    """Return whether a new run may use a folder: the folder does not exist, is empty, or contains
    only the `PARTIAL_RUN_FILES` of a run whose creation was interrupted, and no checkpoint but its
    initial one."""
    try:
        found = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return not directory.exists()  # a path below a file, where creating the folder fails later
    saved = {path.name for path in (directory / "checkpoints").glob("*")}
    return found <= PARTIAL_RUN_FILES and saved <= {INITIAL, f".{INITIAL}.partial"}


def check_free(directory: Path) -> None:
    """Check that a new run may use a folder; see `is_free`.

    Raises:
        UserError: if the folder is in use; names the folder.
    """
    if not is_free(directory):
        is_run, going_on = (directory / "config.yaml").is_file(), ""
        if is_run:
            going_on = f", or go on with metarl train --resume {shell_path(directory)}"
        if is_run and not RunLogs(directory).metrics():
            going_on += "; it has no iteration yet: delete it to begin with other settings"
        raise UserError(f"{directory}: exists already; choose another folder with --out{going_on}")


def encode(content: Any) -> bytes:
    """Return content as indented JSON."""
    return (json.dumps(content, indent=2) + "\n").encode()
