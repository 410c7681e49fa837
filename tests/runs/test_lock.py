"""The lock of a run, also where the file system has no locks (ENOSYS), as on some clusters."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

WITHOUT_LOCKS = """
import errno, fcntl
def flock(fd, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
"""
TRAINING = """
import os, signal, subprocess, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from metarl.core.errors import UserError
from metarl.runs.lock import training_lock
try:
    with training_lock(Path.cwd()):
        print("holds it", flush=True)
        if sys.argv[1] == "asks":
            print(subprocess.run([sys.executable, sys.argv[0], "other"], stdout=-1).stdout.decode())
        if sys.argv[1] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("locks", [True, False])
def test_a_run_is_free_again_when_its_training_has_died(tmp_path, locks):
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "sitecustomize.py").write_text("" if locks else WITHOUT_LOCKS)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def said(what: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "training.py", what],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.stdout.split("\n")[:-1]

    assert said("dies") == ["holds it"]
    first, other, _ = said("asks")
    assert first == "holds it"
    assert re.search(r": process \d+ on \S+ is training here; wait for it, stop it, or ", other)
    assert said("ends") == ["holds it"]
