"""The provenance of a result: command, versions, hardware and code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

PACKAGES = ("metarl-torch", "torch", "mujoco", "gymnasium", "numpy", "scipy", "wandb")
MAX_DIFF = 100_000
"""Characters of uncommitted changes; of more, as of changed data, only the digest is kept."""


def provenance() -> dict[str, Any]:
    """Return the command, versions, hardware and code that produced a result."""
    return {
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "processor": _processor(),
        "matrix_products": matrix_products(),
        "git": _git(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def matrix_products() -> str:
    """Return the processors for which NumPy's matrix products are made, and whether a variable of
    the environment chose them. Results depend on it, and so do times."""
    found = [each.get("architecture") for each in threadpool_info() if each["user_api"] == "blas"]
    names = ", ".join(sorted(filter(None, found))) or "unknown"
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    return f"{names}, set by OPENBLAS_CORETYPE" if chosen else names


def _git() -> dict[str, str] | None:
    """Return commit and uncommitted changes of the repository; None outside a git repository, and
    where git does not tell them, as in one of another owner."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, check=True)
        # A diff has lines of files in any encoding.
        return done.stdout.decode(errors="replace").strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "diff": limited(git("diff", "HEAD"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def limited(diff: str) -> str:
    """Return a diff, or its length and digest if it has more than `MAX_DIFF` characters."""
    if len(diff) <= MAX_DIFF:
        return diff
    digest = hashlib.sha256(diff.encode()).hexdigest()
    return f"left out: {len(diff)} characters, SHA-256 {digest}"
