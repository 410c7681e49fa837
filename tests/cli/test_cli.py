"""The command line, as a user meets it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import metarl.reporting.benchmark
from metarl.cli.main import main
from metarl.envs import FAMILIES, RenderingUnavailable
from metarl.envs.contract import CHECKS
from metarl.envs.point import PointBatchEnv
from metarl.runs.run import Run

TINY = [
    "--iterations=2",
    "--num-tasks=2",
    "--num-episodes=3",
    "--env.horizon=8",
    "--policy.hidden=[8]",
    "--tracking.mode=disabled",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "point_nav/maml_trpo", *TINY, "--out", str(directory)]) == 0
    return directory


def output(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_training_prints_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    out = tmp_path / "run"
    code, text, _ = output(capsys, "train", "point_nav/maml_trpo", *TINY, "--out", out)
    assert code == 0
    assert re.search(r"iteration 2/2 .* steps/s .* ETA 0:00:00", text)
    assert f"metarl evaluate {out}" in text


def test_evaluate_prints_a_table_and_names_its_files(run, capsys):
    words = ("--tasks", 3, "--episodes", 2, "--steps", 1, "--against", "random")
    code, text, _ = output(capsys, "evaluate", run, *words)
    assert code == 0
    assert "maml_trpo" in text
    assert "random" in text
    assert str(run / "evaluation" / "k_step-test.json") in text


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_render_writes_a_film(run, tmp_path, capsys, suffix):
    out = tmp_path / f"film.{suffix}"
    size = ("--width", 96, "--height", 96)
    words = ("--task", 0.2, -0.3, "--steps", 1, "--episodes", 2, "--out", out, *size)
    code, text, _ = output(capsys, "render", run, *words)
    assert code == 0
    assert out.stat().st_size > 0
    assert str(out) in text


def test_render_films_several_tasks_and_says_how_fast(run, tmp_path, capsys):
    words = ("--tasks", 2, "--steps", 1, "--episodes", 2, "--preset", "readme", "--fps", 20)
    code, text, _ = output(capsys, "render", run, *words, "--out", tmp_path / "a.gif")
    assert code == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.height > 2 * 135
    assert re.search(r"\d+ frames of \d+ x \d+ in [0-9.]+ s: [0-9.]+ frames/s by 1 process", text)


def test_bench_names_every_part_and_compares_with_the_physics(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metarl.reporting.benchmark, "LIMIT_STEPS", 4)
    out = tmp_path / "bench.json"
    words = ("half_cheetah_vel/maml_trpo", *TINY, "--repeats", 1, "--json", out)
    code, text, _ = output(capsys, "bench", *words)
    assert code == 0
    assert "physics limit" in text
    result = json.loads(out.read_text())
    assert set(result["sections"]) == {
        *("physics", "policy inference", "other sampling", "adaptation", "advantages"),
        *("surrogate gradient", "conjugate gradient", "line search"),
    }
    parts = sum(result["sections"].values())
    assert 0.5 * result["iteration_seconds"] < parts <= 1.01 * result["iteration_seconds"]
    assert result["physics_limit_steps_per_second"] > 0
    assert result["sampling_steps_per_second"] > 0
    assert result["physics_seconds"] > 0
    assert result["peak_memory_bytes"] > 1e7


def test_continue_starts_goes_on_and_stops(tmp_path, capsys):
    words = ("train", "point_nav/maml_trpo", *TINY, "--out", tmp_path / "run", "--continue")
    assert output(capsys, *words)[0] == 0
    code, text, _ = output(capsys, *words)
    assert code == 0
    assert "iteration" not in text
    assert "finished: " in text
    code, _, error = output(capsys, *words, "--seed", 5)
    assert code == 2
    assert "was begun with seed = 0, not 5" in error


def test_dry_run_prints_the_config_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    code, text, _ = output(
        capsys, "train", "point_nav/maml_trpo", "--inner.lr", "0.25", "--dry-run", "--out", out
    )
    assert code == 0
    assert "lr: 0.25" in text
    assert not out.exists()


def test_flags_may_stand_before_the_config(tmp_path, capsys):
    words = ("--seed", 3, "--env.goal-high", 2.5, "half_cheetah_vel/maml_trpo", "--env.horizon=9")
    code, text, _ = output(capsys, "train", *words, "--dry-run", "--out", tmp_path / "run")
    assert code == 0
    assert "seed: 3" in text
    assert "goal_high: 2.5" in text
    assert "horizon: 9" in text


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


def test_list(run, capsys):
    assert "half_cheetah_dir" in output(capsys, "list", "families")[1]
    assert "point_nav/maml_trpo" in output(capsys, "list", "configs")[1]
    assert "2/2" in output(capsys, "list", "runs", "--runs", run.parent)[1]


def test_list_of_families_is_readable_without_a_terminal(capsys):
    """A family's columns but the last stand on one line of 160 characters, whole."""
    _, text, _ = output(capsys, "list", "families")
    assert max(map(len, text.splitlines())) <= 160
    rows = {line.split()[0]: line for line in text.splitlines() if not line.startswith(" ")}
    assert set(FAMILIES) < set(rows)
    for name, cls in FAMILIES.items():
        assert cls.source in rows[name]
    assert "50 x [-inf, inf], 500 x [0, 1]" in rows["tabular_mdp"]


def test_check_env_prints_a_line_for_each_check(capsys):
    code, text, _ = output(capsys, "check-env", "point_nav", "--env.horizon", 1)
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
        "@dataclass(frozen=True)\nclass MyNav(PointNav):\n    size: float = 1.0\n\n"
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


def test_check_env_fails_where_nothing_could_be_checked(capsys, monkeypatch):
    def fail(*_):
        raise ImportError("no module named 'robots'")

    monkeypatch.setattr("metarl.envs.point.PointNav.make_batch", fail)
    code, text, _ = output(capsys, "check-env", "point_nav")
    assert code == 1
    assert "robots" in text
    assert text.splitlines()[-1] == f"point_nav: {len(CHECKS)} skipped"


def test_help_of_check_env_shows_the_fields_of_the_family(capsys):
    with pytest.raises(SystemExit):
        main(["check-env", "half_cheetah_vel", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--env.goal-high VALUE" in text
    assert "--env.observe-task VALUE" in text
    assert "--outer" not in text


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "render", "bench", "check-env", "list"]
)
def test_help_works_everywhere(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert "usage: metarl" in capsys.readouterr().out


def test_help_of_train_is_made_of_the_fields_docstrings(capsys):
    with pytest.raises(SystemExit):
        main(["train", "half_cheetah_vel/maml_trpo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "The largest goal velocity, m/s." in text
    assert "--inner.first-order" in text
    assert "Tasks per meta-batch." in text


@pytest.mark.parametrize(
    ("config", "present", "absent"),
    [
        ("maml_trpo", "--outer.max-kl", "--outer.clip"),
        ("promp", "--outer.start-kl-weight", "--outer.max-kl"),
        ("reptile", "--outer.optimizer", "--outer.epochs"),
    ],
)
def test_help_lists_the_keys_of_the_configs_own_outer_update(capsys, config, present, absent):
    with pytest.raises(SystemExit):
        main(["train", f"point_nav/{config}", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"{present} VALUE" in text
    assert absent not in text
    assert "One of trpo, ppo, gradient, reptile" in text
    assert "--env.observe-task VALUE" in text


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["--outer.update", "ppo", "--outer.epochs", 3], ["  update: ppo", "  epochs: 3"]),
        (["--outer.epochs=3", "--outer.update=ppo"], ["  update: ppo", "  epochs: 3"]),
        (["--outer.kl_weight=1e-3", "--outer.update=ppo"], ["  kl_weight: 0.001"]),
        (["--outer.update=reptile", "--outer.optimizer=adam"], ["  optimizer: adam"]),
        (["--outer.max-kl", 0.05], ["  update: trpo", "  max_kl: 0.05"]),
        (["--env.observe-task", "true"], ["  observe_task: true"]),
        (["--env.family", "tabular_mdp", "--env.num-states", 4], ["  num_states: 4"]),
    ],
)
def test_flags_of_another_choice_than_the_configs(tmp_path, capsys, flags, lines):
    """Sections whose keys depend on a choice take the keys of the one that is asked for."""
    words = ("train", "point_nav/maml_trpo", *flags, "--dry-run", "--out", tmp_path / "run")
    code, text, error = output(capsys, *words)
    assert (code, error) == (0, "")
    assert set(lines) <= set(text.splitlines())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train point_nav/maml_trop", "nearest: point_nav/maml_trpo"),
        ("train point_nav/maml_trpo --inner.lrr 1", "nearest: --inner.lr"),
        ("train point_nav/maml_trpo --inner.lr fast", "--inner.lr: expected number"),
        ("train point_nav/maml_trpo --num-tasks -1", "--num-tasks: expected at least 1"),
        ("train point_nav/maml_trpo --inner.surrogate dyce", "--inner.surrogate: expected one of"),
        ("train point_nav/maml_trpo --device cuda:99", "cuda:99 is not available"),
        ("train point_nav/maml_trpo --policy.hidden [1", "--policy.hidden: not readable"),
        (
            "train point_nav/maml_trpo --env.horizn 3",
            "unknown key (nearest: horizon)",
        ),
        ("train point_nav/maml_trpo --outer.update pop", "(nearest: ppo)"),
        (
            "train point_nav/maml_trpo --outer.update ppo --outer.max-kl 0.1",
            "--outer.max-kl: unknown key where outer.update is ppo",
        ),
        (
            "train point_nav/maml_ppo --outer.epohcs 3",
            "--outer.epohcs: unknown key where outer.update is ppo (nearest: epochs)",
        ),
        ("train point_nav/maml_trpo --outer.lr 3", "unknown key where outer.update is trpo"),
        ("train point_nav/maml_trpo --env.observe-task yse", "expected true or false, got 'yse'"),
        (
            "train point_nav/reptile --inner.rule meta_sgd",
            "--inner.rule: meta_sgd makes no sense here: outer.update reptile",
        ),
        (
            "train point_nav/meta_sgd --inner-steps 0",
            "inner.rule: meta_sgd makes no sense here: with inner_steps 0",
        ),
        ("train", "expected either a CONFIG or --resume"),
        ("train --resume {run}", "finished already"),
        ("train --resume {run}/nowhere", "not a run's folder"),
        ("train point_nav/maml_trpo --out {run}", "exists already"),
        ("evaluate {run} --tasks -3", "tasks: expected at least 1"),
        ("evaluate {run} --tasks many", "invalid int value: 'many'"),
        ("evaluate {run} --split tests", "nearest: test"),
        ("evaluate {run} --checkpoint 99", "there is no such checkpoint"),
        ("evaluate {run} --seed -1", "seed: expected between 0"),
        ("evaluate {run} --device gpu", "--device: expected cpu, cuda or cuda:NUMBER"),
        ("evaluate {run} --device cuda:99", "cuda:99 is not available"),
        ("render {run} --steps -1 --out a.mp4", "steps: expected at least 0"),
        ("render {run} --seed -1 --out a.mp4", "seed: expected between 0"),
        ("bench point_nav/maml_trpo --repeats 0", "repeats: expected at least 1"),
        ("bench point_nav/maml_trpo --json {run}/nowhere/a.json", "there is no folder"),
        ("evaluate {run}x", "not a run's folder"),
        ("render {run} --task 1 --out a.mp4", "has 2 number(s), got [1.0]"),
        ("render {run} --task 1 1 --out a.mp4", "nearest: [0.75, 0.75]"),
        ("render {run} --out a.avi", ".mp4 or .gif"),
        ("render {run} --tasks 0 --out a.gif", "--tasks: num_tasks: expected at least 1, got 0"),
        ("render {run} --tasks 65 --out a.gif", "--tasks: expected at most 64, got 65"),
        ("render {run} --tasks 2 --task 0 0 --out a.gif", "not allowed with argument"),
        ("render {run} --preset tallk --out a.gif", "(nearest: talk)"),
        ("render {run} --fps 60 --out a.gif", "fps: expected more than 0, at most 50 in .gif"),
        ("check-env", "required: TARGET"),
        ("check-env half_cheetah_vell", "unknown family 'half_cheetah_vell' (nearest: half_"),
        ("check-env no_such_module:Nav", "error: cannot import 'no_such_module:Nav'"),
        (
            "check-env metarl.envs:TaskFamily",
            "metarl.envs:TaskFamily does not define action_space, describe",
        ),
        ("check-env point_nav --env.horizn 3", "--env.horizn: unknown key (nearest: horizon)"),
        ("check-env point_nav --env.horizon few", "--env.horizon: expected whole number"),
        ("check-env point_nav --env.horizon [1", "--env.horizon: not readable"),
        ("check-env point_nav --env.horizon 0", "--env.horizon: expected at least 1, got 0"),
        ("check-env point_nav --env.family x", "--env.family: unknown flag"),
        ("check-env point_nav --seed 1", "--seed: unknown flag"),
        ("evalute", "nearest: evaluate"),
        ("list famlies", "nearest: families"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(run, words, expected, capsys):
    code, _, error = output(capsys, *words.format(run=run).split())
    assert code == 2
    assert expected in error
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["evaluate {run} --tasks 2", "render {run} --out {run}/a.gif"])
def test_a_truncated_checkpoint_is_refused_or_replaced_by_the_one_before(tmp_path, capsys, command):
    directory = tmp_path / "run"
    assert output(capsys, "train", "point_nav/maml_trpo", *TINY, "--out", directory)[0] == 0
    for name in ("latest", "best"):
        path = directory / "checkpoints" / f"{name}.pt"
        path.write_bytes(path.read_bytes()[:-200])
    words = command.format(run=directory).split()
    code, _, error = output(capsys, *words, "--checkpoint", "best")
    assert code == 2
    assert "best.pt: not a whole checkpoint" in error
    assert error.count("\n") == 1
    code, _, error = output(capsys, *words)
    assert code == 0
    assert re.search(
        r"metarl: warning: .*latest\.pt: not a whole .*iteration-000002\.pt is used", error
    )
    assert error.count("\n") == 1


def test_work_that_fails_is_exit_code_1(run, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise RenderingUnavailable("cannot render: set MUJOCO_GL=egl")

    monkeypatch.setattr("metarl.envs.point.PointNav.make_scene", fail)
    code, _, error = output(capsys, "render", run, "--out", tmp_path / "a.mp4")
    assert code == 1
    assert error == "metarl: error: cannot render: set MUJOCO_GL=egl\n"


def test_a_diverging_simulation_is_named_and_stops_training(tmp_path, capsys, monkeypatch):
    calls = []
    advance = PointBatchEnv.advance

    def explode(self, action, ids=None):
        advance(self, action, ids)
        calls.append(1)
        if len(calls) == 20:  # the fourth step of the second iteration: 2 x 8 steps are the first
            self.position[4] = float("nan")

    monkeypatch.setattr(PointBatchEnv, "advance", explode)
    out = tmp_path / "run"
    code, _, error = output(capsys, "train", "point_nav/maml_trpo", *TINY, "--out", out)
    assert code == 1
    # Two tasks of three episodes: number 4 of the batch is the second episode of the second task.
    assert re.search(r"training stopped: task 1 \[.*\], episode 1, step 3: .*not finite", error)
    assert len(Run.open(out).metrics()) == Run.open(out).load().iteration == 1


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
