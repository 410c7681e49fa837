"""A kind of agent of one's own, through all commands, none of which knows of it."""

import json
import re
import signal

import numpy as np
import pytest
import torch
import yaml

import metarl
from examples.soak.trainer import start
from metarl.agents import AgentConfig
from metarl.cli.main import main
from metarl.config_files import load_config, make_config
from metarl.core.errors import ConfigError, UserError
from metarl.evaluation.protocols import PROTOCOLS
from metarl.runs.run import Run
from tests.agents.mean_action import MeanActionAgent, MeanActionConfig
from tests.training.test_loop import assert_same_outcome

KIND = "tests.agents.mean_action:MeanActionConfig"
DATA = {
    "env": {"family": "point_nav", "horizon": 8},
    "method": "mean_action",
    "iterations": 12,
    "checkpoint_every": 2,
    "sampling": {"num_tasks": 4, "num_episodes": 2, "adaptation_steps": 2, "train_tasks": 6},
    "agent": {"kind": KIND, "lr": 0.3},
    "tracking": {"mode": "disabled"},
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "mean_action.yaml"
    path.write_text(yaml.safe_dump(DATA))
    return path


@pytest.fixture(scope="module")
def run(config_file, tmp_path_factory):
    """A run that the command has trained."""
    directory = tmp_path_factory.mktemp("runs") / "mean_action"
    flags = ["--agent.std=0.2", "--threads=1"]
    assert main(["train", str(config_file), *flags, "--out", str(directory)]) == 0
    return Run.open(directory)


def test_the_command_trains_it(run):
    """By the settings of file and flags; all phases are there."""
    assert run.config.agent == MeanActionConfig(lr=0.3, std=0.2)
    lines = run.metrics()
    assert len(lines) == 12
    assert all({"outer_kl", "best_return", "adaptation_gain"} <= line.keys() for line in lines)
    assert lines[-1]["env_steps"] <= 12 * 3 * 4 * 2 * 8
    state, fresh = run.load().agent, run.config.make_agent()
    assert state["num_updates"] == 12
    assert type(state["num_updates"]) is int
    assert not np.array_equal(state["prior"].numpy(), fresh.prior)
    agent = metarl.load(run.directory)
    assert isinstance(agent.unwrapped, MeanActionAgent)
    assert np.array_equal(agent.prior, state["prior"].numpy())
    assert agent.num_updates == 12


def test_killed_and_resumed_it_is_the_same_to_the_bit(run, config_file, tmp_path):
    """Also on other numbers of threads."""
    directory, errors = tmp_path / "killed", tmp_path / "errors"
    words = ["train", str(config_file), "--agent.std=0.2", "--threads=2", f"--out={directory}"]
    process = start(words, directory, errors, die_at=60)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, errors.read_text()
    assert 0 < Run.open(directory).load().iteration < 12
    assert main(["train", "--resume", str(directory)]) == 0
    assert_same_outcome(directory, run.directory)


def test_an_update_without_diagnostics_is_no_skipped_one(tmp_path, monkeypatch):
    monkeypatch.setattr(MeanActionAgent, "update", lambda self, rollouts, rng, timer: {})
    data = {**DATA, "iterations": 1, "on_failure": "drop_episode"}
    (line,) = metarl.train(make_config(data, "test", {}), tmp_path / "run").metrics()
    assert (line["dropped_episodes"], line["skipped_update"]) == (0, 0)


@pytest.mark.parametrize(
    ("diagnostics", "message"),
    [
        (None, "update returned None; expected numbers by name"),
        ({"loss": np.nan}, "update returned loss: nan; expected a finite number"),
        ({"loss": np.zeros(2)}, "update returned loss: array([0., 0.]); expected a finite number"),
        ({"return_after": 1.0}, "update returned return_after, which is a metric of the training"),
        ({"steps": 7}, "update returned steps, which is a metric of the training"),
        ({"return_worst": 7}, "update returned return_worst, which is a metric of the training"),
        ({"validation/return_after": 7}, "update returned validation/return_after, which is a m"),
    ],
)
def test_diagnostics_that_cannot_be_metrics_are_named(diagnostics, message, tmp_path, monkeypatch):
    monkeypatch.setattr(MeanActionAgent, "update", lambda self, rollouts, rng, timer: diagnostics)
    with pytest.raises(UserError, match=re.escape(f"{KIND}: {message}")):
        metarl.train(make_config(DATA, "test", {}), tmp_path / "run")


def test_diagnostics_may_be_scalars_of_numpy_and_torch(tmp_path, monkeypatch):
    numbers = {"loss": np.float32(0.5), "norm": torch.tensor(2.0), "count": np.int64(3)}
    monkeypatch.setattr(MeanActionAgent, "update", lambda self, rollouts, rng, timer: numbers)
    config = make_config({**DATA, "iterations": 1}, "test", {})
    (line,) = metarl.train(config, tmp_path / "run").metrics()
    assert [line[name] for name in numbers] == [0.5, 2.0, 3]


def test_an_agent_without_its_methods_is_refused(monkeypatch):
    monkeypatch.delattr(MeanActionAgent, "adapt")
    monkeypatch.delattr(MeanActionAgent, "remembers")
    message = f"agent.kind: the agent of {KIND} does not define adapt, remembers"
    with pytest.raises(ConfigError, match=message):
        make_config(DATA, "test", {}).make_agent()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_evaluates_it(run, protocol, capsys):
    size = "--trials=2" if protocol == "few_episode" else "--steps=2"
    sizes = ["--tasks=5", "--episodes=2", size, "--against=random"]
    words = ["evaluate", str(run.directory), "--protocol", protocol, *sizes]
    assert main(words) == 0
    assert "mean_action" in capsys.readouterr().out
    (file,) = (run.directory / "evaluation").glob(f"{protocol}-*.json")
    methods = json.loads(file.read_text())["methods"]
    assert methods.keys() == {"mean_action", "random"}
    for part in methods["mean_action"]["parts"].values():
        assert np.isfinite(np.array(part["returns"], float)).all()


def test_the_average_of_its_checkpoints_is_that_of_what_may_be_averaged(run):
    """The prior's; the count of updates is the last one's."""
    kept = [run.load(str(iteration)).agent for iteration in (10, 12)]
    average = run.load("average").agent
    assert average["num_updates"] == 12
    assert torch.equal(average["prior"], torch.stack([each["prior"] for each in kept]).mean(0))


def test_an_average_of_nothing_is_refused(run, monkeypatch):
    monkeypatch.setattr(MeanActionConfig, "may_average", AgentConfig.may_average)
    with pytest.raises(UserError, match=r"lets no tensor be averaged \(AgentConfig.may_average\)"):
        run.load("average")


def test_it_is_shown_in_a_video(run, tmp_path):
    """point_nav is drawn without OpenGL."""
    out = tmp_path / "video.gif"
    size = ["--steps=2", "--episodes=2", "--width=96", "--height=96"]
    assert main(["render", str(run.directory), *size, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"GIF8")


def test_a_report_is_written_of_it(run):
    assert main(["report", str(run.directory)]) == 0
    page = (run.directory / "report" / "report.html").read_text()
    assert "mean_action" in page


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ({"lrr": 1}, f"agent.lrr: unknown key where agent.kind is {KIND} (nearest: lr)"),
        (
            {"inner": {}},
            f"agent.inner: unknown key where agent.kind is {KIND} (known where it is maml)",
        ),
        ({"lr": 2.0}, "agent.lr: expected more than 0, at most 1, got 2.0"),
    ],
)
def test_its_own_keys_are_checked(agent, expected):
    data = {**DATA, "agent": {"kind": KIND, **agent}}
    with pytest.raises(ConfigError) as error:
        make_config(data, "test", {})
    assert str(error.value) == f"test: {expected}"


def test_its_own_check_is_made(config_file):
    with pytest.raises(ConfigError, match=r"agent\.kind: indices of discrete actions have no mean"):
        load_config(config_file, env={"family": "tabular_mdp"})
