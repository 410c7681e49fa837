"""A full disk and folders that vanish while training: it stops, says how to go on, and can."""

import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from examples.soak.trainer import CONTEXT
from metarl.cli.main import main
from metarl.core.errors import StorageError, UserError
from metarl.envs import PointNav
from metarl.evaluation.compare import evaluate_run
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from tests.training.test_loop import TINY, assert_same_outcome, tiny

NO_SPACE = "No space left on device"


def flags(settings):
    return [f"--{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of six iterations, with checkpoints at 2, 4 and 6."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "finished").directory


@pytest.fixture
def in_the_fourth_iteration(monkeypatch):
    """Does something while the fourth iteration runs."""

    def install(action):
        sample, calls = PointNav.sample_tasks, []

        def acting(self, rng, num_tasks):
            calls.append(1)
            if len(calls) == 4:
                action()
            return sample(self, rng, num_tasks)

        monkeypatch.setattr(PointNav, "sample_tasks", acting)

    return install


def full_disk_at(name):
    """The disk is full when a file is written anew."""

    def harm(directory):
        path = directory / name
        path.with_name(f".{path.name}.partial").symlink_to("/dev/full")

    return harm, lambda directory: None, f"/{name}: cannot be written ({NO_SPACE})"


def full_disk_for(name):
    """The disk is full when a file is appended to."""

    def harm(directory):
        (directory / name).rename(directory / "aside")
        (directory / name).symlink_to("/dev/full")

    def mend(directory):
        (directory / "aside").replace(directory / name)

    return harm, mend, f"/{name}: cannot be written ({NO_SPACE})"


def moved(name):
    """A file or folder is not where it was."""

    def harm(directory):
        (directory / name).rename(directory.with_name("aside"))

    def mend(directory):
        directory.with_name("aside").rename(directory / name)

    return harm, mend, "cannot be written (No such file or directory)"


def no_folder():
    """There is a file where the folder of checkpoints was."""

    def harm(directory):
        (directory / "checkpoints").rename(directory / "aside")
        (directory / "checkpoints").touch()

    def mend(directory):
        (directory / "checkpoints").unlink()
        (directory / "aside").rename(directory / "checkpoints")

    return harm, mend, "cannot be written (Not a directory)"


FAULTS = [
    full_disk_at("checkpoints/iteration-000004.pt"),
    full_disk_at("checkpoints/latest.pt"),
    full_disk_for("metrics.jsonl"),
    full_disk_for("timings.jsonl"),
    moved("metrics.jsonl"),
    moved("checkpoints"),
    moved("."),
    no_folder(),
]


@pytest.mark.parametrize(("harm", "mend", "expected"), FAULTS)
def test_training_stops_with_one_line_and_goes_on_later(
    tmp_path, capsys, in_the_fourth_iteration, finished, harm, mend, expected
):
    directory = tmp_path / "run"
    in_the_fourth_iteration(lambda: harm(directory))
    code = main(["train", "point_nav/maml_trpo", *flags(TINY), "--out", str(directory)])
    error = capsys.readouterr().err
    assert_one_line(code, error, directory, expected)

    mend(directory)
    assert not list(directory.rglob(".*.partial"))
    # The third is saved where only the one write failed.
    saved = 3 if expected.startswith("/checkpoints/") else 2
    assert Run.open(directory).load().iteration == saved
    resume(directory)
    assert_same_outcome(directory, finished)


def assert_one_line(code, error, directory, reason):
    assert code == 1
    assert error.startswith("metarl: error: training stopped: ")
    assert reason in error
    assert error.endswith(f"go on with: metarl train --resume {directory}\n")
    assert error.count("\n") == 1


def test_a_full_disk_below_standard_output_stops_training_too(
    tmp_path, capsys, monkeypatch, finished
):
    directory = tmp_path / "run"
    with open("/dev/full", "w") as full, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stdout", full)
        code = main(["train", "point_nav/maml_trpo", *flags(TINY), "--out", str(directory)])
        monkeypatch.undo()
        os.dup2(nowhere.fileno(), full.fileno())  # for what is left to flush
    error = capsys.readouterr().err
    assert_one_line(code, error, directory, f"standard output: cannot be written ({NO_SPACE})")
    resume(directory)
    assert_same_outcome(directory, finished)


def test_a_full_disk_below_standard_output_leaves_the_files_of_an_evaluation(
    tmp_path, capsys, monkeypatch, finished
):
    with open("/dev/full", "w") as full, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stdout", full)
        words = ["--tasks=2", "--episodes=2", "--steps=1", f"--out={tmp_path}"]
        code = main(["evaluate", str(finished), *words])
        monkeypatch.undo()
        os.dup2(nowhere.fileno(), full.fileno())  # for what is left to flush
    assert (code, capsys.readouterr().err) == (1, f"metarl: error: standard output: {NO_SPACE}\n")
    for kind in ("json", "png"):
        (file,) = tmp_path.glob(f"*.{kind}")
        assert file.stat().st_size


def resume_with_small_files(directory, errors, limit):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(main(["train", "--resume", str(directory), "--iterations=16"]))


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A finished run of sixteen iterations, whose timings are larger than all other files."""
    return train(tiny(iterations=16), tmp_path_factory.mktemp("runs") / "longer")


@pytest.mark.parametrize(
    ("file", "done", "room"),
    [("checkpoints/latest.pt", 2, -500), ("timings.jsonl", 14, 300)],
)
def test_files_that_may_not_grow_stop_training_and_later_it_goes_on(
    tmp_path, longer, file, done, room
):
    """By the system's own limit on the size of files, which cuts a line of the log short."""
    directory, errors = tmp_path / "run", tmp_path / "errors"
    train(tiny(iterations=done), directory)
    limit = (directory / file).stat().st_size + room  # less than a line of the timings more
    process = CONTEXT.Process(target=resume_with_small_files, args=(directory, errors, limit))
    process.start()
    process.join(120)
    reason = f"{Path(file).suffix}: cannot be written (File too large)"
    assert_one_line(process.exitcode, errors.read_text(), directory, reason)
    if file == "timings.jsonl":
        content = (directory / file).read_bytes()
        assert len(content) == limit
        assert not content.endswith(b"\n")
    assert not list(directory.rglob(".*.partial"))
    resume(directory)
    assert_same_outcome(directory, longer.directory)


def test_an_evaluation_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path, capsys, finished
):
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    (directory / "evaluation").mkdir()
    (directory / "evaluation" / ".k_step-test-tasks_2-episodes_2-steps_1.json.partial").symlink_to(
        "/dev/full"
    )
    assert main(["evaluate", str(directory), "--tasks=2", "--episodes=2", "--steps=1"]) == 1
    out, error = capsys.readouterr()
    path = directory / "evaluation" / "k_step-test-tasks_2-episodes_2-steps_1.json"
    assert error == f"metarl: error: {path}: cannot be written ({NO_SPACE})\n"
    assert out.startswith("point_nav: 2 test tasks")  # what was measured is printed all the same


@pytest.mark.parametrize("out", ["/proc", "/proc/result.json"])
def test_a_result_that_cannot_be_written_is_known_before_anything_is_played(finished, out):
    def played(label):
        raise AssertionError(label)

    with pytest.raises(UserError, match=r"^/proc: cannot be written \("):
        evaluate_run(finished, tasks=2, out=Path(out), on_agent=played)


@pytest.mark.parametrize("name", ["best.pt", "latest.pt"])
def test_a_folder_in_place_of_a_checkpoint_is_told_before_the_next_iteration(
    finished, tmp_path, name
):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "checkpoints" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises((StorageError, UserError), match=name):
        resume(run, iterations=7)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys, dry):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    assert main(["train", "point_nav/maml_trpo", *flags(TINY), "--out", str(out), *dry]) == 2
    found = out.parent if dry else out  # of which it is known without making anything
    assert capsys.readouterr().err == (
        f"metarl: error: {found}: cannot be written (Not a directory)\n"
    )
