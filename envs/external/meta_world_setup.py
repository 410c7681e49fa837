"""Meta-World's own Python environment: where it is, and how it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from metarl.envs.external.process import WorkerError

REQUIREMENTS = Path(__file__).with_name("meta_world_requirements.txt")
MARK = "metarl-ready.txt"  # written last: the pins of an environment that is whole


def home() -> Path:
    """Return the folder of what we install and keep: METARL_HOME, or ~/.cache/metarl."""
    return Path(os.environ.get("METARL_HOME") or Path.home() / ".cache" / "metarl").absolute()


def installed_python() -> Path:
    """Return the interpreter of Meta-World's environment, which may not be there yet."""
    return home() / "metaworld" / "bin" / "python"


def is_installed() -> bool:
    """Whether the environment is whole and has the pinned packages."""
    mark = home() / "metaworld" / MARK
    return mark.is_file() and mark.read_text() == REQUIREMENTS.read_text()


def setup(say: Callable[[str], None] = print) -> Path:
    """Make the environment, unless it is there, and return its interpreter. Safe to repeat.

    Args:
        say: told what is done.

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
    (folder / MARK).write_text(REQUIREMENTS.read_text())
    say(f"Meta-World is ready: {python}")
    return python


def run(command: list[str]) -> None:
    """Run a command, showing nothing unless it fails.

    Raises:
        WorkerError: with the end of what it wrote.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise WorkerError(
            f"{' '.join(command)} failed with exit status {done.returncode}:\n{done.stdout[-3000:]}"
        )
