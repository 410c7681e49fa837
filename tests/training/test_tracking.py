"""W&B, for real: offline mode writes real run files."""

import json
import os
import re
import shutil
import struct
import time
import zlib

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.envs import PointNav
from metarl.evaluation.compare import evaluate_run
from metarl.reporting.comparison import compare
from metarl.reporting.evaluation import publish_evaluation
from metarl.reporting.report import write_report
from metarl.runs.identity import group_name
from metarl.runs.run import Run
from metarl.training.loop import train
from metarl.training.tracker import NullTracker
from metarl.training.tracking import start_tracker
from metarl.training.wandb_tracker import wandb_id

pytestmark = pytest.mark.all_formats
BLOCK = 32768  # W&B's run files are LevelDB logs


def records(directory):
    """Return the records that a run's W&B files hold.

    W&B's own process writes them, and may still do so a moment after `finish` has returned.
    """
    return [
        record for path in directory.glob("wandb/offline-run-*/*.wandb") for record in ended(path)
    ]


def ended(path, seconds=30):
    """Read a run file once its last record, which says that the run has ended, is there."""
    for _ in range(10 * seconds):
        found = list(read(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has not ended within {seconds} s")


def read(path):
    """Read a run file: a header of 7 bytes, then pieces of (checksum 4, length 2, kind 1, data).

    Ends at the first piece that is not wholly written: its checksum, over kind and data, is wrong.
    """
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, pieces = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:  # too short for a piece: padding
            position += BLOCK - position % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        end = position + 7 + length
        if zlib.crc32(content[position + 6 : end]) != checksum:
            return
        pieces += content[position + 7 : end]
        position = end
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            yield record
            pieces = b""


def config(**overrides):
    values = {"iterations": 2, "num_tasks": 2, "num_episodes": 3, "env.horizon": 6}
    return metarl.load_config("point_nav/maml_trpo", **{**values, **overrides})


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def test_without_a_login_a_run_is_tracked_offline_with_real_files(tmp_path, logged_out):
    run = train(config(**{"checkpoint_every": 2}), tmp_path / "a run (mine)")
    found = records(run.directory)
    kinds = [record.WhichOneof("record_type") for record in found]
    logged = [record for record in found if record.WhichOneof("record_type") == "history"]
    keys = {item.key or "/".join(item.nested_key) for item in logged[0].history.item}
    assert len(logged) == 2
    expected = {"train/return_before", "train/return_after", "train/outer_kl"}
    expected |= {"iteration", "env_steps", "time/seconds", "time/env_steps_per_second"}
    assert expected <= keys
    sectioned = {key for key in keys if key.startswith(("train/", "time/", "_"))}
    assert keys - sectioned == {"iteration", "env_steps"}
    assert "artifact" in kinds or any("artifact" in str(record.request) for record in found)
    (started,) = [record for record in found if record.WhichOneof("record_type") == "run"]
    assert "agent" in {update.key for update in started.run.config.update}
    assert started.run.run_group == group_name(run.config)
    assert re.fullmatch(r"point_nav/maml_trpo-[0-9a-f]{8}", started.run.run_group)


def test_the_origin_of_a_warm_start_is_tracked(tmp_path, logged_out):
    untracked = {"iterations": 1, "tracking.mode": "disabled"}
    source = train(config(**untracked), tmp_path / "source").directory
    run = train(config(iterations=1), tmp_path / "run", init_from=source)
    kinds = ((record.WhichOneof("record_type"), record) for record in records(run.directory))
    (started,) = [record for kind, record in kinds if kind == "run"]
    values = {update.key: json.loads(update.value_json) for update in started.run.config.update}
    assert values["init_from"] == str(run.origin)
    assert started.run.run_group == group_name(run.config, run.origin) != group_name(run.config)


def test_an_evaluation_is_tracked_too(tmp_path, logged_out):
    run = train(config(iterations=1, **{"tracking.mode": "disabled"}), tmp_path / "run")
    results, file = evaluate_run(run.directory, tasks=2, episodes=2, steps=1)
    tracked = Run.open(run.directory, **{"tracking.mode": "offline"})
    publish_evaluation(tracked, file, results)
    assert list(run.directory.glob("wandb/offline-run-*/files/media/**/*.png"))
    keys = {
        item.key or item.nested_key[0]
        for record in records(run.directory)
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
    }
    assert {f"eval/{file.stem}", f"eval/{file.stem} curve"} <= keys
    logged = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for record in records(run.directory)
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
    }
    means = [logged[f"eval/{file.stem}/maml_trpo/return/{x}"] for x in (0, 1)]
    assert means == [float(mean) for mean in results["maml_trpo"].mean]


def test_a_video_is_tracked_too(tmp_path, logged_out):
    run = train(config(iterations=1, **{"tracking.mode": "offline"}), tmp_path / "run")
    argv = ["render", str(run.directory), "--out", str(tmp_path / "video.mp4"), "--steps", "1"]
    assert main([*argv, "--width", "96", "--height", "96", "--episodes", "2"]) == 0
    (video,) = run.directory.glob("wandb/offline-run-*/files/media/videos/**/*.mp4")
    assert video.read_bytes() == (tmp_path / "video.mp4").read_bytes()


def test_a_report_is_tracked_too(tmp_path, logged_out):
    run = train(config(iterations=1, **{"tracking.mode": "offline"}), tmp_path / "run")
    files = write_report([run.directory])
    sent = run.directory.glob("wandb/offline-run-*/files/media/images/**/*.png")
    figures = [path for path in files if path.suffix == ".png"]
    assert {path.read_bytes() for path in sent} == {path.read_bytes() for path in figures}
    assert {path.stem for path in figures} == {"learning", "learning-hours", "diagnostics"}


def test_tracking_can_be_off(tmp_path):
    run = Run.create(config(**{"tracking.mode": "disabled"}), tmp_path / "run")
    assert isinstance(start_tracker(run), NullTracker)


def test_tracking_does_not_change_the_result(tmp_path, logged_out):
    tracked = train(config(), tmp_path / "a")
    untracked = train(config(**{"tracking.mode": "disabled"}), tmp_path / "b")
    assert tracked.metrics_file.read_bytes() == untracked.metrics_file.read_bytes()


def test_the_environment_wins_over_the_config(tmp_path, logged_out, monkeypatch):
    """An online config may come with somebody else's run (docs/tracking.md)."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for mode in ("auto", "online", "offline"):
        run = Run.create(config(**{"tracking.mode": mode}), tmp_path / mode)
        assert isinstance(start_tracker(run), NullTracker)
    monkeypatch.setenv("WANDB_MODE", "dryrun")  # W&B's older name of offline
    run = Run.create(config(**{"tracking.mode": "disabled"}), tmp_path / "disabled")
    chosen = {"PROJECT": "p", "ENTITY": "e", "NAME": "n", "RUN_GROUP": "g", "JOB_TYPE": "j"}
    for name, value in {**chosen, "RUN_ID": "i"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    start_tracker(run).finish()
    (made,) = [
        each.run for each in records(run.directory) if each.WhichOneof("record_type") == "run"
    ]
    assert (made.project, made.entity, made.display_name) == ("p", "e", "n")
    assert (made.run_group, made.job_type, made.run_id) == ("g", "j", "i")


def test_a_mistyped_mode_is_refused_before_the_work_begins(tmp_path, monkeypatch, capsys):
    run = Run.create(config(**{"tracking.mode": "disabled"}), tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "ofline")
    message = (
        "WANDB_MODE: expected auto, online, offline or disabled, got 'ofline' (nearest: offline)"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        train(config(), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    video = ["--out", str(tmp_path / "video.mp4")]
    for argv in (
        ["train", "point_nav/maml_trpo", "--dry-run"],
        ["evaluate", str(run.directory)],
        ["render", str(run.directory), *video],
        ["report", str(run.directory)],
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "a/b", "x#1", "100%", "x" * 129])
def test_a_project_that_wandb_refuses_is_known_before_the_work_begins(tmp_path, monkeypatch, name):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match=r"^tracking\.project: expected 1 to 128 char"):
        train(config(**{"tracking.project": name}), tmp_path / "run")
    if name:
        monkeypatch.setenv("WANDB_PROJECT", name)
        with pytest.raises(UserError, match=r"^WANDB_PROJECT: expected 1 to 128 char"):
            compare(["point_nav/maml_trpo"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RUN_ID", "a/b", "at most 128 characters, none of them : ; , # ? / '"),
        ("RUN_ID", " a", "at most 128 characters, none of them"),
        ("INIT_TIMEOUT", "abc", "a number of seconds above 0, got 'abc'"),
        ("FINISH_TIMEOUT", "0", "a number of seconds above 0, got '0'"),
    ],
)
def test_variables_that_wandb_refuses_are_known_before_the_work_begins(
    tmp_path, logged_out, monkeypatch, capsys, name, value, expected
):
    run = Run.create(config(**{"tracking.mode": "disabled"}), tmp_path / "run")
    monkeypatch.setenv(f"WANDB_{name}", value)
    expected = f"WANDB_{name}: expected {expected}"
    with pytest.raises(UserError, match=re.escape(expected)):
        train(config(), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert main(["evaluate", str(run.directory)]) == 2
    assert expected in capsys.readouterr().err
    assert not (run.directory / "evaluation").exists()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(config(iterations=1), tmp_path / "other")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("trackers", "[nope:X]"), ("project", "a/b")],
)
def test_trackers_of_flags_are_checked_before_an_evaluation_and_a_video(
    tmp_path, logged_out, capsys, flag, value
):
    run = train(config(iterations=1, **{"tracking.mode": "disabled"}), tmp_path / "run")
    tracking = [f"--tracking.{flag}", value, "--tracking.mode", "offline"]
    for argv in (["evaluate", "--tasks=1"], ["render", f"--out={tmp_path / 'video.mp4'}"]):
        assert main([argv[0], str(run.directory), *argv[1:], *tracking]) == 2
        assert f"tracking.{flag}: " in capsys.readouterr().err
    assert not (run.directory / "evaluation").exists()
    assert not (tmp_path / "video.mp4").exists()


def test_a_run_that_the_caller_has_open_is_neither_used_nor_ended(tmp_path, logged_out):
    own = wandb.init(mode="offline", dir=str(tmp_path), project="mine")
    run = train(config(), tmp_path / "run")
    assert len([r for r in records(run.directory) if r.WhichOneof("record_type") == "history"]) == 2
    own.log({"mine": 1})
    own.finish()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    (logged,) = [
        record
        for record in ended(folder / f"run-{own.id}.wandb")
        if record.WhichOneof("record_type") == "history"
    ]
    assert "mine" in {item.key or item.nested_key[0] for item in logged.history.item}


def test_a_login_that_cannot_be_used_is_tracked_offline(tmp_path, logged_out, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    run = train(config(), tmp_path / "run")
    wandb.teardown()  # which forgets the key
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "W&B is out of reach, so this run is tracked offline: AuthenticationError" in line
    assert len([r for r in records(run.directory) if r.WhichOneof("record_type") == "history"]) == 2


def test_without_a_home_folder_to_write_in_nothing_of_a_run_is_lost(
    tmp_path, logged_out, monkeypatch, capsys
):
    """As in a container that runs as another user."""
    monkeypatch.delenv("WANDB_CONFIG_DIR")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", "")  # so that it is restored
        monkeypatch.delenv(f"WANDB_{name}_DIR")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    run = train(config(**{"tracking.artifacts": "all", "checkpoint_every": 1}), tmp_path / "run")
    assert "warning" not in capsys.readouterr().err
    found = records(run.directory)
    assert len([each for each in found if each.WhichOneof("record_type") == "history"]) == 2
    assert any((run.directory / "wandb" / ".data").rglob("*"))


def begun(run):
    """Return the records with which the W&B runs of a folder begin."""
    return [each.run for each in records(run.directory) if each.WhichOneof("record_type") == "run"]


def test_a_long_name_of_a_folder_is_shortened(tmp_path, logged_out, capsys):
    """W&B accepts 128 characters in the name of a run or an artifact."""
    run = train(config(iterations=1), tmp_path / ("a" * 200))
    assert "warning" not in capsys.readouterr().err
    (made,) = begun(run)
    assert made.display_name == "a" * 117 + f" train {made.run_id[:4]}"
    names = artifacts(run)
    assert names == ["a" * 104 + f"-{made.run_id}-checkpoint"]
    assert [len(name) for name in names] == [128]


def test_runs_are_grouped_as_in_a_report(tmp_path, logged_out):
    """By their settings, not by their label: other seeds have one group, of any job."""
    long = {"method": "m" * 100, "env.family": "tests.training.test_tracking:LongNav"}
    groups = {}
    for name, changed in {
        "a": {},
        "b": {"seed": 1, "threads": 2},
        "c": {"agent.inner.lr": 5},
        "d": long,
        "e": {**long, "agent.inner.lr": 5},
    }.items():
        run = Run.create(config(**changed), tmp_path / name)
        for job in ("train", "evaluate"):
            start_tracker(run, job).finish()
        (groups[name],) = {made.run_group for made in begun(run)}
    assert groups["a"] == groups["b"]
    assert len(set(groups.values())) == 4
    assert {len(groups[name]) for name in "de"} == {128}


def test_tracking_is_set_for_an_evaluation_and_a_video(tmp_path, logged_out):
    """Which belong to the run's own group, whatever else is set for them."""
    run = train(config(iterations=1, **{"tracking.mode": "disabled"}), tmp_path / "run")
    sizes = ["--tasks=1", "--episodes=2", "--steps=1", "--env.horizon=3"]
    tracked = ["--tracking.mode=offline", "--tracking.project=mine"]
    video = ["--out", str(tmp_path / "a.gif"), "--width=96", "--height=96"]
    for command, extra in (("evaluate", []), ("render", video)):
        assert main([command, str(run.directory), *sizes, *extra]) == 0
        assert not (run.directory / "wandb").exists()
    for command, extra in (("evaluate", []), ("render", video)):
        assert main([command, str(run.directory), *sizes, *extra, *tracked]) == 0
    made = begun(run)
    assert sorted((each.job_type, each.project) for each in made) == [
        ("evaluate", "mine"),
        ("render", "mine"),
    ]
    assert {each.run_group for each in made} == {group_name(run.config)}


class LongNav(PointNav):
    """Has a name that is long."""

    name = "n" * 50


def artifacts(run):
    """Return the names of the artifacts that the W&B runs of a folder hold, in order."""
    found = [each for each in records(run.directory) if each.WhichOneof("record_type") == "request"]
    return [each.request.log_artifact.artifact.name for each in found] or [
        each.artifact.name
        for each in records(run.directory)
        if each.WhichOneof("record_type") == "artifact"
    ]


def test_a_run_keeps_its_id_on_another_machine(tmp_path):
    run = Run.create(config(), tmp_path / "here" / "run")
    other = Run.create(config(), tmp_path / "other")
    copy = shutil.copytree(run.directory, tmp_path / "there" / "copy")
    longer = Run.open(copy, iterations=9, threads=2, **{"tracking.mode": "online"})
    assert wandb_id(longer, "train") == wandb_id(run, "train")
    ids = {wandb_id(each, job) for each in (run, other) for job in ("train", "evaluate")}
    assert len(ids) == 4
    for directory in (run.directory, other.directory):  # as before runs had ids
        (directory / "provenance.json").write_text("{}")
    another = Run(other.directory, other.config.replace(seed=1))
    assert wandb_id(run, "train") != wandb_id(another, "train")


def test_the_runs_of_a_folder_have_names_of_their_own_and_are_announced_once(
    tmp_path, logged_out, capsys
):
    run = Run.create(config(), tmp_path / "run")
    jobs = ["train", "evaluate", "render", "report"]
    for job in jobs:
        start_tracker(run, job).finish()
    assert sorted(made.display_name.rsplit(" ", 1)[0] for made in begun(run)) == sorted(
        f"run {job}" for job in jobs
    )
    lines = capsys.readouterr().out.splitlines()
    sync = f"is tracked offline; send it with: wandb sync {run.directory}/wandb"
    assert [line.partition(" is")[0].rsplit(" ", 1)[0] for line in lines] == [
        f"W&B: 'run {job}" for job in jobs
    ]
    assert all(line.endswith(sync) for line in lines)


@pytest.mark.parametrize(("kept", "versions"), [("all", 3), ("last", 1), ("none", 0), (None, 1)])
def test_checkpoints_are_artifacts_as_the_config_says(kept, versions, tmp_path, logged_out):
    chosen = {} if kept is None else {"tracking.artifacts": kept}
    run = train(config(iterations=3, checkpoint_every=1, **chosen), tmp_path / "run")
    names = artifacts(run)
    assert len(names) == versions
    assert all(name.endswith("-checkpoint") for name in names)


def test_a_wrong_choice_of_artifacts_is_refused():
    with pytest.raises(UserError, match=r"tracking\.artifacts: .*last"):
        config(**{"tracking.artifacts": "lats"})
