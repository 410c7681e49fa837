"""File access that is safe against kills, full disks and power cuts; errors name the file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metarl.core.errors import StorageError, UserError


@contextlib.contextmanager
def wrap_os_errors(path: Path | str) -> Iterator[None]:
    """Convert OSError to StorageError naming `path`.

    Raises:
        StorageError: in place of any other OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{path}: cannot be written ({reason})") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file: at any time the file has either the old or the new content.

    Raises:
        StorageError: if the file cannot be written; it then still has the old content.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with wrap_os_errors(path):
        if path.exists() and not path.is_file():  # a device, a pipe or a folder would be replaced
            raise FileExistsError(errno.EEXIST, "it is there and not a file")
        if temporary.is_symlink() and not temporary.is_char_device():
            temporary.unlink()  # the target of the link would be overwritten
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            sync(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, where they are missing.

    Raises:
        StorageError: if it cannot be created; names the folder.
    """
    with wrap_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Check that a file can be made and written in a folder, before what it is for is computed.

    Raises:
        StorageError: if it cannot; names the folder.
    """
    with wrap_os_errors(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(b"0")


def make_output_folder(folder: Path) -> None:
    """Create a folder for results, with those above it, and check that it is writable, before the
    results are computed.

    Raises:
        UserError: if it cannot be created or written; names the folder.
    """
    try:
        make_folder(folder)
        check_writable(folder)
    except StorageError as error:
        raise UserError(str(error)) from error


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk.

    Raises:
        StorageError: if the disk cannot be written.
    """
    with wrap_os_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append a line to an existing file. A missing file is an error, since it was a deleted log.

    Raises:
        StorageError: if the file cannot be written, or does not exist; a part of the line may have
            been written.
    """

    def existing(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_CREAT)

    with wrap_os_errors(path), open(path, "ab", opener=existing) as file:
        file.write(f"{line}\n".encode())


def whole_lines(path: Path, usable: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return the entries of a log, one for each iteration, up to the first damaged line.

    Args:
        path: the file, with one JSON object on each line.
        usable: returns whether an entry has the required keys.

    Raises:
        UserError: if the file exists, but cannot be read.
    """
    entries = []
    for number, entry in enumerate(json_lines(path), start=1):
        if entry.get("iteration") != number or not usable(entry):
            break
        entries.append(entry)
    return entries


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one on each line, up to the first damaged line.

    Raises:
        UserError: if the file exists, but cannot be read.
    """
    for line in read(path).splitlines(keepends=True):
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            return
        if not isinstance(entry, dict) or not all(name.isprintable() for name in entry):
            return
        yield entry


def read(path: Path) -> bytes:
    """Return the content of a file, b"" if it does not exist.

    Raises:
        UserError: if the file exists, but cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
