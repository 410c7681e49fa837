"""Checkpoints: whole or absent, and safe to read."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metarl.core.errors import StorageError, UserError
from metarl.runs import checkpoint
from metarl.runs.checkpoint import (
    FORMAT,
    OLDEST_FORMAT,
    Checkpoint,
)
from metarl.runs.packed import DamagedFile, checksum

GOLDEN = Path(__file__).parent.parent / "golden"
STATE = Checkpoint(3, 1200, -1.5, {"weight0": torch.arange(6.0).reshape(2, 3), "scale": 0.5})


def test_a_saved_checkpoint_is_loaded(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path)
    assert (loaded.iteration, loaded.env_steps, loaded.best_return) == (3, 1200, -1.5)
    assert torch.equal(loaded.agent["weight0"], STATE.agent["weight0"])
    assert loaded.agent["scale"] == 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_the_average_is_the_mean_of_chosen_tensors_and_else_the_last_checkpoint():
    """Neither tensors of integers nor numbers have a mean, nor has an optimiser's state."""

    def state(number, value):
        agent = {
            "params.w": torch.full((2,), value),
            "params.count": torch.tensor(number),
            "params.scale": value,
            "optimizer.moment": torch.full((2,), value),
        }
        return Checkpoint(number, 10 * number, -1.0, agent)

    states = [state(1, 1.0), state(2, 2.0), state(3, 6.0)]
    found = checkpoint.average(states, may_average=lambda name: name.startswith("params."))
    assert (found.iteration, found.env_steps) == (3, 30)
    assert found.agent["params.w"].tolist() == [3.0, 3.0]
    assert found.agent["params.count"].item() == 3
    assert found.agent["params.scale"] == 6.0
    assert found.agent["optimizer.moment"].tolist() == [6.0, 6.0]


def test_a_checkpoint_with_tensors_of_a_gpu_is_loaded_without_one(tmp_path, monkeypatch):
    """The file names the device of each tensor."""
    path = tmp_path / "a.pt"
    with monkeypatch.context() as gpu:
        gpu.setattr("torch.serialization.location_tag", lambda _: "cuda:0")
        checkpoint.save(path, STATE)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(path, weights_only=True)
    loaded = checkpoint.load(path).agent["weight0"]
    assert loaded.device.type == "cpu"
    assert torch.equal(loaded, STATE.agent["weight0"])


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"a\.pt: not a whole checkpoint"):
        checkpoint.load(path)


def test_a_file_of_something_else_is_not_said_to_need_unsafe_loading(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"a\.pt: not a whole checkpoint of metarl, perhaps cut short$"
    ):
        checkpoint.load(tmp_path / "a.pt")


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"b\.pt: there is no such checkpoint"):
        checkpoint.load(tmp_path / "b.pt")


@pytest.mark.parametrize("content", [[1, 2], {"format": 99}, {"format": 2, "iteration": 2}])
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
    torch.save({"format": FORMAT, "agent": Malicious()}, wrapped)
    for path in (bare, wrapped):
        with pytest.raises(UserError, match=path.name):
            checkpoint.load(path)
    assert "executed" not in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()
    (tmp_path / ".a.pt.partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"a\.pt: cannot be written \(No space left on device\)"):
        checkpoint.save(path, STATE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def same(one, other):
    plain, others = (replace(each, agent={}, sampler={}) for each in (one, other))
    return plain == others and all(
        mine.keys() == theirs.keys()
        and all(equal(value, theirs[name]) for name, value in mine.items())
        for mine, theirs in ((one.agent, other.agent), (one.sampler, other.sampler))
    )


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path):
    """One bit in every third byte: at least as many are noticed as there are bytes that matter."""
    content = (GOLDEN / f"checkpoint-format{FORMAT}.pt").read_bytes()
    whole = checkpoint.load(GOLDEN / f"checkpoint-format{FORMAT}.pt")
    path, noticed = tmp_path / "a.pt", 0
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert same(checkpoint.load(path), whole), place
        except DamagedFile:
            noticed += 1
    assert noticed > len(content) / 3 / 4


def store(path, **changes):
    """Write a checkpoint with other content, and the checksum that goes with it."""
    content = {"format": FORMAT, **vars(STATE), **changes}
    torch.save({**content, "checksum": checksum(content)}, path)


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": 4},
        {"env_steps": 1201},
        {"best_return": 1.5},
        {"agent": {**STATE.agent, "weight0": STATE.agent["weight0"].double()}},
        {"agent": {**STATE.agent, "weight0": STATE.agent["weight0"].reshape(3, 2)}},
        {"agent": {**STATE.agent, "scale": 1}},
        {"agent": {"weight1": STATE.agent["weight0"], "scale": 0.5}},
        {"agent": {}},
        {"format": FORMAT + 1},
    ],
)
def test_the_checksum_is_of_names_types_shapes_and_values(tmp_path, change):
    path = tmp_path / "a.pt"
    store(path)
    assert same(checkpoint.load(path), STATE)
    content = torch.load(path, weights_only=True)
    torch.save({**content, **change}, path)
    with pytest.raises(DamagedFile, match=r"a\.pt: damaged, .* does not match its checksum"):
        checkpoint.load(path)


def test_the_checksum_does_not_depend_on_how_a_tensor_lies_in_memory():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert checksum({"x": tensor.T.contiguous().T}) == checksum({"x": tensor})


@pytest.mark.parametrize("version", range(OLDEST_FORMAT, FORMAT + 1))
def test_each_format_from_the_oldest_is_read(version):
    """The state after two iterations of ProMP, with Adam's moments; numbers since format 3, the
    state of a sampler since format 4."""
    state = checkpoint.load(GOLDEN / f"checkpoint-format{version}.pt")
    assert (state.iteration, state.env_steps) == (2, 144)
    assert state.best_return == -1.9415838619073233
    assert state.agent["outer.step"] == 10
    assert len(state.agent["outer.exp_avg"]) == 19
    newest = checkpoint.load(GOLDEN / f"checkpoint-format{FORMAT}.pt")
    tensors = {name: x for name, x in newest.agent.items() if isinstance(x, torch.Tensor)}
    numbers = {name: x for name, x in newest.agent.items() if name not in tensors}
    agent, sampler = (state.agent, state.sampler) if version > 2 else (tensors, {})
    assert same(state, replace(newest, agent=agent, sampler=sampler if version > 3 else {}))
    assert newest.sampler["probabilities"].tolist() == [[0.75, 0.25]]
    assert numbers == {"reward_scale": 0.5, "count": 7}


def test_a_checkpoint_without_a_checksum_is_refused(tmp_path):
    """As those of format 1 were."""
    path = tmp_path / "a.pt"
    torch.save({"format": 1, **vars(STATE)}, path)
    with pytest.raises(DamagedFile, match=r"a\.pt: not a checkpoint of a format that is read"):
        checkpoint.load(path)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    store(path, format=FORMAT + 1, future=torch.zeros(2))
    expected = (
        f"a.pt: written by a newer metarl: format {FORMAT + 1}, this one reads up to {FORMAT}"
    )
    with pytest.raises(UserError, match=expected) as refusal:
        checkpoint.load(path)
    assert not isinstance(refusal.value, DamagedFile)  # an older one must not take its place


@pytest.mark.parametrize(
    "change",
    [
        {"format": "two"},
        {"format": OLDEST_FORMAT - 1},
        {"iteration": "many"},
        {"best_return": None},
        {"agent": [1]},
        {"agent": {"weight0": "1.0"}},
        {"agent": {"weight0": True}},
        {"agent": {"weight0": float("nan")}},
        {"agent": {"weight0": float("inf")}},
        {"agent": {"weight0": [1.0]}},
        {"iteration": True},
        {"surprise": 1},
    ],
)
def test_content_of_another_kind_is_refused_whatever_its_checksum(tmp_path, change):
    path = tmp_path / "a.pt"
    store(path, **change)
    with pytest.raises(DamagedFile, match=r"a\.pt: not a "):
        checkpoint.load(path)
