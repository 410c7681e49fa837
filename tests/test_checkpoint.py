"""Checkpoints: whole or absent, and safe to read."""

import pickle

import pytest
import torch

from metarl import checkpoint
from metarl.checkpoint import Checkpoint
from metarl.checks import UserError

STATE = Checkpoint(3, 1200, -1.5, {"weight0": torch.arange(6.0).reshape(2, 3)})


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path)
    assert (loaded.iteration, loaded.env_steps, loaded.best_return) == (3, 1200, -1.5)
    assert torch.equal(loaded.agent["weight0"], STATE.agent["weight0"])
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"a\.pt: not a whole checkpoint"):
        checkpoint.load(path)


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"b\.pt: there is no such checkpoint"):
        checkpoint.load(tmp_path / "b.pt")


@pytest.mark.parametrize("content", [[1, 2], {"format": 99}, {"format": 1, "iteration": 2}])
def test_other_files_of_torch_are_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"a\.pt"):
        checkpoint.load(path)


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_in_place_of_a_checkpoint_executes_nothing(tmp_path, capsys):
    bare, wrapped = tmp_path / "bare.pt", tmp_path / "wrapped.pt"
    bare.write_bytes(pickle.dumps(Malicious(), protocol=2))
    torch.save({"format": 1, "agent": Malicious()}, wrapped)
    for path in (bare, wrapped):
        with pytest.raises(UserError, match=path.name):
            checkpoint.load(path)
    assert "executed" not in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, STATE)
    assert path.read_bytes() == before
