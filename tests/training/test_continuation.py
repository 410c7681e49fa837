"""What may change in a run that goes on: iterations, threads, device, sampler and tracking."""

import json
import re
import shlex
import shutil

import pytest
import torch

import metarl
from metarl.cli.main import main
from metarl.core.errors import ConfigError, UserError
from metarl.envs import WorkerError
from metarl.evaluation.compare import evaluate_run
from metarl.runs.run import Run
from metarl.training.loop import resume, start_or_resume, train
from tests.training.test_loop import assert_same_outcome, tiny

CHANGES = {
    "threads": 2,
    "sampler.workers": 2,
    "tracking.mode": "offline",
    "tracking.project": "other",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 4 iterations."""
    return train(tiny(iterations=4), tmp_path_factory.mktemp("runs") / "finished").directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the same run with 6 iterations."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "whole").directory


def stop(finished, directory, **values):
    """Copy the run of 4 iterations as one that was to have 6, with other values in its config."""
    shutil.copytree(finished, directory)
    config = Run.open(directory).config.replace(iterations=6).replace(**values)
    Run(directory, config).write_config()
    return directory


@pytest.fixture
def stopped(finished, tmp_path):
    return stop(finished, tmp_path / "stopped")


def content(directory):
    """The files of a run, without the lock that a training holds."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in files}


@pytest.fixture
def refused(capsys):
    """Runs a command that is refused, without a change of the folder; returns the error."""

    def call(directory, *words):
        before = content(directory)
        assert main(["train", *map(str, words)]) == 2
        assert content(directory) == before
        error = capsys.readouterr().err
        assert error.startswith("metarl: error: ")
        assert error.count("\n") == 1
        return error

    return call


def test_a_finished_run_goes_on_to_more_iterations(finished, whole, tmp_path):
    directory = shutil.copytree(finished, tmp_path / "run")
    assert main(["train", "--resume", str(directory), "--iterations", "6"]) == 0
    assert_same_outcome(directory, whole)
    assert Run.open(directory).config.iterations == 6
    with pytest.raises(UserError, match=r"finished already \(6 iterations\)"):
        resume(directory)


def test_a_run_that_goes_on_keeps_what_may_change(stopped, whole):
    """A later `--resume` without a flag has the same values."""
    run = resume(stopped, **CHANGES, iterations=5)
    assert Run.open(stopped).config == run.config
    assert run.config == tiny(iterations=5, **CHANGES)
    assert list(stopped.glob("wandb/offline-run-*"))
    resume(stopped, iterations=6)
    assert_same_outcome_up_to(stopped, whole)
    assert Run.open(stopped).config == tiny(**CHANGES)


def assert_same_outcome_up_to(directory, whole):
    """The metrics and the last checkpoint; a run that ended after 5 iterations kept another one."""
    metrics = [(each / "metrics.jsonl").read_bytes() for each in (directory, whole)]
    assert metrics[0] == metrics[1]
    states = [Run.open(each).load().agent for each in (directory, whole)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_continue_takes_another_number_of_threads_and_tracking_as_the_same_run(stopped, whole):
    run = start_or_resume(tiny(**CHANGES), stopped)
    assert_same_outcome(stopped, whole)
    assert Run.open(stopped).config == run.config == tiny(**CHANGES)


def test_continue_leaves_a_run_with_enough_iterations_as_it_is(stopped):
    before = content(stopped)
    for iterations in (2, 4):
        run = start_or_resume(tiny(iterations=iterations, threads=2), stopped)
        assert run.config == tiny()
        assert content(stopped) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\nseed: 0", "\nseed: 1", "seed: expected 0, with which the run was begun, got 1; put"),
        ("num_tasks: 3", "num_tasks: 4", "sampling.num_tasks: expected 3, with which"),
        ("horizon: 10", "horizon: 11", "env.horizon: expected 10, with which"),
    ],
)
def test_a_config_that_was_changed_by_hand_is_refused(stopped, capsys, old, new, said):
    file = stopped / "config.yaml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    for words in (["--resume", str(stopped)], [str(file), "--continue", f"--out={stopped}"]):
        assert main(["train", *words]) == 2
        assert f"{file}: {said}" in capsys.readouterr().err


def test_what_may_change_may_be_changed_by_hand(stopped, whole):
    file = stopped / "config.yaml"
    file.write_text(file.read_text().replace("\nthreads: 1", "\nthreads: 2"))
    resume(stopped)
    assert_same_outcome(stopped, whole)


@pytest.mark.parametrize(
    ("words", "flag", "own"),
    [
        (["--seed=77"], "--seed", "0"),
        (["--agent.inner.lr", "1e-4"], "--agent.inner.lr", "0.5"),
        (["--num-tasks", "5"], "--num-tasks", "3"),
        (["--env.horizon=50"], "--env.horizon", "10"),
        (["--method", "it's mine"], "--method", "maml_trpo"),
        (["--threads=2", "--agent.policy.hidden", "[8, 8]"], "--agent.policy.hidden", "[8]"),
        (["--agent.outer.update=ppo"], "--agent.outer.update", "trpo"),
        (["--agent.outer.cg_steps=3", "--iterations=9"], "--agent.outer.cg-steps", "4"),
    ],
)
def test_what_cannot_change_is_refused_by_name(stopped, refused, words, flag, own):
    error = refused(stopped, "--resume", stopped, *words)
    expected = f"metarl: error: {flag}: {stopped} was begun with {own}, which it keeps; for another"
    assert error.startswith(expected)


def test_the_command_for_another_run_works(stopped, refused, capsys):
    error = refused(stopped, "--resume", stopped, "--method", "it's mine")
    command = shlex.split(error.partition("for another run: ")[2])
    assert command[:2] == ["metarl", "train"]
    assert command[-2:] == ["--out", "DIR"]
    assert main([*command[1:-1], str(stopped / "new"), "--dry-run"]) == 0
    assert "method: it's mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "elsewhere"], r"--out: .* goes on in its own folder; for another run: metarl"),
        (["--continue"], r"--continue: goes with CONFIG and --out; --resume .* by itself"),
        (["--iterations", "3"], r"--iterations: .* has 4 already; expected more, got 3"),
        (["--iterations", "0"], r"--iterations: expected at least 1, got 0"),
        (["--iterations", "4"], r"finished already \(4 iterations\)"),
        (["--threads", "-1"], r"--threads: expected between 0 and 1024, got -1"),
        (["--tracking.mode", "on"], r"--tracking.mode: expected one of auto, online"),
        (["--agent.inner.lrr", "3"], r"--agent.inner.lrr: unknown key \(nearest: lr\)"),
        (["--device", "cuda:99"], r"device: cuda:99 is not available .* with --device cpu"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_wrong_values_are_refused_too(stopped, refused, words, expected, dry):
    assert re.search(expected, refused(stopped, "--resume", stopped, *words, *dry))


def test_the_own_values_are_no_change(stopped, whole):
    resume(stopped, seed=0, num_tasks=3, **{"agent.inner.lr": 0.5})
    assert_same_outcome(stopped, whole)


def test_values_from_python_are_refused_alike(stopped):
    with pytest.raises(ConfigError, match=r"^--seed: .* was begun with 0, which it keeps; for "):
        metarl.resume(stopped, seed=3)
    with pytest.raises(ConfigError, match="was begun with 3, which it keeps"):
        metarl.resume(stopped, num_tasks=4)
    with pytest.raises(
        UserError, match=r"was begun with env.horizon = 10, not 100; choose another"
    ):
        metarl.resume(stopped, env={"family": "point_nav"})


@pytest.mark.parametrize("continued", [False, True], ids=["resume", "continue"])
def test_a_dry_run_of_a_continuation_trains_and_changes_nothing(stopped, capsys, continued):
    config = stopped.parent / "same.yaml"
    config.write_text(Run.open(stopped).config.to_yaml())
    which = [str(config), "--continue", "--out"] if continued else ["--resume"]
    before = content(stopped)
    words = ["train", *which, str(stopped), "--iterations=9", "--threads=2", "--dry-run"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert content(stopped) == before
    assert "threads: 2" in text.splitlines()
    assert text.splitlines()[-1] == (
        f"# 5 of 9 iterations remain of up to 240 env steps, in {stopped}"
    )


def test_a_dry_run_of_a_continuation_reads_the_checkpoint(stopped, refused):
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    error = refused(stopped, "--resume", stopped, "--dry-run")
    assert "there is no other checkpoint to go by" in error


# --- another device; the folder of a run begun on a GPU is made by its config ---


@pytest.fixture
def from_gpu(finished, tmp_path):
    """The folder of a run that was begun on a device that no machine has."""
    return stop(finished, tmp_path / "gpu", device="cuda:99")


def test_a_run_goes_on_on_another_device_with_a_warning(from_gpu, whole, capsys):
    with pytest.raises(ConfigError, match=r"cuda:99 is not available.*with --device cpu$"):
        resume(from_gpu)
    assert main(["train", "--resume", str(from_gpu), "--device", "cpu"]) == 0
    error = capsys.readouterr().err
    reason = (
        "from iteration 5 on the device is cpu, in place of cuda:99: results are no longer bit for "
        "bit those of cuda:99"
    )
    assert error == f"metarl: warning: {from_gpu}: {reason}\n"
    assert_same_outcome(from_gpu, whole)
    (line,) = (from_gpu / "failures.jsonl").read_text().splitlines()
    expected = {"iteration": 4, "kind": "warning", "reason": reason, "handled": "warned"}
    assert json.loads(line) == expected
    assert Run.open(from_gpu).config.device == "cpu"
    resume(from_gpu, iterations=7)
    assert capsys.readouterr().err == ""


def test_continue_goes_on_on_another_device_too(from_gpu, whole, capsys):
    start_or_resume(tiny(), from_gpu)
    assert "in place of cuda:99" in capsys.readouterr().err
    assert_same_outcome(from_gpu, whole)


def test_before_the_first_iteration_no_results_are_of_another_device(tmp_path, whole, capsys):
    Run.create(tiny(device="cuda:99"), tmp_path / "run")
    resume(tmp_path / "run", device="cpu")
    assert capsys.readouterr().err == ""
    assert_same_outcome(tmp_path / "run", whole)


def test_a_run_of_a_gpu_is_evaluated_without_one(from_gpu, finished, tmp_path, capsys):
    warning = f"metarl: warning: {from_gpu}: its device cuda:99 is not available here; cpu is used"
    sizes = {"tasks": 2, "episodes": 2, "steps": 1}
    result, _ = evaluate_run(str(from_gpu), **sizes, against=["random", str(finished)])
    assert capsys.readouterr().err == f"{warning} instead\n"
    assert (result["maml_trpo"].returns == result["finished"].returns).all()
    agent, same = metarl.load(from_gpu), metarl.load(finished)
    assert torch.equal(agent.meta["weight0"], same.meta["weight0"])
    assert capsys.readouterr().err.startswith(warning)
    size = ["--episodes=2", "--steps=1", "--width=96", "--height=96"]
    assert main(["render", str(from_gpu), *size, "--out", str(tmp_path / "a.gif")]) == 0
    assert capsys.readouterr().err.startswith(warning)
    for words in (["evaluate"], ["render", "--out", str(tmp_path / "b.gif")]):
        assert main([*words, str(from_gpu), "--device", "cuda:99"]) == 2
        error = capsys.readouterr().err
        assert re.fullmatch(r".*cuda:99 is not available.* choose .* --device cpu\n", error)


@pytest.mark.cuda
def test_a_run_changes_between_gpu_and_cpu(tmp_path, capsys):
    """Begun on the GPU, gone on on the CPU and on the GPU again, and evaluated on both."""
    config = tiny("point_nav/maml_ppo", iterations=2, device="cuda")
    directory = train(config, tmp_path / "run").directory
    state = Run.open(directory).load().agent
    assert all(value.device.type == "cpu" for value in state.values())
    for iterations, device in ((4, "cpu"), (6, "cuda")):
        run = resume(directory, iterations=iterations, device=device)
        assert f"the device is {device}" in capsys.readouterr().err
        assert len(run.metrics()) == iterations
    for device in ("cpu", "cuda"):
        agent = metarl.load(directory, device=device)
        assert agent.meta["weight0"].device.type == device
        result, _ = evaluate_run(directory, tasks=2, episodes=2, steps=1, device=device)
        assert result["maml_ppo"].returns.shape == (2, 2, 2)


def test_a_changed_environment_is_refused_by_a_dry_run(tmp_path, capsys):
    """One that no longer repeats its episodes."""
    file = tmp_path / "env.py"
    text = (
        "import gymnasium, numpy as np\n"
        "class Walk(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-9, 9, (1,))\n"
        "    action_space, pull, resets = gymnasium.spaces.Discrete(2), 0.0, 0\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.resets += 1\n"
        "        return np.zeros(1, np.float32) + SHIFT, {}\n"
        "    def step(self, action):\n"
        "        return np.zeros(1, np.float32), 0.0, False, False, {}\n"
    )
    file.write_text(text.replace("SHIFT", "0"))
    env = {"family": "gymnasium", "env_id": f"{file}:Walk", "parameters": {"pull": [0, 1]}}
    config = tiny(env=env, iterations=1, **{"env.horizon": 3})
    directory = train(config, tmp_path / "run").directory
    words = ["train", "--resume", str(directory), "--iterations=2", "--dry-run"]
    assert main(words) == 0
    file.write_text(text.replace("SHIFT", "self.resets"))
    capsys.readouterr()
    assert main(words) == 1
    assert "two episodes with one seed differ" in capsys.readouterr().err
    with pytest.raises(WorkerError):
        config.env.check_repeatable()
