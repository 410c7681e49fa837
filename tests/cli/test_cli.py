"""The commands, as a user meets them."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import metarl
import metarl.__main__
from metarl.cli.group import fit_columns, print_files
from metarl.cli.main import main
from metarl.cli.train import go_on_with
from metarl.config_files import make_config
from metarl.envs import FAMILIES, RenderingUnavailable, WorkerError
from metarl.envs.contract import CHECKS
from metarl.envs.point import PointBatchEnv
from metarl.reporting.tables import empty_table
from metarl.runs import pretrained
from metarl.runs.identity import default_directory
from metarl.runs.run import Run
from metarl.training.iterations import Interrupted
from tests.cli.conftest import TINY


def test_training_prints_plain_lines_where_there_is_no_terminal(tmp_path, output):
    out = tmp_path / "run"
    code, text, _ = output("train", "point_nav/maml_trpo", *TINY, "--out", out)
    assert code == 0
    assert text.startswith(f"run: {out} (0 of 2 iterations)\niteration 1/2 ")
    assert re.search(r"iteration 2/2 .* steps/s .* ETA 0:00:00", text)
    assert f"metarl evaluate {out}" in text


def test_commands_to_copy_have_a_folder_as_one_word(run, tmp_path, output):
    folder = shutil.copytree(run, tmp_path / "r 1 ü")
    texts = [
        output("train", "--resume", folder, "--iterations=3")[1],
        output("train", "point_nav/maml_trpo", "--out", folder)[2],
        output("train", folder)[2],
        str(Interrupted(Run.open(folder), 1, 2)),
        go_on_with(folder),
        go_on_with(Path("-r")),
    ]
    word = f"'{folder}'"
    expected = [f"evaluate {word}", *[f"train --resume {word}"] * 4, "train --resume ./-r"]
    for text, command in zip(texts, expected, strict=True):
        assert f"metarl {command}" in text


def test_evaluate_prints_a_table_and_names_its_files(run, output):
    words = ("--tasks", 3, "--episodes", 2, "--steps", 1, "--against", "random")
    code, text, _ = output("evaluate", run, *words)
    assert code == 0
    assert "maml_trpo" in text
    assert "random" in text
    assert str(run / "evaluation" / "k_step-test-tasks_3-episodes_2-steps_1.json") in text


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("length", [5, 70, 200])
def test_a_terminal_shows_names_and_numbers_of_runs_whole(
    run, tmp_path, output, monkeypatch, columns, length
):
    """A table is wider than the terminal, which then continues its lines, rather than cut."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "r" * length
    shutil.copytree(run, tmp_path / "runs" / name)
    text = re.sub(r"\x1b\[[0-9;]*m", "", output("list", "runs", "--runs", tmp_path / "runs")[1])
    (line,) = [line for line in text.splitlines() if line.startswith("r" * length)]
    words = line.split()
    assert words[:5] == [name, "point_nav", "maml_trpo", "0", "2/2"]
    assert words[-1] == "kB"


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_render_writes_a_video(run, tmp_path, output, suffix):
    out = tmp_path / f"video.{suffix}"
    size = ("--width", 96, "--height", 96)
    words = ("--task", 0.2, -0.3, "--steps", 1, "--episodes", 2, "--out", out, *size)
    code, text, _ = output("render", run, *words)
    assert code == 0
    assert out.stat().st_size > 0
    assert str(out) in text


def test_render_shows_several_tasks_and_says_how_fast(run, tmp_path, output):
    words = ("--tasks", 2, "--steps", 1, "--episodes", 2, "--preset", "readme", "--fps", 20)
    code, text, _ = output("render", run, *words, "--out", tmp_path / "a.gif")
    assert code == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.height > 2 * 135
    assert re.search(r"\d+ frames of \d+ x \d+ in [0-9.]+ s: [0-9.]+ frames/s by 1 process", text)


def test_render_draws_on_as_many_cores_as_threads_are_given(run, tmp_path, output, monkeypatch):
    asked = []

    def video(*args, cores, **settings):
        asked.append(cores)
        raise RenderingUnavailable("not here")

    monkeypatch.setattr("metarl.reporting.video.adaptation.adaptation_video", video)
    for more in ([], ["--threads=0"], ["--threads=1"]):
        assert output("render", run, "--out", str(tmp_path / "a.mp4"), *more)[0] == 1
    assert asked == [None, None, 1]


@pytest.mark.parametrize("words", ["train point_nav/maml_trpo --out", "evaluate", "train"])
def test_a_path_that_cannot_be_used_is_one_line(output, words):
    """As that of a config, of a run and of a new run."""
    code, _, error = output(*words.split(), "a" * 300)
    assert code == 2
    assert re.fullmatch(r"metarl: error: a{300}\S*: cannot be used \(File name too long\)\n", error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "configs", "--runs", "."), "--runs: has no influence on the list of configs"),
        (
            ("render", "pretrained/point_nav", "--out", "a.gif", "--preset=readme", "--height=99"),
            "--height: has no influence with --preset, which has a size of its own",
        ),
    ],
)
def test_a_flag_that_another_one_makes_idle_is_refused(output, words, message):
    code, _, error = output(*words)
    assert (code, error) == (2, f"metarl: error: {message}\n")


@pytest.mark.parametrize(
    ("protocol", "unused"),
    [
        ("k_step", "trials"),
        ("k_step", "experience"),
        ("k_step", "perturbations"),
        ("few_episode", "steps"),
        ("continual", "trials"),
    ],
)
def test_a_setting_that_its_protocol_does_not_use_is_refused(run, output, protocol, unused):
    value = "action_delay=2" if unused == "perturbations" else "2"
    code, _, error = output("evaluate", run, "--protocol", protocol, f"--{unused}", value)
    assert code == 2
    assert error == f"metarl: error: --{unused}: has no influence on the protocol {protocol}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("{run}", "--task", 0.2, -0.3, "--task", 0.1, 0),
        ("--task", "0.2", "-0.3", "--task=0.1", "0", "{run}"),
        ("--task", "0.2,-0.3", "{run}", "--task", "[0.1, 0]"),
        ("--task=[0.2,", "-0.3]", "{run}", "--task=0.1 0"),
        ("--task", "[0.2,", "-0.3]", "--task", "0.1,", "0,", "{run}"),
        ("{run}", "--task-file", "{file}"),
    ],
)
def test_tasks_of_ones_own_are_evaluated_however_they_are_given(run, tmp_path, output, words):
    (tmp_path / "tasks.txt").write_text("0.2 -0.3\n0.1 0\n")
    words = [str(word).format(run=run, file=tmp_path / "tasks.txt") for word in words]
    size = ("--episodes", 1, "--steps", 0, "--out", tmp_path / "result.json")
    code, text, error = output("evaluate", *words, *size)
    assert code == 0, error
    assert "point_nav: 2 custom tasks" in text
    assert str(tmp_path / "result.json") in text
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["tasks"] == [[0.2, -0.3], [0.1, 0.0]]
    assert (tmp_path / "result.png").is_file()


def test_deterministic_actions_are_measured_and_shown(run, tmp_path, output):
    size = ("--episodes", 1, "--steps", 1, "--task", 0.2, -0.3, "--deterministic")
    code, text, _ = output("evaluate", run, *size)
    assert code == 0
    assert "1 episode each, deterministic actions" in text
    (file,) = (run / "evaluation").glob("k_step-custom-*deterministic_true.json")
    mean = json.loads(file.read_text())["methods"]["maml_trpo"]["parts"][""]["mean"]
    small = ("--width", 64, "--height", 64, "--out", tmp_path / "a.gif")
    code, text, _ = output("render", run, *size, *small)
    assert code == 0
    before, after = re.findall(r"adaptation (-[\d.]+)", text)
    assert (before, after) == tuple(f"{each:.1f}" for each in mean)


def test_bench_names_every_part_and_compares_with_the_physics(tmp_path, output):
    out = tmp_path / "bench.json"
    words = ("half_cheetah_vel/maml_trpo", *TINY, "--repeats", 1, "--json", out)
    code, text, progress = output("bench", *words)
    assert code == 0
    assert "physics limit" in text
    assert re.fullmatch(r"warm-up: [\d.]+ s\niteration 1 of 1: [\d.]+ s\n", progress)
    result = json.loads(out.read_text())
    assert set(result["sections"]) == {
        *("physics", "policy inference", "other sampling", "adaptation", "advantages"),
        *("surrogate gradient", "preconditioner", "conjugate gradient", "line search"),
    }
    parts = sum(result["sections"].values())
    assert 0.5 * result["iteration_seconds"] < parts <= 1.01 * result["iteration_seconds"]
    assert result["physics_limit_steps_per_second"] > 0
    assert result["sampling_steps_per_second"] > 0
    assert result["physics_seconds"] > 0
    assert result["peak_memory_bytes"] > 1e7


def test_continue_starts_goes_on_and_stops(tmp_path, output):
    words = ("train", "point_nav/maml_trpo", *TINY, "--out", tmp_path / "run", "--continue")
    assert output(*words)[0] == 0
    code, text, _ = output(*words)
    assert code == 0
    assert "iteration" not in text
    assert "finished: " in text
    code, _, error = output(*words, "--seed", 5)
    assert code == 2
    assert "was begun with seed = 0, not 5" in error


def test_a_users_own_family_is_trained_resumed_and_evaluated(tmp_path):
    (tmp_path / "my_tasks.py").write_text(
        "from envs import PointNav\n\n\nclass MyNav(PointNav):\n    name = 'my_nav'\n"
    )
    (tmp_path / "mine.yaml").write_text("env: {family: 'my_tasks:MyNav'}\n")
    for words in (["train", "mine.yaml", *TINY, "--out", "run"], ["evaluate", "run", "--tasks=2"]):
        command = [Path(sys.executable).parent / "metarl", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "my_nav: 2 test tasks" in done.stdout


def test_list(run, output):
    assert "half_cheetah_dir" in output("list", "families")[1]
    assert "point_nav/maml_trpo" in output("list", "configs")[1]
    assert "2/2" in output("list", "runs", "--runs", run.parent)[1]
    packages = output("list", "runs", "--runs", pretrained.FOLDER)[1]
    assert packages.count(" package ") == len(pretrained.pretrained_names())


def test_names_are_printed_whatever_the_encoding_of_the_terminal(run, tmp_path, monkeypatch):
    config = (run / "config.yaml").read_text("utf-8").replace("method: maml_trpo", "method: größe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config, "utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["metarl", "list", "runs", "--runs", str(tmp_path)])
    assert main() == 0
    stream.flush()
    assert b"gr\\xf6\\xdfe" in stream.buffer.getvalue()


def test_list_of_families_is_readable_without_a_terminal(output):
    """A family's columns but the last stand on one line of 160 characters, whole."""
    _, text, _ = output("list", "families")
    assert max(map(len, text.splitlines())) <= 160
    rows = {line.split()[0]: line for line in text.splitlines() if not line.startswith(" ")}
    assert set(FAMILIES) < set(rows)
    for name, cls in FAMILIES.items():
        assert cls.source in rows[name]
    assert "50 x [-inf, inf], 500 x [0, 1]" in rows["tabular_mdp"]


def test_check_env_prints_a_line_for_each_check(output):
    code, text, _ = output("check-env", "point_nav", "--env.horizon", 1)
    assert code == 0
    lines = {line[:23].strip(): line[23:] for line in text.splitlines()}
    assert set(CHECKS) < set(lines)
    assert lines["threads"].startswith("pass ")
    assert lines["gymnasium"].startswith("skipped ")
    assert text.splitlines()[-1] == f"point_nav: {len(CHECKS) - 1} passed, 1 skipped"


def test_check_env_of_a_users_family_that_breaks_the_contract(tmp_path):
    """Exit code 1, and what is wrong with it."""
    (tmp_path / "my_tasks.py").write_text(
        "from dataclasses import dataclass\n\nfrom envs import PointNav\n\n\n"
        "@dataclass(frozen=True)\nclass MyNav(PointNav):\n"
        "    name = 'mine'\n    size: float = 1.0\n\n"
        "    def sample_tasks(self, rng, num_tasks):\n"
        "        return self.size * super().sample_tasks(rng, num_tasks)\n"
    )
    command = [Path(sys.executable).parent / "metarl", "check-env", "my_tasks:MyNav"]
    for size, expected in ((0.5, "1 failed"), (3, "2 failed")):
        done = subprocess.run(
            [*command, "--env.size", str(size)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1, done.stderr
        assert re.search(r"declaration +FAIL +MyNav has no docstring", done.stdout)
        assert expected in done.stdout.splitlines()[-1]
    assert re.search(r"sampled tasks +FAIL .*not in the task space", done.stdout)


def test_check_env_fails_where_nothing_could_be_checked(output, monkeypatch):
    def fail(*_):
        raise ImportError("no module named 'robots'")

    monkeypatch.setattr("metarl.envs.point.PointNav.make_batch", fail)
    code, text, _ = output("check-env", "point_nav")
    assert code == 1
    assert "robots" in text
    last = text.splitlines()[-1]
    assert last.startswith("point_nav: not checked: it cannot be made here: ImportError: no module")
    assert re.search(r"\(test_cli.py, line \d+, in fail\)$", last)


@pytest.mark.parametrize("method", ["__init__", "draw", "close"])
def test_a_renderer_that_fails_is_one_line(run, tmp_path, output, monkeypatch, method):
    def fail(*_, **__):
        raise KeyError("geom")

    monkeypatch.setattr(f"metarl.envs.point.PointRenderer.{method}", fail)
    code, _, error = output("render", run, "--out", tmp_path / "a.gif")
    assert code == 1
    place = r"\(test_cli.py, line \d+, in fail\)"
    assert re.fullmatch(
        rf"metarl: error: the renderer of point_nav raised KeyError: 'geom' {place}\n", error
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate {run} --tasks 2", "render {run} --out {run}/a.gif"])
def test_a_truncated_checkpoint_is_refused_or_replaced_by_the_one_before(tmp_path, output, command):
    directory = tmp_path / "run"
    assert output("train", "point_nav/maml_trpo", *TINY, "--out", directory)[0] == 0
    for name in ("latest", "best"):
        path = directory / "checkpoints" / f"{name}.pt"
        path.write_bytes(path.read_bytes()[:-200])
    words = command.format(run=directory).split()
    code, _, error = output(*words, "--checkpoint", "best")
    assert code == 2
    assert "best.pt: not a whole checkpoint" in error
    assert error.count("\n") == 1
    code, _, error = output(*words)
    assert code == 0
    assert re.search(
        r"metarl: warning: .*latest\.pt: not a whole .*iteration-000002\.pt is used", error
    )
    assert error.count("\n") == 1


def test_work_that_fails_is_exit_code_1(run, tmp_path, output, monkeypatch):
    def fail(*_):
        raise RenderingUnavailable("cannot render: set MUJOCO_GL=egl")

    monkeypatch.setattr("metarl.envs.point.PointNav.make_renderer", fail)
    code, _, error = output("render", run, "--out", tmp_path / "a.mp4")
    assert code == 1
    assert error == "metarl: error: cannot render: set MUJOCO_GL=egl\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "\n"),
        (MemoryError(), 1, "metarl: error: out of memory; choose fewer tasks, episodes or steps"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64 GiB. GPU 0 has ..."),
            1,
            "metarl: error: out of memory on the GPU; choose fewer tasks, episodes or steps at once"
            ", smaller microbatches (agent.tasks_per_microbatch), or --device cpu\n",
        ),
        (OSError("the disk is gone"), 1, "metarl: error: the disk is gone\n"),
        (WorkerError("the worker is gone"), 1, "metarl: error: the worker is gone\n"),
    ],
)
def test_exit_codes_of_failed_work(output, monkeypatch, error, code, message):
    def fail():
        raise error

    monkeypatch.setattr("metarl.reporting.tables.families", fail)
    end, _, text = output("list", "families")
    assert end == code
    assert text.startswith(message)


def test_another_error_of_torch_is_not_taken_for_one_of_memory(output, monkeypatch):
    def fail():
        torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr("metarl.reporting.tables.families", fail)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        output("list", "families")


LIMITED = """
import resource, sys
import metarl.training.loop
from metarl.cli.main import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, 2 * [used + 200 * 2**20])
sys.exit(main(sys.argv[1:]))
"""
"""Runs a command in a process that can have 200 MB more than it has after its imports."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torch_without_memory_is_one_line(tmp_path):
    """The policies of 40 tasks take 640 MB."""
    sizes = ["--agent.policy.hidden=[2000, 2000]", "--num-episodes=1", "--env.horizon=2"]
    words = ["train", "point_nav/maml_trpo", *sizes, "--threads=1", "--tracking.mode=disabled"]
    words += ["--out", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 1
    error = "metarl: error: out of memory; choose fewer tasks, episodes or steps at once\n"
    assert done.stderr == error


@pytest.mark.cuda
def test_a_gpu_without_memory_is_one_line(output, monkeypatch):
    monkeypatch.setattr(
        "metarl.reporting.tables.families", lambda: torch.empty(2**50, device="cuda")
    )
    code, _, error = output("list", "families")
    assert code == 1
    assert error.startswith("metarl: error: out of memory on the GPU; choose fewer tasks")


def test_a_diverging_simulation_is_named_and_stops_training(tmp_path, output, monkeypatch):
    calls = []
    advance = PointBatchEnv.advance

    def explode(self, action, ids=None):
        advance(self, action, ids)
        calls.append(1)
        if len(calls) == 20:  # the fourth step of the second iteration: 2 x 8 steps are the first
            self.position[4] = float("nan")

    monkeypatch.setattr(PointBatchEnv, "advance", explode)
    out = tmp_path / "run"
    code, _, error = output("train", "point_nav/maml_trpo", *TINY, "--out", out)
    assert code == 1
    # Two tasks of three episodes: number 4 of the batch is the second episode of the second task.
    assert re.search(r"training stopped: task 1 \[.*\], episode 1, step 3: .*not finite", error)
    assert len(Run.open(out).metrics()) == Run.open(out).load().iteration == 1


def test_ctrl_c_while_the_command_is_imported_is_no_traceback(monkeypatch):
    class Interrupt:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "metarl.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "metarl.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupt, *sys.meta_path])
    assert metarl.__main__.main() == 130


def test_without_a_command_there_is_help(output):
    code, text, error = output()
    assert (code, error) == (0, "")
    assert text == output("--help")[1]
    assert "Usage: metarl [OPTIONS] [COMMAND]" in text


def test_an_opengl_library_without_functions_is_told_on_one_line(tmp_path):
    """As where libEGL is there, but no library with OpenGL's own functions."""
    text = "import ctypes; raise ctypes.ArgumentError('no attribute glGetError')"
    (tmp_path / "mujoco.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "metarl", "list", "runs"],
        capture_output=True,
        text=True,
        env={"MUJOCO_GL": "egl", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"metarl: error: MUJOCO_GL=egl: .*libopengl0.*\n", done.stderr)


@pytest.mark.parametrize(("raised", "code"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_while_mujoco_is_imported_ends_the_command(monkeypatch, capsys, raised, code):
    """The extension of MuJoCo turns it into an error of the import."""

    class Failing:
        def find_spec(self, name, path=None, target=None):
            if name == "mujoco":
                try:
                    raise raised
                except BaseException:
                    raise ImportError("initialization failed")  # noqa: B904 (as C code raises it)

    monkeypatch.delitem(sys.modules, "mujoco")
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    if isinstance(raised, SystemExit):
        with pytest.raises(SystemExit) as ended:
            main(["list", "families"])
        assert ended.value.code == code
    else:
        assert main(["list", "families"]) == code
    assert "initialization failed" not in capsys.readouterr().err


def test_without_its_current_folder_a_command_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["list", "families"]) == 2
    said = "metarl: error: the current folder is not there any more; change to another\n"
    assert capsys.readouterr().err == said


def test_a_link_that_leads_to_itself_is_one_line(run, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    assert main(["evaluate", str(run), "--out", str(tmp_path / "loop" / "x.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("metarl: error: ")
    assert said.count("\n") == 1


def test_closed_standard_files_are_null_devices(tmp_path):
    """Other programs that are started get them too."""
    code = """
import subprocess, sys
from metarl.cli.main import open_standard_files
open_standard_files()
print("lost", file=sys.stderr)
child = "import sys; print('lost too', file=sys.stderr); open('child', 'w').write('done')"
subprocess.run([sys.executable, "-c", child], check=True)
print("printed")
"""
    command = f'exec "{sys.executable}" -c "$0" 2>&- <&-'
    done = subprocess.run(
        ["sh", "-c", command, code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    assert (done.stdout, (tmp_path / "child").read_text()) == ("printed\n", "done")


def test_a_missing_opengl_library_names_variable_and_package(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "metarl", "list", "families"],
        capture_output=True,
        text=True,
        env={"MUJOCO_GL": "nonsense", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "MUJOCO_GL=nonsense" in done.stderr
    assert "libegl1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "metarl", "train", "point_nav/maml_trpo", *TINY]
    process = subprocess.Popen(
        [*command, "--iterations=100000", "--out", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    metrics = directory / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"metarl train --resume {directory}" in text
    assert (directory / "checkpoints" / "latest.pt").exists()


def test_against_can_be_repeated_and_takes_a_folder_with_a_comma(run, tmp_path, output):
    """A list with commas, the flag twice before the argument, and a folder that has a comma."""
    comma = tmp_path / "a,b"
    shutil.copytree(run, comma)
    size = ("--tasks", 2, "--episodes", 2, "--steps", 1)
    for words in (
        ("evaluate", "--against", "random", "--against", comma, run),
        ("evaluate", run, "--against", f"random,{run}"),
    ):
        code, text, error = output(*words, *size)
        assert code == 0, error
        assert re.search(r"│ random +│", text)
    code, text, error = output("evaluate", run, "--against", comma, *size)
    assert code == 0, error
    assert re.search(r"│ a,b +│", text)


def test_default_folders_of_configs_with_one_label_are_distinct(output):
    """Files with the same label, and families whose settings choose the environments."""
    names = ["half_cheetah_dir/demo", "half_cheetah_dir/maml_trpo"]
    names += [f"metaworld_ml{number}/maml_trpo" for number in ("1", "10", "45")]
    folders = []
    for name in names:
        source = Path(name).name
        folders.append(default_directory(metarl.load_config(name), source).as_posix())
    folders.append(default_directory(metarl.load_config(names[0]), "my.yml").as_posix())
    assert folders.pop() == "runs/half_cheetah_dir-my-seed0"
    assert folders == [
        "runs/half_cheetah_dir-demo-seed0",
        "runs/half_cheetah_dir-maml_trpo-seed0",
        "runs/metaworld-maml_trpo-seed0",
        "runs/metaworld-ML10-maml_trpo-seed0",
        "runs/metaworld-ML45-maml_trpo-seed0",
    ]
    values = {
        "env": {"family": "gymnasium", "env_id": "/a/walk.py:Walk", "parameters": {"x": [0, 1]}}
    }
    assert default_directory(make_config(values, "own", {})).name == (
        "gymnasium-walk.py-Walk-unnamed-seed0"
    )
    config = metarl.load_config("half_cheetah_dir/demo", method="mine")
    assert default_directory(config, "runs/x/config.yaml").name == "half_cheetah_dir-mine-seed0"
    _, text, _ = output("train", "half_cheetah_dir/demo", "--dry-run")
    assert "into runs/half_cheetah_dir-demo-seed0" in text
    _, text, _ = output("train", "half_cheetah_dir/demo", "--method", "x", "--dry-run")
    assert "into runs/half_cheetah_dir-x-seed0" in text


@pytest.mark.parametrize(
    "key", ["workers=2", "address=auto", "max-restarts=3", "resources={a: 1}", "resources.a_b=1"]
)
def test_flags_of_a_cluster_are_refused_where_none_is_used(output, key):
    words = ["train", "point_nav/maml_trpo", "--dry-run", f"--sampler.{key}"]
    name = key.partition("=")[0].partition(".")[0]
    assert output(*words) == (
        2,
        "",
        f"metarl: error: --sampler.{name}: has no influence with --sampler.kind local; expected "
        "--sampler.kind ray with it\n",
    )
    assert output(*words[:3], "--sampler.workers=0")[0] == 0  # the default


def test_keys_of_a_cluster_in_a_file_are_refused_where_none_is_used(output, tmp_path):
    file, space = tmp_path / "x.yaml", tmp_path / "space.yaml"
    file.write_text("env: {family: point_nav}\nsampler: {max_restarts: 3}\n")
    space.write_text("agent.inner.lr: {min: 0.1, max: 0.2}\n")
    out = f"--out={tmp_path / 'out'}"
    for command, *words in (["train", out], ["compare", out], ["tune", out, f"--space={space}"]):
        assert output(command, str(file), *words) == (
            2,
            "",
            f"metarl: error: {file}: sampler.max_restarts: has no influence with sampler.kind "
            "local; expected sampler.kind ray with it\n",
        )
        code, _, error = output(command, "point_nav/maml_trpo", *words, "--sampler.workers=2")
        assert code == 2
        assert error.startswith("metarl: error: --sampler.workers: has no influence with ")
    file.write_text("env: {family: point_nav}\nsampler: {kind: ray, max_restarts: 3}\n")
    assert output("train", str(file), "--sampler.kind=local", "--dry-run", out)[0] == 0


def test_of_many_files_the_first_are_listed(tmp_path, capsys):
    files = [tmp_path / f"{number}.png" for number in range(9)]
    print_files(files)
    listed = capsys.readouterr().out.splitlines()
    assert listed == [*map(str, files[:6]), f"and 3 more files in {tmp_path}"]
    print_files(files[:7])  # a line for each, as many as with the others' number
    assert capsys.readouterr().out.splitlines() == [*map(str, files[:7])]


@pytest.mark.parametrize(("terminal", "expected"), [(40, 40), (20, 23)])
def test_a_table_is_as_wide_as_the_terminal_and_breaks_no_word(terminal, expected):
    """A name of 12 letters, 2 spaces, and a text whose longest word has 9."""
    table = empty_table("name", "text")
    table.add_row("half_cheetah", "a cheetah that runs to the sometimes far goal")
    console = Console(width=terminal, file=io.StringIO())
    console.width = fit_columns(table, console)
    assert console.width == expected
    console.print(table)
    lines = console.file.getvalue().splitlines()
    words = " ".join(line[14:] for line in lines[1:]).split()
    assert words == ["a", "cheetah", "that", "runs", "to", "the", "sometimes", "far", "goal"]
    assert max(map(len, lines)) <= expected
