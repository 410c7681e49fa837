"""Files that are written whole or not at all, and logs of which only whole lines are read."""

import json
import os

import pytest

from metarl.core.errors import StorageError, UserError
from metarl.runs.atomic_io import (
    append_line,
    make_folder,
    make_output_folder,
    whole_lines,
    write_atomically,
)


def test_a_file_is_replaced_whole_and_alone(tmp_path):
    path = tmp_path / "a.json"
    for content in (b"long " * 1000, b"short"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    """On a full disk, whether the failure comes at once or when the last bytes are flushed."""
    path = tmp_path / "a.json"
    path.write_text("old")
    for size in (10, 10**6):
        (tmp_path / ".a.json.partial").symlink_to("/dev/full")
        with pytest.raises(StorageError, match=r"a\.json: .*No space left on device") as failure:
            write_atomically(path, b"x" * size)
        assert isinstance(failure.value, OSError)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").symlink_to("/dev/full")
    for name, reason in (("folder", "Is a directory"), ("full", "No space left on device")):
        with pytest.raises(StorageError, match=f"{name}: cannot be written .{reason}"):
            append_line(tmp_path / name, "{}")
    with pytest.raises(
        StorageError, match=r"gone/a: cannot be written \(No such file or directory"
    ):
        write_atomically(tmp_path / "gone" / "a", b"")


def test_a_folder_is_made_with_those_above_it_or_the_error_names_it(tmp_path):
    for _ in range(2):
        make_output_folder(tmp_path / "a" / "b")
        assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    for make, error in ((make_folder, StorageError), (make_output_folder, UserError)):
        with pytest.raises(error, match=r"file/c: cannot be written \(Not a directory\)"):
            make(tmp_path / "file" / "c")


def test_a_log_that_vanished_does_not_begin_again(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(StorageError, match=r"a\.jsonl: .*No such file"):
        append_line(path, "{}")
    assert not path.exists()


def log(*numbers):
    return b"".join(json.dumps({"iteration": number}).encode() + b"\n" for number in numbers)


@pytest.mark.parametrize(
    "tail",
    [
        b'{"iteration": 3',
        b'{"iteration": 3}',  # it might go on
        b'{"iteration": 3, "x": \xff}\n',
        bytes(20),  # as some file systems leave after a power cut
        bytes(20) + b"\n" + log(4),
        b"[3]\n",
        b"\n" + log(3),
        log(2),
        log(4),
    ],
)
def test_only_whole_lines_in_order_count(tmp_path, tail):
    path = tmp_path / "a.jsonl"
    path.write_bytes(log(1, 2) + tail)
    assert whole_lines(path, bool) == [{"iteration": 1}, {"iteration": 2}]


def test_a_log_that_is_not_there_is_empty_and_one_that_cannot_be_read_is_named(tmp_path):
    assert whole_lines(tmp_path / "a.jsonl", bool) == []
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        whole_lines(tmp_path, bool)


def test_what_is_no_file_is_not_replaced(tmp_path):
    """Such as a device; as root that of the whole machine would be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(
            StorageError, match=rf"^{path}: cannot be written \(it is there and not"
        ):
            write_atomically(path, b"x")
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]
