"""Runs of RL2 and VariBAD through all commands: GRU and LSTM, discrete and continuous actions."""

from __future__ import annotations

import json
import re
import shutil
import signal

import numpy as np
import pytest
import yaml

import metarl
from examples.soak.trainer import start
from metarl.cli.main import main
from metarl.evaluation.protocols import PROTOCOLS
from metarl.reporting.names import method_text
from metarl.reporting.video import adaptation as video
from metarl.runs.run import Run
from tests.training.test_continuation import content
from tests.training.test_loop import assert_same_outcome
from tests.training.test_tracking import records

AGENTS = {
    "gru": {
        "env": {"family": "gridworld", "horizon": 6},
        "agent": {"kind": "rl2", "network": {"size": 6}},
    },
    "lstm": {
        "env": {"family": "point_nav", "horizon": 6},
        "agent": {
            "kind": "rl2",
            "network": {"cell": "lstm", "size": 5, "hidden": [4], "action_bound": "tanh"},
            "update": {"truncate": 7, "lr_anneal": 20, "across_episodes": False},
        },
    },
    "varibad": {
        "env": {"family": "point_nav", "horizon": 6},
        "agent": {
            "kind": "varibad",
            "encoder": {"size": 5, "latent": 2},
            "update": {"lr_anneal": 20, "across_episodes": False},
            "decoder": {"reward_inputs": "transition", "state_weight": 1.0, "task_weight": 1.0},
            # Three iterations fill the buffer, so that it goes round.
            "model": {"trials": 7, "bounds": 3, "buffer": 15},
        },
    },
}
RL2 = [name for name, values in AGENTS.items() if values["agent"]["kind"] == "rl2"]
SAMPLING = {"num_tasks": 3, "num_episodes": 2, "adaptation_steps": 2}
ITERATIONS = 10


@pytest.fixture(scope="module", params=AGENTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def config_file(name, tmp_path_factory):
    values = {**AGENTS[name], "sampling": SAMPLING}
    values |= {"iterations": ITERATIONS, "checkpoint_every": 2}
    path = tmp_path_factory.mktemp("configs") / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, "tracking": {"mode": "disabled"}}))
    return path


@pytest.fixture(scope="module")
def run(config_file, tmp_path_factory):
    """A run that was never stopped, on one thread."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", str(config_file), "--threads=1", "--out", str(directory)]) == 0
    return Run.open(directory)


def test_metrics_are_of_whole_trials(run, name):
    lines = run.metrics()
    assert len(lines) == ITERATIONS
    expected = {"outer_kl", "policy_loss", "value_loss", "entropy", "gradient_norm", "lr"}
    expected |= {"explained_variance", "return_before", "return_after", "adaptation_gain"}
    for line in lines:
        assert expected <= line.keys()
        assert ("policy_std" in line) == (name != "gru")
    assert lines[-1]["env_steps"] <= ITERATIONS * 3 * 3 * 2 * 6


@pytest.mark.parametrize("die_at", [60, 75])
def test_killed_by_sigkill_and_resumed_it_is_the_same_to_the_bit(
    run, config_file, tmp_path, die_at
):
    """Metrics and all tensors of all checkpoints, also on other numbers of threads."""
    directory, errors = tmp_path / "killed", tmp_path / "errors"
    words = ["train", str(config_file), "--threads=2", f"--out={directory}"]
    process = start(words, directory, errors, die_at=die_at)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, errors.read_text()
    assert 0 < Run.open(directory).load().iteration < ITERATIONS
    assert main(["train", "--resume", str(directory)]) == 0
    assert_same_outcome(directory, run.directory)


def test_tracking_writes_offline_files_and_changes_nothing(run, config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb"))
    directory = tmp_path / "tracked"
    words = ["train", str(config_file), "--tracking.mode=offline", "--out", str(directory)]
    assert main(words) == 0
    assert_same_outcome(directory, run.directory)
    lines = [each for each in records(directory) if each.WhichOneof("record_type") == "history"]
    found = {item.key or "/".join(item.nested_key) for item in lines[0].history.item}
    assert len(lines) == ITERATIONS
    assert {"train/outer_kl", "train/value_loss", "train/entropy", "time/seconds"} <= found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_evaluates_it_beside_the_untrained_agent(run, name, protocol, capsys):
    words = ["evaluate", str(run.directory), "--protocol", protocol, "--tasks=5", "--episodes=2"]
    size = "--trials=2" if protocol == "few_episode" else "--steps=2"
    code = main([*words, size, "--against=random"])
    if name == "gru" and protocol in ("ood", "drift"):  # a gridworld has no tasks beyond its cells
        assert code == 2
        assert capsys.readouterr().err.count("\n") == 1
        return
    assert code == 0
    (file,) = (run.directory / "evaluation").glob(f"{protocol}-*.json")
    methods = json.loads(file.read_text())["methods"]
    assert methods.keys() == {run.config.method, "random"}
    for part in methods["random"]["parts"].values():
        assert np.isfinite(np.array(part["returns"], float)).all()


def test_a_report_has_its_curves_evaluations_and_videos(run, tmp_path):
    others = shutil.ignore_patterns("evaluation")
    directory = shutil.copytree(run.directory, tmp_path / "run", ignore=others)
    words = [str(directory), "--steps=2", "--episodes=2"]
    assert main(["evaluate", *words, "--tasks=3"]) == 0
    out = directory / "videos" / "trial.gif"
    assert main(["render", *words, "--width=64", "--height=64", "--out", str(out)]) == 0
    assert main(["report", str(directory)]) == 0
    page = (directory / "report" / "report.html").read_text()
    assert '<h2 id="k_step-test-tasks_3-episodes_2-steps_2">' in page
    assert f'<th scope="row">{method_text(run.config.method)}</th>' in page
    assert "data:image/gif" in page
    assert re.search(r"Diagnostics of training</h2>.*<svg", page, re.DOTALL)


def test_a_video_shows_the_episodes_of_one_trial_side_by_side(run):
    """The first trial of each task, from its first episode on, with the memory carried on: the
    returns of the panels are those of an evaluation."""
    agent, family = metarl.load(run.directory), run.config.env
    tasks = family.tasks("test", 2)
    rows = video.play(agent, family, tasks, 2, 7, 3)
    assert [len(row) for row in rows] == [3, 3]
    found = metarl.evaluate(agent, family, tasks=tasks, episodes=3, steps=2, seed=7)
    for row, returns in zip(rows, found.returns, strict=True):
        for panel, of_episode in zip(row, returns, strict=True):
            assert panel.reward.sum() == pytest.approx(of_episode[0], abs=1e-5)
            assert panel.mean_return == of_episode.mean()
            assert len(panel.states) == len(panel.reward) + 1


def test_bench_names_its_parts(config_file, name, tmp_path):
    out = tmp_path / "bench.json"
    assert main(["bench", str(config_file), "--repeats=1", f"--json={out}"]) == 0
    result = json.loads(out.read_text())
    assert set(result["sections"]) == {
        *("physics", "policy inference", "other sampling", "adaptation", "advantages"),
        *("policy gradient", "evaluation"),
        *(["model"] if name == "varibad" else []),
    }
    parts = sum(result["sections"].values())
    assert 0.5 * result["iteration_seconds"] < parts <= 1.01 * result["iteration_seconds"]


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--agent.network.size=8"], "--agent.network.size"),
        (["--agent.network.hidden", "[7]"], "--agent.network.hidden"),
        (["--agent.update.truncate=3"], "--agent.update.truncate"),
        (["--agent.running_rewards=false"], "--agent.running-rewards"),
        (["--inner-steps=1"], "--inner-steps"),
        (["--num-episodes=4", "--threads=2"], "--num-episodes"),
        (["--agent.kind=maml"], "--agent.kind"),
    ],
)
@pytest.mark.parametrize("name", RL2, indirect=True)
def test_a_run_is_not_resumed_with_other_settings(run, capsys, words, flag):
    before = content(run.directory)
    assert main(["train", "--resume", str(run.directory), *words]) == 2
    assert content(run.directory) == before
    error = capsys.readouterr().err
    assert re.match(rf"metarl: error: {flag}: .* was begun with .*, which it keeps; ", error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", RL2, indirect=True)
def test_the_cell_of_a_run_is_kept(run, name, capsys):
    other = {"gru": "lstm", "lstm": "gru"}[name]
    words = ["train", "--resume", str(run.directory), f"--agent.network.cell={other}"]
    assert main(words) == 2
    assert f"was begun with {name}, which it keeps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--agent.network.size=0"], "agent.network.size: expected between 1 and 4096, got 0"),
        (
            ["--agent.network.hidden", "[0]"],
            r"agent.network.hidden\[0\]: expected between 1 and 4096, got 0",
        ),
        (
            ["--agent.network.init-std=0.1", "--agent.network.min-std=0.2"],
            "agent.network.init-std: expected at least min_std, got 0.1",
        ),
        (["--agent.network.cell=rnn"], "agent.network.cell: expected one of gru, lstm, got 'rnn'"),
        (["--agent.inner.lr=0.1"], "agent.inner.*: unknown .*rl2.*maml"),
        (["--agent.update.minibatches=0"], "agent.update.minibatches: expected at least 1, got 0"),
        (["--agent.update.truncate=-1"], "agent.update.truncate: expected at least 0, got -1"),
    ],
)
@pytest.mark.parametrize("name", RL2, indirect=True)
def test_bad_settings_are_one_line(config_file, tmp_path, capsys, words, error):
    out = tmp_path / "run"
    assert main(["train", str(config_file), *words, "--out", str(out)]) == 2
    found = capsys.readouterr().err
    assert re.search(error, found), found
    assert found.startswith("metarl: error: ")
    assert found.count("\n") == 1
    assert not out.exists()


def test_keys_of_rl2_are_unknown_where_the_kind_is_maml(capsys):
    assert main(["train", "point_nav/maml_trpo", "--agent.network.size=8", "--dry-run"]) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert re.search(r"agent.network.*unknown .*maml.*rl2", found), found


@pytest.mark.parametrize("name", ["varibad"], indirect=True)
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--agent.encoder.latent=0"], "agent.encoder.latent: expected between 1 and 1024, got 0"),
        (["--agent.model.buffer=0"], "agent.model.buffer: expected at least 1, got 0"),
        (
            ["--agent.model.buffer=15", "--agent.model.trials=16"],
            "agent.model.trials: expected at most 15, the model.buffer, got 16",
        ),
        (
            [f"--agent.decoder.{each}_weight=0" for each in ("reward", "state", "task")],
            "agent.decoder.reward-weight: expected more than 0 if no other decoder is used",
        ),
        (
            ["--agent.decoder.reward=sign"],
            "agent.decoder.reward: expected one of squared, positive",
        ),
        (["--agent.model.buffer=1000000000"], "need at least .* choose .*--agent.model.buffer"),
        (["--agent.network.size=8"], "agent.network.*: unknown .*varibad"),
    ],
)
def test_bad_settings_of_varibad_are_one_line(config_file, tmp_path, capsys, words, error):
    test_bad_settings_are_one_line(config_file, tmp_path, capsys, words, error)


@pytest.mark.parametrize("name", ["varibad"], indirect=True)
def test_the_replay_log_holds_what_the_buffer_does_and_no_more(run):
    """15 trials, 6 from each iteration: the last three iterations, and those of the checkpoint
    before."""
    assert run.replay.iterations() == list(range(ITERATIONS - 4, ITERATIONS + 1))
    phases = run.replay.load(ITERATIONS)
    assert [each.reward.shape for each in phases] == [(3, 2, 6)] * 3
    assert all(each.memory is None for each in phases)


@pytest.mark.parametrize("name", ["varibad"], indirect=True)
@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "of another iteration"])
def test_a_damaged_file_of_the_replay_log_is_named_and_left_out(run, tmp_path, capsys, damage):
    directory = shutil.copytree(run.directory, tmp_path / "run")
    path = directory / "replay" / f"iteration-{ITERATIONS - 1:06d}.pt"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        middle = len(content) // 2
        for place in range(middle, middle + 128):  # more than torch's padding
            content[place] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    else:
        shutil.copy(path.with_name(f"iteration-{ITERATIONS:06d}.pt"), path)
    words = ["train", "--resume", str(directory), f"--iterations={ITERATIONS + 1}"]
    assert main(words) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.match(rf"metarl: warning: {re.escape(str(path))}: .*without these episodes", error)
    (failure,) = Run.open(directory).failures()
    assert failure["iteration"] == ITERATIONS
    assert len(Run.open(directory).metrics()) == ITERATIONS + 1


@pytest.mark.parametrize("name", ["varibad"], indirect=True)
@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_replay_log_that_does_not_fit_on_the_disk_is_refused(
    config_file, tmp_path, capsys, monkeypatch, words
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    out = tmp_path / "not" / "there"
    assert main(["train", str(config_file), "--out", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search("need up to .* GB in .*there, and 1e-06 GB are free; choose .* --out", error)
    assert not out.parent.exists()
