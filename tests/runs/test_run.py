"""A run's folder: which checkpoint is gone by when some are damaged, and who may train in it."""

import contextlib
import itertools
import json
import math
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from examples.soak.trainer import CONTEXT
from metarl.cli.main import main
from metarl.config_files import load_config
from metarl.core.errors import StorageError, UserError
from metarl.reporting.report import write_report
from metarl.runs.checkpoint import Checkpoint, save
from metarl.runs.run import Run
from metarl.runs.run_checkpoints import INITIAL
from metarl.training.loop import resume, start_or_resume, train
from tests.training.test_loop import assert_same_outcome, tiny

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of six iterations, with checkpoints at 2, 4 and 6."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "finished").directory


@pytest.fixture
def stopped(finished, tmp_path):
    """A copy of it as if killed in the sixth iteration: `latest` is of the fourth."""
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    (directory / "checkpoints" / "iteration-000006.pt").unlink()
    for name in ("latest", "best"):
        shutil.copy(checkpoint(directory, 4), directory / "checkpoints" / f"{name}.pt")
    for name in ("metrics.jsonl", "timings.jsonl"):
        keep_lines(directory / name, 5)
    return directory


def checkpoint(directory, name):
    name = f"iteration-{name:06d}" if isinstance(name, int) else name
    return directory / "checkpoints" / f"{name}.pt"


def keep_lines(path, count, tail=b""):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:count]) + tail)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-300])


def corrupt(path):
    """Change one byte of the numbers."""
    content = bytearray(path.read_bytes())
    place = content.index(b"data/0") + 200
    content[place] ^= 0x10
    path.write_bytes(content)


DAMAGES = (cut_short, corrupt, Path.unlink)


def test_checkpoints_are_listed_as_they_are_given(finished):
    expected = (
        r"iteration-000003\.pt: there is no such checkpoint \(there are: best, 2, 4, 6, latest"
    )
    with pytest.raises(UserError, match=expected):
        Run.open(finished).load("3")


def test_the_average_is_of_the_last_kept_checkpoints(finished, monkeypatch):
    """A quarter of three is one; half of them are two."""
    last = Run.open(finished).load("average").agent
    for name, value in Run.open(finished).load("6").agent.items():
        assert torch.equal(last[name], value)
    monkeypatch.setattr("metarl.runs.run_checkpoints.AVERAGED", 0.5)
    run = Run.open(finished)
    found, before, last = (run.load(name).agent for name in ("average", "4", "6"))
    for name, value in found.items():
        if name.startswith("params."):
            torch.testing.assert_close(value, (before[name] + last[name]) / 2)
        else:
            assert torch.equal(value, last[name])
    assert any(not torch.equal(found[name], last[name]) for name in found)


def test_the_average_of_an_extended_run_is_that_of_a_run_without_a_break(
    finished, tmp_path, monkeypatch
):
    """Where it first ended there is a checkpoint, of iteration 5, that the other one has not."""
    train(tiny(iterations=5), tmp_path / "extended")
    extended = resume(tmp_path / "extended", iterations=6)
    assert (extended.checkpoints / "iteration-000005.pt").exists()
    monkeypatch.setattr("metarl.runs.run_checkpoints.AVERAGED", 0.5)
    whole = Run.open(finished).load("average").agent
    for name, value in extended.load("average").agent.items():
        assert torch.equal(value, whole[name])


# --- damaged checkpoints ---


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_is_replaced_by_the_one_before(stopped, finished, capsys, damage):
    damage(checkpoint(stopped, "latest"))
    resume(stopped)
    warning = capsys.readouterr().err
    assert warning.startswith(f"metarl: warning: {checkpoint(stopped, 'latest')}: ")
    assert warning.endswith(f"; {checkpoint(stopped, 4)} is used instead (iterations lost: 1)\n")
    assert warning.count("\n") == 1
    assert_same_outcome(stopped, finished)


def test_several_damaged_checkpoints_are_all_named(stopped, finished, capsys):
    cut_short(checkpoint(stopped, "latest"))
    corrupt(checkpoint(stopped, 4))
    resume(stopped)
    warning = capsys.readouterr().err
    for name in ("latest", 4, 2):
        assert str(checkpoint(stopped, name)) in warning
    assert "(iterations lost: 3)" in warning
    assert_same_outcome(stopped, finished)


def test_where_none_is_whole_all_are_named_and_nothing_is_changed(stopped, capsys):
    names = ("latest", 4, 2)
    for name in names:
        cut_short(checkpoint(stopped, name))
    before = (stopped / "metrics.jsonl").read_bytes()
    for words in (["train", "--resume"], ["evaluate"]):
        assert main([*words, str(stopped)]) == 2
        error = capsys.readouterr().err
        assert all(str(checkpoint(stopped, name)) in error for name in names)
        assert "there is no other checkpoint to go by" in error
        assert error.count("\n") == 1
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_whose_latest_is_damaged_is_mended(stopped, finished, capsys):
    shutil.copytree(finished, stopped, dirs_exist_ok=True)
    cut_short(checkpoint(stopped, "latest"))
    with pytest.raises(UserError, match="finished already"):
        resume(stopped)
    assert "iteration-000006.pt is used instead (iterations lost: 0)" in capsys.readouterr().err
    assert_same_outcome(stopped, finished)


def test_a_checkpoint_of_a_newer_metarl_is_not_passed_over(stopped, monkeypatch):
    run = Run.open(stopped)
    state = run.load()
    with monkeypatch.context() as future:
        future.setattr("metarl.runs.checkpoint.FORMAT", 99)
        run.save(state, best=False, keep=False)
    with pytest.raises(UserError, match=r"latest\.pt: written by a newer metarl: format 99"):
        resume(stopped)


def test_a_run_of_the_oldest_format_goes_on(tmp_path):
    settings = {"num_tasks": 2, "num_episodes": 3, "env.horizon": 6, "agent.policy.hidden": [3]}
    config = load_config(
        "point_nav/promp", **settings, iterations=3, **{"tracking.mode": "disabled"}
    )
    run = Run.create(config, tmp_path / "run")
    run.rewind(0)
    for number in (1, 2):
        metrics = {"env_steps": 72 * number, "return_before": 0.0, "return_after": 0.0}
        run.log({"iteration": number, **metrics}, {"iteration": number, "seconds": 1.0})
    shutil.copy(GOLDEN / "checkpoint-format2.pt", run.checkpoints / "latest.pt")
    resume(run.directory)
    state = run.load()
    assert state.iteration == 3
    assert state.agent["outer.step"] == 15  # five epochs more
    assert 144 < state.env_steps <= 144 + 2 * 2 * 3 * 6


# --- logs that are shorter than the checkpoint ---


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("tail", [b"", b'{"iteration": 4, "env', bytes(500)])
def test_logs_shorter_than_the_checkpoint_are_gone_back_to(stopped, finished, capsys, name, tail):
    """As a power cut may leave them."""
    keep_lines(stopped / name, 3, tail)
    resume(stopped)
    warning = capsys.readouterr().err
    assert f"{checkpoint(stopped, 'latest')}: of iteration 4, but " in warning
    assert "has only 3 whole lines" in warning
    assert f"; {checkpoint(stopped, 2)} is used instead" in warning
    assert_same_outcome(stopped, finished)


def test_logs_that_no_checkpoint_fits_are_refused_by_name(stopped):
    (stopped / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl or timings\.jsonl has only 0 whole lines"):
        resume(stopped)
    assert Run.open(stopped).load().iteration == 4


def test_checkpoints_that_have_vanished_do_not_mean_that_none_was_written(stopped, finished):
    (stopped / "checkpoints").rename(stopped / "aside")
    with pytest.raises(UserError, match=r"no checkpoint, but metrics\.jsonl has 5 iterations"):
        resume(stopped)
    (stopped / "aside").rename(stopped / "checkpoints")
    resume(stopped)
    assert_same_outcome(stopped, finished)


@pytest.mark.parametrize("initial", [False, True])
def test_checkpoints_that_may_not_have_been_written_are_missed_aloud(
    stopped, finished, capsys, initial
):
    """A kill after the second iteration leaves the same logs as a lost folder. The folder of a warm
    started run has had a checkpoint since the beginning."""
    for name in ("metrics.jsonl", "timings.jsonl"):
        keep_lines(stopped / name, 2)
    folder = stopped / "checkpoints"
    folder.rename(stopped / "aside")
    if initial:
        folder.mkdir()
        run = Run.open(stopped)
        agent = run.config.make_agent().state_dict()
        save(folder / INITIAL, Checkpoint(0, 0, -math.inf, agent))
    resume(stopped)
    assert capsys.readouterr().err == (
        f"metarl: warning: {folder}: no checkpoint, but metrics.jsonl has iterations; "
        "training begins again (iterations lost: 2)\n"
    )
    (folder / INITIAL).unlink(missing_ok=True)
    assert_same_outcome(stopped, finished)


def test_a_folder_of_checkpoints_that_cannot_be_made_is_refused_before_the_first_iteration(
    stopped,
):
    for name in ("metrics.jsonl", "timings.jsonl"):
        (stopped / name).unlink()
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").touch()
    with pytest.raises(StorageError, match=r"checkpoints: cannot be written \(File exists\)"):
        resume(stopped)
    assert not (stopped / "metrics.jsonl").exists()


def test_a_folder_of_checkpoints_in_which_no_file_can_be_made_is_refused(tmp_path):
    (tmp_path / "checkpoints").symlink_to("/proc")  # in which not even root makes a file
    with pytest.raises(StorageError, match=r"checkpoints: cannot be written"):
        Run(tmp_path, tiny()).make_checkpoint_folder()


def test_a_cut_off_last_line_breaks_nothing(stopped, finished, capsys, tmp_path):
    for name in ("metrics.jsonl", "timings.jsonl"):
        with (stopped / name).open("a") as file:
            file.write('{"iteration": 6, "ret')
    assert main(["list", "runs", "--runs", str(stopped.parent)]) == 0
    assert " 5/6 " in capsys.readouterr().out
    assert write_report([stopped], tmp_path / "report")
    resume(stopped)
    assert capsys.readouterr().err == ""
    assert_same_outcome(stopped, finished)


def test_a_report_beside_a_training_between_its_two_logs(stopped, tmp_path):
    keep_lines(stopped / "timings.jsonl", 4)
    assert write_report([stopped], tmp_path / "report")


# --- one process at a time ---


@pytest.fixture
def start():
    """Starts a function in a process of its own, which is ended with the test."""
    processes = []

    def start(function, *args):
        process = CONTEXT.Process(target=function, args=args)
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def train_quietly(config, directory):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    train(config, directory)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_free(start, tmp_path, capsys):
    directory = tmp_path / "long"
    config = tiny(iterations=100_000, num_tasks=2, num_episodes=2)
    training = start(train_quietly, config, directory)
    wait_for(lambda: checkpoint(directory, "latest").exists(), training)

    assert main(["train", "--resume", str(directory)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"metarl: error: {directory}: process {training.pid} on ")
    assert "is training here" in error
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=f"process {training.pid} on .* is training here"):
        start_or_resume(config, directory)
    with pytest.raises(UserError, match="exists already"):
        train(config, directory)

    assert main(["list", "runs", "--runs", str(tmp_path)]) == 0
    assert main(["evaluate", str(directory), "--tasks=2", "--episodes=2"]) == 0
    assert write_report([directory])
    assert training.is_alive()

    training.kill()
    training.join()
    with Run.open(directory).lock():
        pass


def test_a_lock_lasts_as_long_as_the_training_that_holds_it(stopped, finished):
    run = Run.open(stopped)
    with run.lock(), pytest.raises(UserError, match=f"process {os.getpid()} on .* is training"):
        resume(stopped)
    resume(stopped)
    assert_same_outcome(stopped, finished)


def test_a_run_goes_on_to_more_iterations_as_if_begun_with_them(finished, tmp_path):
    directory = tmp_path / "run"
    train(tiny(iterations=4), directory)
    start_or_resume(tiny(), directory)
    assert_same_outcome(directory, finished)
    assert (directory / "config.yaml").read_text() == (finished / "config.yaml").read_text()

    metrics = (directory / "metrics.jsonl").read_bytes()
    start_or_resume(tiny(iterations=2), directory)
    assert (directory / "metrics.jsonl").read_bytes() == metrics
    with pytest.raises(UserError, match="was begun with seed = 0, not 5"):
        start_or_resume(tiny(iterations=8, seed=5), directory)
    assert Run.open(directory).config.iterations == 6


def test_an_unfinished_run_goes_on_to_fewer_iterations_than_it_was_begun_with(stopped, finished):
    (stopped / "config.yaml").write_text(tiny(iterations=100).to_yaml())
    run = start_or_resume(tiny(), stopped)
    assert run.config.iterations == 6
    assert_same_outcome(stopped, finished)


def create_all(config, folder, name):
    """Make the folders of several runs, and note those that this process has made."""
    made = []
    while not (folder / "go").exists():
        time.sleep(0.0005)
    for number in range(20):
        with contextlib.suppress(UserError):
            Run.create(config, folder / str(number))
            made.append(number)
    (folder / f"{name}.json").write_text(json.dumps(made))


def test_of_processes_that_make_one_folder_at_once_one_succeeds(start, tmp_path):
    config = tiny()
    processes = [start(create_all, config, tmp_path, name) for name in "abc"]
    (tmp_path / "go").touch()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    made = [json.loads(path.read_text()) for path in tmp_path.glob("?.json")]
    assert sorted(itertools.chain(*made)) == list(range(20))
    for number in range(20):
        run = Run.open(tmp_path / str(number))
        assert run.config == config
        assert {path.name for path in run.directory.iterdir()} == {
            *(".lock", "checkpoints", "config.yaml", "provenance.json")
        }


def test_a_folder_whose_making_was_cut_short_is_made_and_any_other_is_left_alone(tmp_path):
    begun, foreign = tmp_path / "begun", tmp_path / "foreign"
    for directory in (begun, foreign):
        (directory / "checkpoints").mkdir(parents=True)
        (directory / ".config.yaml.partial").write_text("env: ")
    (foreign / "thesis.tex").touch()
    assert start_or_resume(tiny(iterations=1), begun).metrics()
    before = sorted(foreign.rglob("*"))
    with pytest.raises(UserError, match="foreign: exists already"):
        train(tiny(iterations=1), foreign)
    (foreign / "thesis.tex").unlink()
    shutil.copy(GOLDEN / "checkpoint-format2.pt", foreign / "checkpoints" / "latest.pt")
    with pytest.raises(UserError, match="foreign: exists already"):
        train(tiny(iterations=1), foreign)
    assert len(sorted(foreign.rglob("*"))) == len(before)
