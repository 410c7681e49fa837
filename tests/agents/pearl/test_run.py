"""Runs of PEARL: resumed, and evaluated."""

from __future__ import annotations

import shutil
import signal

import pytest
import torch
import yaml

from examples.soak.trainer import start
from metarl.cli.main import main
from metarl.config_files import make_config
from metarl.evaluation.loaded import load
from metarl.runs.packed import pack
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from tests.agents.pearl.test_agent import SMALL, assert_same
from tests.training.test_loop import assert_same_outcome

DATA = {
    "env": {"family": "point_nav", "horizon": 6},
    "agent": {"kind": "pearl", **SMALL},
    "sampling": {"num_tasks": 4, "num_episodes": 2, "adaptation_steps": 1, "train_tasks": 6},
    "checkpoint_every": 3,
    "threads": 1,
    "tracking": {"mode": "disabled"},
}


def test_a_resumed_run_is_the_uninterrupted_one_after_the_buffer_has_wrapped(tmp_path):
    """Three iterations fill the buffer; the files of what fell out of it are gone."""
    config = make_config(DATA, "test", {"iterations": 11})
    whole = train(config, tmp_path / "whole")
    train(config.replace(iterations=7), tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("replay/*"))) <= 6
    parts = resume(tmp_path / "parts", iterations=11)
    assert_same(parts.load().agent, whole.load().agent)
    assert parts.metrics() == whole.metrics()
    assert whole.metrics()[-1]["replay_size"] <= 300


def test_a_run_of_many_short_sessions_keeps_no_more_episodes_than_one_without_a_break(tmp_path):
    """Each session reaches one kept checkpoint, or none."""
    config, folder = make_config(DATA, "test", {"iterations": 2}), tmp_path / "run"
    run = train(config, folder)
    for iterations in (3, 6, 7, 9, 12, 15):
        run = resume(folder, iterations=iterations)
    whole = train(config.replace(iterations=15), tmp_path / "whole")
    assert run.replay.iterations() == whole.replay.iterations() == list(range(10, 16))
    assert_same(run.load().agent, whole.load().agent)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of four iterations, of which the last three are in the buffer."""
    config = make_config(DATA, "test", {"iterations": 4})
    return train(config, tmp_path_factory.mktemp("runs") / "stopped").directory


@pytest.mark.parametrize("gone", [[1], [2], [4], [2, 3], [1, 2, 3, 4]])
def test_each_missing_file_of_the_replay_log_is_warned_of(stopped, tmp_path, capsys, gone):
    """But not the first, which has fallen out of the buffer."""
    directory = shutil.copytree(stopped, tmp_path / "run")
    paths = [directory / "replay" / f"iteration-{number:06d}.pt" for number in gone]
    for path in paths:
        path.unlink()
    run = resume(directory, iterations=5)
    expected = [f"{path}: there is no such file of episodes" for path in paths if gone != [1]]
    if len(gone) == 4:
        expected = [f"{directory / 'replay'}: there is no file of episodes"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[0] for line in lines] == [
        f"metarl: warning: {each}" for each in expected
    ]
    assert len(run.failures()) == len(expected)
    resume(directory, iterations=6)
    again = capsys.readouterr().err  # only of a gap between the iterations that are kept
    assert again.count("\n") == (gone == [4])


def test_a_replay_log_of_an_earlier_version_is_whole(stopped, tmp_path, capsys):
    """Its files do not say what the agent kept."""
    directory, same = (shutil.copytree(stopped, tmp_path / each) for each in ("run", "same"))
    for path in directory.glob("replay/*"):
        content = torch.load(path, weights_only=True)
        del content["oldest"], content["checksum"]
        pack(path, content)
    states = [resume(each, iterations=6).load().agent for each in (directory, same)]
    assert_same(*states)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("die_at", [90, 110, 130])
def test_killed_by_sigkill_and_resumed_it_is_the_same_to_the_bit(tmp_path, die_at):
    """Metrics and all tensors of all checkpoints, also on other numbers of threads, with a buffer
    that has wrapped around."""
    path, killed, errors = tmp_path / "pearl.yaml", tmp_path / "killed", tmp_path / "errors"
    path.write_text(yaml.safe_dump({**DATA, "iterations": 11}))
    assert main(["train", str(path), f"--out={tmp_path / 'whole'}"]) == 0
    process = start(["train", str(path), "--threads=2", f"--out={killed}"], killed, errors, die_at)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, errors.read_text()
    assert 0 < Run.open(killed).load().iteration < 11
    assert main(["train", "--resume", str(killed)]) == 0
    assert_same_outcome(killed, tmp_path / "whole")


def test_normalised_observations_are_those_of_the_replay_buffer_too(tmp_path):
    """And a run is resumed with them."""
    agent = {**DATA["agent"], "normalize_observations": True}
    config = make_config({**DATA, "agent": agent}, "test", {"iterations": 4})
    whole = train(config, tmp_path / "whole")
    train(config.replace(iterations=2), tmp_path / "parts")
    parts = resume(tmp_path / "parts", iterations=4)
    assert_same(parts.load().agent, whole.load().agent)


def test_a_run_is_evaluated_by_all_protocols(tmp_path, capsys):
    directory = train(make_config(DATA, "test", {"iterations": 2}), tmp_path / "run").directory
    for protocol in ("k_step", "few_episode", "ood", "continual"):
        flags = ["--tasks=5", "--episodes=2", f"--protocol={protocol}"]
        flags += ["--trials=2"] if protocol == "few_episode" else ["--steps=2"]
        assert main(["evaluate", str(directory), *flags]) == 0
    capsys.readouterr()
    assert not load(directory).replay.tasks  # evaluation needs none
