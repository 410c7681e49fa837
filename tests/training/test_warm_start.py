"""Runs that begin from the parameters of another run."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shlex
import shutil

import pytest
import torch

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.reporting.groups import group_runs
from metarl.reporting.report import write_report
from metarl.reporting.summary import read_summaries
from metarl.runs.identity import group_name
from metarl.runs.run import Run, is_free
from metarl.training.iterations import Interrupted
from metarl.training.loop import resume, start_or_resume, train
from tests.training.test_loop import assert_same_outcome, tiny

OTHER = {"agent.inner.lr": 0.05, "iterations": 3, "checkpoint_every": 2}
"""Settings of the runs that begin from another one."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of six iterations, with checkpoints at 2, 4 and 6."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "source").directory


@pytest.fixture(scope="module")
def warm(source):
    """A run from its parameters, with other settings."""
    return train(tiny(**OTHER), source.parent / "warm", init_from=source)


def test_it_begins_from_the_parameters_of_the_other_run(source, warm, tmp_path):
    initial, theirs = warm.load("0").agent, Run.open(source).load().agent
    for name, value in theirs.items():
        assert torch.equal(initial[name], value)
    cold = train(tiny(**OTHER), tmp_path / "cold")
    assert cold.metrics()[0]["return_before"] != warm.metrics()[0]["return_before"]
    # Its first iteration plays what the other agent plays.
    agent, family = metarl.load(source), warm.config.env
    begun = metarl.load(warm.directory, "0")
    results = [metarl.evaluate(each, family, tasks=2, steps=0) for each in (agent, begun)]
    assert (results[0].returns == results[1].returns).all()


def test_an_agent_of_another_kind_is_refused_by_kind(source, tmp_path):
    config = metarl.load_config({"agent": {"kind": "rl2", "network": {"size": 5}}}, base=tiny())
    said = r"--init-from: .*source: .* \(its agent is of the kind maml, the new one of rl2\)$"
    with pytest.raises(UserError, match=said):
        train(config, tmp_path / "run", init_from=source)
    assert not (tmp_path / "run").exists()


def test_settings_by_which_the_parameters_are_another_policy_are_named(source, tmp_path):
    changed = {"agent.policy.activation": "tanh", "agent.policy.obs_scale": [2.0, 2.0]}
    run = train(tiny(**OTHER, **changed), tmp_path / "run", init_from=source)
    theirs = Run.open(source).config.agent.policy
    assert theirs.activation == "relu"
    assert run.origin.remark.endswith(
        "; agent.policy.activation was relu; agent.policy.obs_scale was []"
    )


@pytest.mark.parametrize("checkpoint", ["2", "best", "average"])
def test_a_checkpoint_is_named_after_the_colon(source, tmp_path, checkpoint):
    run = train(tiny(**OTHER), tmp_path / "run", init_from=f"{source}:{checkpoint}")
    theirs = Run.open(source).load(checkpoint)
    assert torch.equal(run.load("0").agent["params.weight0"], theirs.agent["params.weight0"])
    assert run.origin
    assert run.origin.experiment.endswith(
        f":average-{theirs.iteration}" if checkpoint == "average" else f":{theirs.iteration}"
    )


def test_the_checkpoint_before_training_is_not_averaged(warm):
    kept = [warm.load(number).agent["params.weight0"] for number in ("2", "3")]
    assert torch.equal(warm.load("average").agent["params.weight0"], kept[1])
    assert {path.stem for path in warm.checkpoints.glob("*.pt")} >= {"iteration-000000", "latest"}


def test_it_goes_on_to_the_bit_without_the_other_run(source, warm, tmp_path):
    """Interrupted before the first checkpoint of its own, and after it."""
    gone = shutil.copytree(source, tmp_path / "gone")
    directory = tmp_path / "run"
    start_or_resume(tiny(**{**OTHER, "iterations": 1}), directory, init_from=gone)
    shutil.rmtree(gone)
    for path in (directory / "checkpoints").glob("*"):
        if path.name != "iteration-000000.pt":
            path.unlink()
    start_or_resume(tiny(**{**OTHER, "iterations": 2}), directory, init_from=gone)
    resume(directory, iterations=3)
    shutil.copytree(warm.directory, tmp_path / "warm")
    # Ending after one iteration, it kept a checkpoint there.
    (directory / "checkpoints" / "iteration-000001.pt").unlink(missing_ok=True)
    assert_same_outcome(directory, tmp_path / "warm")


def test_interrupted_in_the_first_iteration_it_goes_on(source, warm, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    directory = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("metarl.training.iterations.meta_iteration", interrupt)
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            train(tiny(**OTHER), directory, init_from=source)
    resume(directory)
    assert_same_outcome(directory, warm.directory)


@pytest.mark.parametrize(
    ("begun", "given", "message"),
    [
        ("source", None, "was begun with --init-from {source}, not without --init-from"),
        (None, "source", "was begun without --init-from, not with --init-from {source}"),
        ("source", "source:2", "was begun with --init-from {source}, not with --init-from"),
        ("source", "gone", "--init-from: .*gone: not a run's folder"),
        ("source", "source", None),
        ("source", "copy", None),
    ],
)
def test_it_is_continued_with_its_own_origin_only(source, tmp_path, begun, given, message):
    shutil.copytree(source, tmp_path / "copy")
    places = {
        "source": str(source),
        "source:2": f"{source}:2",
        "copy": str(tmp_path / "copy"),
        "gone": str(tmp_path / "gone"),
        None: None,
    }
    config = tiny(**{**OTHER, "iterations": 1})
    train(config, tmp_path / "run", init_from=places[begun])
    more = config.replace(iterations=2)
    if message is None:
        run = start_or_resume(more, tmp_path / "run", init_from=places[given])
        assert len(run.metrics()) == 2
        return
    with pytest.raises(UserError, match=message.format(source=source)):
        start_or_resume(more, tmp_path / "run", init_from=places[given])


def test_an_interrupted_creation_leaves_a_free_folder(source, tmp_path):
    warm = train(tiny(**OTHER), tmp_path / "run", init_from=source).directory
    for path in [*warm.iterdir(), *(warm / "checkpoints").iterdir()]:
        if path.name not in ("provenance.json", "checkpoints", "iteration-000000.pt"):
            path.unlink()
    assert is_free(warm)
    cold = train(tiny(**OTHER), warm)
    assert cold.origin is None
    assert not (warm / "checkpoints" / "iteration-000000.pt").exists()
    (warm / "config.yaml").unlink()
    assert not is_free(warm), "the checkpoints of a run whose config is gone are kept"


# --- identity ---


def test_the_origin_tells_experiments_apart_by_their_settings(source, warm, tmp_path):
    """Not by the folder: a copy, and other seeds of both runs, are the same experiment."""
    other = train(tiny(seed=5), tmp_path / "other").directory
    copied = shutil.copytree(source, tmp_path / "copy")
    longer = train(tiny(iterations=7), tmp_path / "longer").directory
    runs = {
        name: train(tiny(**{**OTHER, "seed": seed}), tmp_path / "runs" / name, init_from=origin)
        for seed, (name, origin) in enumerate(
            {
                "seed": other,
                "copied": copied,
                "again": f"{warm.directory}:0",
                "longer": longer,
                "earlier": f"{source}:4",
                "cold": None,
            }.items(),
            start=10,
        )
    }
    names = {name: group_name(run.config, run.origin) for name, run in runs.items()}
    expected = group_name(warm.config, warm.origin)
    assert [name for name in names if names[name] == expected] == ["seed", "copied", "again"]
    assert len({*names.values()}) == 4
    groups = group_runs(read_summaries([run.directory for run in runs.values()]))
    assert sorted(map(len, groups.values())) == [1, 1, 1, 3]
    assert any("init_from: maml_trpo-" in name for name in groups)
    assert any("no init_from" in name for name in groups)


def test_a_report_shows_it_and_its_commands_repeat_it(source, tmp_path):
    with contextlib.chdir(tmp_path):
        gone = shutil.copytree(source, "gone")
        run = train(tiny(**OTHER), "run", init_from="gone")
        shutil.rmtree(gone)
        page = write_report([run.directory])[0].read_text()
        card = (run.directory / "report" / "model_card.md").read_text()
        assert f"init_from: gone ({run.origin.experiment})" in card
        block = re.search(r"repeat this</h2>.*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1]
        words = shlex.split(html.unescape(block).splitlines()[0])
        assert words[words.index("--init-from") + 1] == "run:0"
        assert main(words[1:]) == 0
        assert_same_outcome(tmp_path / "run-repeated", tmp_path / "run")
        assert Run.open(tmp_path / "run-repeated").origin.experiment == run.origin.experiment


def test_a_damaged_origin_is_told_in_one_line(warm, tmp_path):
    directory = shutil.copytree(warm.directory, tmp_path / "run")
    file = directory / "provenance.json"
    content = json.loads(file.read_text())
    for damaged in ({"source": "x"}, "x", {**content["init_from"], "remark": "a\x1b"}):
        file.write_text(json.dumps({**content, "init_from": damaged}))
        with pytest.raises(UserError, match=r"provenance.json: init_from"):
            write_report([directory], tmp_path / "page")


# --- the command ---


def test_the_command_says_what_is_taken(source, tmp_path, capsys):
    words = ["train", "point_nav/maml_ppo", "--agent.policy.hidden=[8]", "--env.horizon=10"]
    words += ["--num-tasks=2", "--num-episodes=3", "--iterations=1", "--tracking.mode=disabled"]
    words += ["--init-from", f"{source}:4", "--out", str(tmp_path / "run")]
    assert main([*words, "--dry-run"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run: {tmp_path / 'run'} (0 of 1 iterations)"
    assert re.fullmatch(
        rf"begun from: {source}:4 \(maml_trpo-[0-9a-f]{{8}}:4\): 5 tensors taken; "
        "outer.exp_avg, outer.exp_avg_sq, outer.kl_weight and 1 more begin anew",
        lines[1],
    )
    assert last == f"# {lines[1]}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "CONFIG --init-from SOURCE --agent.policy.hidden=[9]",
            "params.bias0 has the shape [1, 8]",
        ),
        ("CONFIG --init-from SOURCE:3", "iteration-000003.pt: there is no such checkpoint"),
        ("CONFIG --init-from SOURCE:", "expected the name of a checkpoint, got ''"),
        ("CONFIG --init-from nowhere", "--init-from: nowhere: not a run's folder"),
        ("--resume SOURCE --init-from SOURCE", "goes on from its own checkpoint; give CONFIG"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(source, tmp_path, capsys, flags, message):
    words = flags.replace("CONFIG", "point_nav/maml_trpo").replace("SOURCE", str(source)).split()
    out = [] if "--resume" in words else ["--out", str(tmp_path / "run")]
    assert main(["train", *words, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
