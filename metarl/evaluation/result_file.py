"""Result files, named by what was measured, so that no evaluation overwrites another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from metarl.core.errors import UserError
from metarl.core.parsing import printable, read_json
from metarl.evaluation.config import EXPERIENCE, PERTURBATIONS, plain_strengths
from metarl.evaluation.protocols import UNUSED_SETTINGS
from metarl.runs.atomic_io import make_output_folder, wrap_os_errors, write_atomically
from metarl.runs.run import encode

DEFAULTS = {
    "tasks": 40,
    "episodes": 20,
    "steps": 3,
    "seed": 0,
    "deterministic": False,
    "trials": 5,
    "experience": [*EXPERIENCE],
    "perturbations": plain_strengths(PERTURBATIONS),
}
"""The settings of an evaluation that its name leaves out."""
FIGURE_FORMATS = ("png", "pdf", "svg", "csv")
"""Endings of the files of a figure: pictures, and the plotted numbers."""
OTHER_FORMATS = (".txt", ".yaml", ".yml", ".npy", ".html", *(f".{each}" for each in FIGURE_FORMATS))
"""Endings that are those of no folder, and of no result file."""
LOCK_FILE = ".evaluation.lock"
"""The lock of a folder of result files, for the time in which one of them is written."""
MAX_STEM = 120
"""Characters of the name of a result file, without ending; longer ones are cut, with a digest."""


def result_stem(
    protocol: str,
    split: str,
    checkpoint: str,
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> str:
    """Return the name, without ending, of the result file of an evaluation.

    Returns:
        PROTOCOL-SPLIT, followed by what differs from the defaults and has an influence on the
        results of the protocol: `k_step-test-checkpoint_best-tasks_5-agent.inner.lr_0.1`.

    Args:
        protocol, split, checkpoint: as in `metarl.evaluation.compare.evaluate_run`.
        values: the settings; those in `DEFAULTS` have these defaults. Tasks of one's own, a list of
            rows, are named by their number and a digest.
        overrides: values that replace values of the run's config, by key.
    """
    changed: dict[str, Any] = {} if checkpoint == "latest" else {"checkpoint": checkpoint}
    found = {name: values.get(name, default) for name, default in DEFAULTS.items()}
    found["experience"] = [*found["experience"]]
    found["perturbations"] = plain_strengths(found["perturbations"])
    unused = UNUSED_SETTINGS.get(protocol, set())
    changed |= {
        name: value
        for name, value in found.items()
        if name not in unused and value != DEFAULTS[name]
    }
    if isinstance(rows := found["tasks"], list):
        changed["tasks"] = f"{len(rows)}_{digest(rows)}"
    if "experience" in changed:
        changed["experience"] = "_".join(map(str, changed["experience"]))
    if strengths := changed.pop("perturbations", None):
        changed |= {name: "_".join(f"{x:g}" for x in each) for name, each in strengths.items()}
    changed |= dict(sorted(influential(overrides).items()))
    texts = {key: json.dumps(value, default=str) for key, value in changed.items()}
    plain = {key: re.sub(r"[^\w.-]+", "_", text.strip('"')) for key, text in texts.items()}
    stem = "-".join([protocol, split, *(f"{key}_{plain[key]}" for key in plain)])
    # Content of an untrusted file must not name a file elsewhere.
    stem = re.sub(r"[^\w.-]+", "_", stem)
    exact = all(texts[key] in (plain[key], f'"{plain[key]}"') for key in texts)
    if exact and len(stem) <= MAX_STEM:
        return stem
    return f"{stem[:MAX_STEM]}-{digest(texts)}"


def influential(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that may change results: not the number of threads, nor the sampler,
    which is that of training, nor tracking."""
    return {
        key: value
        for key, value in overrides.items()
        if key != "threads" and key.split(".")[0] not in ("sampler", "tracking")
    }


def digest(content: Any) -> str:
    """Return eight hexadecimal digits that tell plain values from others."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def stem_of_content(content: Mapping[str, Any]) -> str:
    """Return the name, without ending, of a result file with this content.

    Raises:
        Exception: of almost any kind, if it is no content of a result file.
    """
    own = next(iter(content["methods"].values()))
    overrides = content.get("overrides", {})
    return result_stem(content["protocol"], content["split"], own["checkpoint"], content, overrides)


def result_path(out: Path, stem: str) -> Path:
    """Return the path of a result file, in a folder in which a file can be written.

    Args:
        out: a new file that ends in .json, or a folder, which is made.
        stem: the name of the file in a folder, without ending.

    Raises:
        UserError: if the file, or a figure of its name, exists; if `out` has the ending of another
            kind of file; if it is in a run's folder of results, and its name does not begin with
            protocol and split; if the folder cannot be made, or no file written in it; or if
            something else than a file has a name that is needed.
    """
    if out.suffix in OTHER_FORMATS and not out.is_dir():
        raise UserError(f"--out: expected a file that ends in .json, or a folder, got {out}")
    file = out if out.suffix == ".json" and not out.is_dir() else out / f"{stem}.json"
    for path in (file, *figure_files(file)) if file == out else ():
        if path.exists():
            raise UserError(f"--out: {path} exists already; expected a new file, or a folder")
    check_reported(file, stem)
    make_output_folder(file.parent)
    for path in (file, *figure_files(file), file.with_name(LOCK_FILE)):
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is there and not a file, so that no result can be written")
    return file


def check_reported(file: Path, stem: str) -> None:
    """Check that a report can show a file, if it is in a run's folder of results: reports know the
    protocol by the name of the file.

    Args:
        file: the file.
        stem: the name that it has by default, without ending.

    Raises:
        UserError: if its name does not begin with protocol and split.
    """
    folder = file.resolve().parent
    if folder.name != "evaluation" or not (folder.parent / "config.yaml").is_file():
        return
    kind = "-".join(stem.split("-")[:2])
    if not re.fullmatch(rf"{re.escape(kind)}(-[\w.-]+)?", file.stem):
        raise UserError(
            f"--out: {file}: reports show what is in this folder; expected a name such as "
            f"{kind}-mine.json, or another folder"
        )


def write_result(file: Path, content: Mapping[str, Any]) -> None:
    """Write a result file, and lose nothing of an earlier one with the same name.

    If the run's own results are those of the earlier file, its further baselines are kept in the
    new file. Otherwise, such as after more training, the earlier file and its figure get the name
    of what they hold: with the iteration of the checkpoint, and a number if that is taken. One
    process at a time writes into a folder.

    Args:
        file: the file.
        content: its content, whose first method is the run's own.

    Raises:
        StorageError: if a file cannot be written.
    """
    with writing_results(file):
        _write_result(file, content)


@contextlib.contextmanager
def writing_results(file: Path) -> Iterator[None]:
    """Keep other processes from writing result files, and their figures, into the folder of one."""
    with wrap_os_errors(file.with_name(LOCK_FILE)):
        held = FileLock(file.with_name(LOCK_FILE)).acquire()
    with held:
        yield


def _write_result(file: Path, content: Mapping[str, Any]) -> None:
    """Write a result file while no other process writes into its folder; see `write_result`."""
    new = json.loads(encode(content))
    kept = None
    with contextlib.suppress(Exception):  # a damaged file, of which there is nothing to keep
        if file.exists():
            earlier = read_json(file)
            if own_parts(earlier) == own_parts(new):
                new = with_baselines(new, earlier)
            else:
                kept = earlier_name(file, earlier)
    if kept:
        with wrap_os_errors(kept):
            for figure in figure_files(file):
                if figure.exists():
                    figure.replace(kept.with_suffix(figure.suffix))
            file.replace(kept)
    write_atomically(file, encode(new))


def figure_files(file: Path) -> list[Path]:
    """Return the files of the figure of a result file, which are beside it."""
    return [file.with_suffix(f".{ending}") for ending in FIGURE_FORMATS]


def earlier_name(file: Path, content: Mapping[str, Any]) -> Path:
    """Return a free name for an earlier result file of this content."""
    own = next(iter(content["methods"].values()))
    stem = stem_of_content(content)
    if stem == file.stem and type(own.get("iteration")) is int:
        stem += f"-iteration_{own['iteration']}"
    return free_name(file.parent, stem)


def own_parts(content: Mapping[str, Any]) -> Any:
    """Return the results of the run's own method in the content of a result file."""
    return next(iter(content["methods"].values()))["parts"]


def with_baselines(new: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a result file with the further baselines of an earlier one.

    A baseline of the earlier file with other results than that of the same label in the new one is
    labelled with its source too; one that the new file has under another label is left out.

    Raises:
        Exception: of almost any kind, if the earlier content is damaged.
    """
    methods = dict(new["methods"])
    for label, entry in [*earlier["methods"].items()][1:]:
        if any(is_same_agent(entry, each) for each in new["methods"].values()):
            continue
        if label in methods and methods[label]["parts"] != entry["parts"]:
            label = printable(
                f"{label} ({entry['checkpoint']}, iteration {entry.get('iteration')})"
            )
        methods.setdefault(label, entry)
    against = dict.fromkeys([*new["against"], *earlier.get("against", [])])
    return {**new, "against": [*against], "methods": methods}


def is_same_agent(entry: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two methods of result files are one checkpoint, with the same results."""
    keys = ("checkpoint", "iteration", "parts")
    return "checkpoint" in entry and all(entry.get(key) == other.get(key) for key in keys)


def free_name(folder: Path, stem: str) -> Path:
    """Return a result file of a folder that does not exist, STEM.json or STEM-2.json and so on."""
    number, path = 1, folder / f"{stem}.json"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    return path
