"""Files of offline W&B runs that a later one replaces."""

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
