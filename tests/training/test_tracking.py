"""W&B, for real: offline mode writes real run files."""

import struct
import time

import pytest
from wandb.proto import wandb_internal_pb2

import metarl
from metarl.cli.main import main
from metarl.evaluation.compare import evaluate_run
from metarl.reporting.evaluation import publish_evaluation
from metarl.reporting.report import write_report
from metarl.runs.run import Run
from metarl.training.loop import train
from metarl.training.tracking import NullTracker, start_tracker

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
    """Read a run file: a header of 7 bytes, then pieces of (checksum 4, length 2, kind 1, data)."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, pieces = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:  # too short for a piece: padding
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
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
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def test_without_a_login_a_run_is_tracked_offline_with_real_files(tmp_path, logged_out):
    run = train(config(**{"checkpoint_every": 2}), tmp_path / "a run (mine)")
    found = records(run.directory)
    kinds = [record.WhichOneof("record_type") for record in found]
    logged = [record for record in found if record.WhichOneof("record_type") == "history"]
    keys = {item.key or "/".join(item.nested_key) for item in logged[0].history.item}
    assert len(logged) == 2
    assert {"env_steps", "return_before", "return_after", "outer_kl", "seconds"} <= keys
    assert "artifact" in kinds or any("artifact" in str(record.request) for record in found)
    (started,) = [record for record in found if record.WhichOneof("record_type") == "run"]
    assert "agent" in {update.key for update in started.run.config.update}
    assert started.run.run_group == "point_nav/maml_trpo"


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
    assert {f"evaluation/{file.stem}", f"evaluation/{file.stem} curve"} <= keys


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
    assert len(figures) == 2


def test_tracking_can_be_off(tmp_path):
    run = Run.create(config(**{"tracking.mode": "disabled"}), tmp_path / "run")
    assert isinstance(start_tracker(run), NullTracker)


def test_tracking_does_not_change_the_result(tmp_path, logged_out):
    tracked = train(config(), tmp_path / "a")
    untracked = train(config(**{"tracking.mode": "disabled"}), tmp_path / "b")
    assert tracked.metrics_file.read_bytes() == untracked.metrics_file.read_bytes()
