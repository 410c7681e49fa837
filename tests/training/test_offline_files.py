"""Files of offline W&B runs that a later one replaces."""

import subprocess
import sys

from metarl.training.loop import train
from metarl.training.offline_files import mark_synced, superseded_files
from tests.training.test_loop import tiny


def test_a_file_is_marked_in_the_folder_of_the_run_and_nowhere_else(tmp_path):
    """A run's folder may be untrusted: its links do not lead a mark elsewhere."""
    run = train(tiny(iterations=1), tmp_path / "run")
    recorded = []
    for time in ("1", "2"):
        folder = run.directory / "wandb" / f"offline-run-{time}-id"
        folder.mkdir(parents=True)
        recorded.append(folder / "run-id.wandb")
        recorded[-1].write_bytes(b"records")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run-id.wandb").write_bytes(b"records")
    (run.directory / "wandb" / "offline-run-3-id").symlink_to(outside)
    marker = recorded[0].with_name("run-id.wandb.synced")
    marker.symlink_to(tmp_path / "nowhere")
    found = superseded_files(run, recorded[1].parent, "id", "train")
    assert found == [recorded[0]]
    for file in found:
        mark_synced(file)
    assert not marker.is_symlink()
    assert marker.is_file()
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in outside.iterdir()] == ["run-id.wandb"]


HOLD = """
import sys
from pathlib import Path
from metarl.training.offline_files import hold
lock = hold(Path(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


def test_an_empty_file_of_a_process_that_still_works_is_not_left_out(tmp_path):
    """W&B buffers the records of an evaluation, so that its file is long without any."""
    run = train(tiny(iterations=1), tmp_path / "run")
    folder = run.directory / "wandb" / "offline-run-1-id"
    folder.mkdir(parents=True)
    file = folder / "run-id.wandb"
    file.write_bytes(b":W&B123")
    own = run.directory / "wandb" / "offline-run-2-id"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        assert superseded_files(run, own, "id", "evaluate") == []
        process.stdin.close()
    assert superseded_files(run, own, "id", "evaluate") == [file]
    file.write_bytes(b":W&B123 records")
    assert superseded_files(run, own, "id", "evaluate") == []
