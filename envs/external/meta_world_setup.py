"""The Python environment of Meta-World: its location and its installation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from metarl.envs.external.process import WorkerError

REQUIREMENTS = Path(__file__).with_name("meta_world_requirements.txt")
READY_FILE = "metarl-ready.txt"  # written last: the pinned packages of a complete environment


def home() -> Path:
    """Return the folder of installations and caches: METARL_HOME, or ~/.cache/metarl."""
    return Path(os.environ.get("METARL_HOME") or Path.home() / ".cache" / "metarl").absolute()


def installed_python() -> Path:
    """Return the path of the interpreter of Meta-World's environment, which may not exist yet."""
    return home() / "metaworld" / "bin" / "python"


def is_installed() -> bool:
    """Return whether the environment is complete and has the pinned packages."""
    ready_file = home() / "metaworld" / READY_FILE
    return ready_file.is_file() and ready_file.read_text() == REQUIREMENTS.read_text()


def setup(say: Callable[[str], None] = print) -> Path:
    """Make the environment unless it is complete, and return its interpreter. Safe to repeat.

    Args:
        say: called with a line on each step.

    Raises:
        WorkerError: if the environment cannot be made or a package cannot be installed.
    """
    folder, python = home() / "metaworld", installed_python()
    if is_installed():
        say(f"Meta-World is ready: {python}")
        return python
    say(f"making a Python environment for Meta-World in {folder} (about 1 GB)")
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    say(f"installing the packages of {REQUIREMENTS}")
    run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)])
    say("trying it")
    run([str(python), "-I", "-c", "import metaworld; metaworld.ML1('reach-v3', seed=0)"])
    (folder / READY_FILE).write_text(REQUIREMENTS.read_text())
    say(f"Meta-World is ready: {python}")
    return python


def run(command: list[str]) -> None:
    """Run a command silently.

    Raises:
        WorkerError: if it fails; the message has the end of its output.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise WorkerError(
            f"{' '.join(command)} failed with exit status {done.returncode}:\n{done.stdout[-3000:]}"
        )
