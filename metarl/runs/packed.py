"""Files of tensors and numbers: written atomically, verified by a checksum, and read without
running any code."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.parsing import error_summary
from metarl.runs.atomic_io import write_atomically


class DamagedFile(UserError):
    """A file is missing or truncated, or its content does not match its checksum."""


def pack(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, texts and nested mappings, by name, atomically.

    Raises:
        StorageError: if the file cannot be written.
    """
    # Not directly to the file: torch hides the OSError of a failed write.
    packed = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, packed)
    write_atomically(path, packed.getvalue())


def unpack(path: Path, kind: str, formats: tuple[int, int]) -> dict[str, Any]:
    """Return the content of a file of `pack`, which has a number `format`.

    Args:
        path: the file.
        kind: what the file is, such as "checkpoint".
        formats: the oldest and the newest format that are read.

    Raises:
        DamagedFile: if the file is missing or damaged, or has an older format.
        UserError: if it has a newer format.
    """
    if not path.is_file():
        raise DamagedFile(f"{path}: there is no such {kind}")
    oldest, newest = formats
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content.pop("checksum", None)
        whole = stored == checksum(content)
        version = content.pop("format")
    except Exception as error:  # torch raises many types of errors at damaged bytes
        # torch's words advise to load what it refuses, which would execute what is in the file.
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({error_summary(error)})"
        raise DamagedFile(
            f"{path}: not a whole {kind} of metarl, perhaps cut short{reason}"
        ) from error
    if stored is None:
        raise DamagedFile(
            f"{path}: not a {kind} of a format that is read ({oldest} to {newest}): "
            "it has no checksum"
        )
    if not whole:
        raise DamagedFile(f"{path}: damaged, its content does not match its checksum")
    if not isinstance(version, int):
        raise DamagedFile(f"{path}: not a {kind} of metarl (format {version!r})")
    if version > newest:
        raise UserError(
            f"{path}: written by a newer metarl: format {version}, this one reads up to {newest}"
        )
    if version < oldest:
        raise DamagedFile(
            f"{path}: not a {kind} of metarl (format {version}, expected at least {oldest})"
        )
    return content


def number_in(path: Path) -> int:
    """Return the number at the end of the name of a file; -1 without one."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, types, shapes and values, independent of the memory layout.

    The checksum must not change in later formats: it distinguishes a damaged file from a file of a
    newer format.

    Args:
        content: tensors, numbers, texts and nested mappings, by name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name!r} {value.dtype} {list(value.shape)}\n".encode())
            elements = value.detach().cpu().contiguous().flatten()  # `view` needs an axis
            digest.update(elements.view(torch.uint8).numpy().tobytes())
        else:
            plain = checksum(value) if isinstance(value, Mapping) else repr(value)
            digest.update(f"{name!r} {type(value).__name__} {plain}\n".encode())
    return digest.hexdigest()
