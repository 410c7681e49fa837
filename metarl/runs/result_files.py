"""The result files of `metarl evaluate` in a run's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError, shown, warn
from metarl.core.parsing import error_summary, read_json
from metarl.envs import SPLITS
from metarl.runs.result import Evaluation, Results, results_by_label

STEM = re.compile(rf"[a-z_]+-({'|'.join(SPLITS)}|custom)(-[\w.-]+)?")
"""The name of a result file, without ending: PROTOCOL-SPLIT and what differs from the defaults."""
RENAMED_PROTOCOLS = {"paper": "k_step"}
"""Earlier names of protocols, and their present names."""
RENAMED_PARTS = {"usual": "nominal", "going on": "sequential"}
"""Earlier names of parts of results, and their present names."""
KINDS = {
    "protocol": str,
    "checkpoint": str,
    "iteration": int,
    "overrides": dict,
    "perturbations": dict,
}
"""Kinds of the settings that reports use."""
KIND_TEXTS = {str: "a text", int: "a whole number", dict: "keys with values"}


def result_files(folder: Path) -> dict[str, Path]:
    """Return the result files in a folder by present name, such as `k_step-test`.

    A file with the earlier name of a protocol counts where there is none with the present name.
    A warning names a file that has another name, as files of the user's may have.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if not STEM.fullmatch(path.stem):
            warn(f"{path}: left out: result files have names such as k_step-test.json")
            continue
        protocol, dash, split = path.stem.partition("-")
        name = RENAMED_PROTOCOLS.get(protocol, protocol) + dash + split
        if name == path.stem:
            files[name] = path
        else:
            files.setdefault(name, path)
    return dict(sorted(files.items()))


def check_named(name: str, settings: Mapping[str, Any], path: Path) -> None:
    """Check that a result file holds the protocol that its present name begins with.

    Args:
        name: the name, as in `result_files`.
        settings: what the file holds (`read_settings`).
        path: the file.

    Raises:
        UserError: if it holds another one, as a file that was renamed does.
    """
    protocol, wanted = settings.get("protocol"), name.partition("-")[0]
    if protocol is not None and RENAMED_PROTOCOLS.get(protocol, protocol) != wanted:
        raise UserError(
            f"{path}: expected results of the protocol {wanted}, got those of {shown(protocol)}"
        )


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a result file, with `checkpoint` and `iteration` of its first method; {}
    if there are none, as in a file that is no result file.

    Raises:
        UserError: if a setting is of the wrong kind; names it.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
        return {}
    own = next(iter(content.pop("methods").values()), None)
    own = own if isinstance(own, dict) else {}
    found = {name: own.get(name) for name in ("checkpoint", "iteration")}
    content |= {name: value for name, value in found.items() if value is not None}
    for name, kind in KINDS.items():
        if name in content and type(content[name]) is not kind:
            expected = f"expected {KIND_TEXTS[kind]}, got {shown(content[name])}"
            raise UserError(f"{path}: {name}: {expected}")
    strengths = content.get("perturbations", {})
    if not all(isinstance(each, list) for each in strengths.values()):
        raise UserError(f"{path}: perturbations: expected lists of strengths, got {strengths}")
    return content


def read_results(path: Path) -> dict[str, Results]:
    """Read a result file: its evaluations by method and part.

    Raises:
        UserError: if it is no result file.
    """
    try:
        methods: dict[str, dict[str, dict[str, Any]]] = read_json(path)["methods"]
        found: dict[str, Results] = {
            method: {
                RENAMED_PARTS.get(part, part): Evaluation.from_dict(each)
                for part, each in entry["parts"].items()
            }
            for method, entry in methods.items()
        }
        if not all(name.isprintable() for parts in (found, *found.values()) for name in parts):
            raise ValueError("expected printable names of methods and parts")
        if not found or not all(found.values()):
            raise ValueError("expected at least one method, and a part of each")
        first, *others = found.values()
        if any(other.keys() != first.keys() for other in others):
            raise ValueError("expected the same parts of all methods")
        return found
    except UserError:
        raise
    except Exception as error:  # what is nested differently makes Python raise almost anything
        reason = f"{type(error).__name__}: {error_summary(error)}"
        raise UserError(f"{path}: not a result file of metarl evaluate ({reason})") from error


def read_evaluations(folder: Path) -> dict[str, dict[str, Evaluation]]:
    """Read all result files in a folder; see `metarl.runs.run.Run.evaluations`.

    Raises:
        UserError: if a file is no result file.
    """
    return {
        name: results_by_label(read_results(path)) for name, path in result_files(folder).items()
    }
