"""Training: what a run leaves behind, and that resuming equals never having stopped."""

import contextlib
import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.config_files import config_names, make_config
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav, WorkerError
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.rollout.episodes import Episodes
from metarl.runs.run import Run
from metarl.training.iterations import Interrupted, objective
from metarl.training.loop import resume, train
from metarl.training.meta_iteration import return_metrics
from metarl.training.trainer import Trainer
from tests.rollout.sharded import Sharded

TINY = {
    "iterations": 6,
    "num_tasks": 3,
    "num_episodes": 4,
    "checkpoint_every": 2,
    "env.horizon": 10,
    "agent.policy.hidden": [8],
    "tracking.mode": "disabled",
}


def tiny(name="point_nav/maml_trpo", **overrides):
    return metarl.load_config(name, **{**TINY, **overrides})


def outcome(directory):
    """Everything of a run that must not depend on how it came about."""
    checkpoints = {
        path.name: torch.load(path, weights_only=True)
        for path in sorted((directory / "checkpoints").glob("*.pt"))
    }
    return (directory / "metrics.jsonl").read_bytes(), checkpoints


def assert_same_outcome(first, second):
    metrics, checkpoints = outcome(first)
    other_metrics, other_checkpoints = outcome(second)
    assert metrics == other_metrics
    assert checkpoints.keys() == other_checkpoints.keys()
    for name, content in checkpoints.items():
        other = other_checkpoints[name]
        states = ("agent", "sampler")
        assert {k: v for k, v in content.items() if k not in states} == {
            k: v for k, v in other.items() if k not in states
        }
        for state in states:
            assert content[state].keys() == other[state].keys()
            for key, value in content[state].items():
                same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
                assert same(value, other[state][key]), (name, key)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "finished")


def test_a_run_leaves_config_metrics_timings_checkpoints_and_provenance(finished):
    directory = finished.directory
    assert Run.open(directory).config == finished.config
    lines = finished.metrics()
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["env_steps"] <= 6 * 2 * 3 * 4 * 10
    assert {
        "return_before",
        "return_after",
        "adaptation_gain",
        "adaptation_kl",
        "outer_kl",
        "improvement",
        "expected_improvement",
        "line_search_steps",
        "policy_std",
        "explained_variance",
    } <= lines[0].keys()
    timings = [json.loads(line) for line in finished.timings_file.read_text().splitlines()]
    assert len(timings) == 6
    assert {"seconds", "env_steps_per_second", "seconds/conjugate gradient"} <= timings[0].keys()
    names = {path.name for path in finished.checkpoints.iterdir()}
    assert names == {"latest.pt", "best.pt", *(f"iteration-00000{i}.pt" for i in (2, 4, 6))}
    assert json.loads((directory / "provenance.json").read_text())["versions"]["torch"]


def test_metrics_mean_what_they_say(finished):
    for line in finished.metrics():
        assert line["adaptation_gain"] == pytest.approx(
            line["return_after"] - line["return_before"]
        )
        assert 0 <= line["outer_kl"] <= finished.config.agent.outer.max_kl
        assert -10 * 10 * np.sqrt(2) < line["return_before"] < 0


def test_the_return_that_chooses_the_best_checkpoint_is_the_objective():
    assert objective({"return_after": 3.0}) == 3.0
    assert objective({"return_after": 3.0, "return_worst": -1.0}) == -1.0
    assert objective({"return_after": 3.0, "return_revisited": 1.0}) == 2.0
    assert objective({"return_after": 3.0, "return_revisited": None}) == 3.0
    assert objective({"return_after": None, "return_revisited": 1.0}) is None


def test_best_is_the_checkpoint_with_the_highest_recent_return(finished):
    after = [line["return_after"] for line in finished.metrics()]
    recent = {i: np.mean(after[i - 2 : i]) for i in (2, 4, 6)}
    best = finished.load("best")
    assert best.iteration == max(recent, key=recent.get)
    assert best.best_return == pytest.approx(max(recent.values()))


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("point_nav/maml_trpo", 1), ("point_nav/maml_trpo", 2), ("half_cheetah_vel/maml_trpo", 1)],
)
def test_threads_do_not_change_the_result(tmp_path, name, sequence):
    settings = {"iterations": 2, "sampling.sequence": sequence}
    runs = [train(tiny(name, threads=n, **settings), tmp_path / str(n)) for n in (1, 2, 3)]
    assert_same_outcome(runs[0].directory, runs[1].directory)
    assert_same_outcome(runs[0].directory, runs[2].directory)


def test_seeds_change_the_result(tmp_path, finished):
    other = train(tiny(seed=1, iterations=1), tmp_path / "other")
    assert other.metrics()[0]["return_before"] != finished.metrics()[0]["return_before"]


def test_two_inner_steps_and_first_order_train(tmp_path):
    config = tiny(inner_steps=2, iterations=1, **{"agent.inner.first_order": True})
    run = train(config, tmp_path / "run")
    assert run.metrics()[0]["env_steps"] <= 3 * 3 * 4 * 10


def test_sequences_report_the_returns_after_each_task_and_on_the_earlier_ones(tmp_path):
    """The means of the phases, whose env steps all count."""
    run = train(tiny(iterations=2, **{"sampling.sequence": 3}), tmp_path / "run")
    for line in run.metrics():
        assert line["adaptation_gain"] == line["return_after"] - line["return_before"]
        assert -10 * 10 * np.sqrt(2) < line["return_revisited"] < 0
    assert line["env_steps"] <= 2 * (3 * 2 + 2) * 3 * 4 * 10
    assert line["env_steps"] > 2 * (3 * 2 + 1) * 3 * 4 * 10
    sampling = run.config.sampling
    phases = [phase_of_return(number) for number in range(8)]
    found = return_metrics(sampling, phases)
    before, after = (0 + 2 + 4) / 3, (1 + 3 + 5) / 3
    assert (found["return_before"], found["return_after"]) == (before, after)
    assert (found["return_revisited"], found["adaptation_gain"]) == ((6 + 7) / 2, after - before)


def test_a_phase_without_a_reported_success_has_none():
    """As where an environment reports a success only when there is one."""
    sampling = metarl.load_config("point_nav/maml_trpo").sampling
    before, after = phase_of_return(0), phase_of_return(1)
    assert "success_after" not in return_metrics(sampling, [before, after])
    reached = replace(after, success=np.array([[True]]))
    found = return_metrics(sampling, [before, reached])
    assert (found["success_before"], found["success_after"]) == (0, 1)


@pytest.mark.parametrize("threads", [2, 3])
def test_tasks_that_drift_train(tmp_path, threads):
    """Two adaptations, each by episodes in another body; alike on any number of threads."""
    settings = {"sampling.drift": 0.2, "inner_steps": 2, "iterations": 2}
    one, other = (
        train(tiny("half_cheetah_body/maml_trpo", threads=n, **settings), tmp_path / str(n))
        for n in (1, threads)
    )
    assert_same_outcome(one.directory, other.directory)
    assert one.metrics()[-1]["env_steps"] == 2 * 3 * 3 * 4 * 10


def phase_of_return(value: float) -> Episodes:
    """An episode of one step."""
    one = np.ones((1, 1, 1))
    return Episodes(
        obs=one[..., None],
        action=one[..., None],
        reward=value * one,
        mask=one > 0,
        last_obs=one,
        terminated=one[0] > 0,
        bootstrap=one[0] > 0,
        tasks=one[0],
    )


@pytest.mark.parametrize("method", ["maml_trpo", "rl2"])
def test_a_run_on_sequences_goes_on_as_if_it_had_not_been_stopped(tmp_path, method):
    sizes = {"agent.network.size": 8} if method == "rl2" else {"agent.policy.hidden": [8]}
    settings = {key: value for key, value in TINY.items() if key != "agent.policy.hidden"}
    settings |= {"sampling.sequence": 2, "checkpoint_every": 1, "inner_steps": 1, **sizes}
    config = metarl.load_config(f"point_nav/{method}", **settings)
    whole = train(config.replace(iterations=3), tmp_path / "whole")
    train(config.replace(iterations=1), tmp_path / "parts")
    resume(tmp_path / "parts", iterations=3)
    assert_same_outcome(whole.directory, tmp_path / "parts")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, finished, monkeypatch):
    directory = tmp_path / "run"
    original = PointNav.sample_tasks
    calls = []

    def interrupting(self, rng, num_tasks):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, rng, num_tasks)

    monkeypatch.setattr(PointNav, "sample_tasks", interrupting)
    with pytest.raises(Interrupted, match="metarl train --resume") as interruption:
        train(tiny(), directory)
    assert interruption.value.signal == signal.SIGTERM
    assert len(Run.open(directory).metrics()) == 3  # between two checkpoints
    resume(directory)
    assert_same_outcome(directory, finished.directory)


def test_kill_minus_nine_between_checkpoints_loses_nothing_for_good(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    overrides = {**TINY, "iterations": 40, "checkpoint_every": 3, "threads": 1}
    flags = [f"--{key}={value}" for key, value in overrides.items()]
    command = [sys.executable, "-m", "metarl", "train", "point_nav/maml_trpo", *flags, "--out"]
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert Run.open(killed).latest().iteration < 40
    metarl.resume(killed)
    train(tiny(**{**overrides, "threads": 2}), whole)
    assert_same_outcome(killed, whole)


def test_a_run_without_a_checkpoint_yet_starts_over(tmp_path, finished):
    directory = tmp_path / "run"
    run = Run.create(tiny(), directory)
    run.rewind(0)
    run.log({"iteration": 1, "return_after": 0.0}, {"iteration": 1})
    resume(directory)
    assert_same_outcome(directory, finished.directory)


def test_an_existing_folder_and_a_finished_run_are_refused(finished, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        train(tiny(), finished.directory)
    with pytest.raises(UserError, match="finished already"):
        resume(finished.directory)
    with pytest.raises(UserError, match="not a run's folder"):
        resume(tmp_path / "nothing")


def test_an_existing_folder_is_refused_before_anything_is_played(finished, monkeypatch):
    def too_soon(self, state=None):
        raise AssertionError("episodes that observations are normalised by")

    monkeypatch.setattr("metarl.config.Config.make_agent", too_soon)
    with pytest.raises(UserError, match="exists already"):
        train(tiny(), finished.directory)


def test_no_tracker_is_started_where_no_environment_can_be_made(tmp_path, monkeypatch):
    def cannot(self, num_episodes, num_threads=1):
        raise WorkerError("no memory for an environment")

    monkeypatch.setattr("metarl.training.trainer.start_tracker", None)  # is not called
    monkeypatch.setattr(PointNav, "make_batch", cannot)
    with pytest.raises(WorkerError):
        train(tiny(), tmp_path / "run")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"sample_tasks": lambda self, rng, n: rng.uniform(size=n)}, r"sample_tasks: expected the"),
        (
            {"sample_tasks": lambda self, rng, n: [[0.1, 0.1]] * n},
            "sample_tasks: expected an array",
        ),
        ({"all_tasks": np.zeros((0, 2))}, r"all_tasks: expected the shape \(n, 2\) with one task"),
    ],
)
def test_wrong_tasks_are_one_line_before_there_is_a_folder(tmp_path, members, said):
    family = type("Odd", (PointNav,), {"name": "odd", **members})(horizon=5)
    with pytest.raises(ConfigError, match=f"^env: odd: {said}"):
        train(tiny().replace(env=family), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_family_that_is_in_no_module_is_refused_or_warned_of(tmp_path, capsys):
    class Local(PointNav):
        name = "local"

    with pytest.raises(ConfigError, match=r"<locals>\.Local: expected a class outside of functio"):
        train(tiny().replace(env=Local(horizon=5)), tmp_path / "local")
    assert not (tmp_path / "local").exists()
    Local.__module__, Local.__qualname__ = "__main__", "Local"
    train(tiny(iterations=1).replace(env=Local(horizon=5)), tmp_path / "main")
    said = "metarl: warning: env: __main__:Local: only this script or notebook can open the run"
    assert capsys.readouterr().err.count(said) == 1


@pytest.mark.parametrize("is_locked", [True, False])
def test_the_sampler_of_a_new_run_is_closed_once(tmp_path, is_locked):
    """Also where another process trains the run by then."""

    class Counted(Sharded):
        closed = 0

        def close(self):
            self.closed += 1

    config = tiny(iterations=1)
    sampler = Counted(config.env, 4, 2)
    run = Run.create(config, tmp_path / "run")
    with contextlib.ExitStack() as stack:
        if is_locked:
            stack.enter_context(run.lock())
            stack.enter_context(pytest.raises(UserError, match="is training here"))
        Trainer(run, sampler=sampler).run()
    assert sampler.closed == 1


# --- every method ---

POINT_NAV = [
    name
    for name in config_names()
    if name.startswith("point_nav/") and metarl.load_config(name).agent.kind == "maml"
]


def killed_after_first_iteration(finished, directory):
    """A copy of a run's folder, with checkpoints at each iteration, as if killed in the second."""
    shutil.copytree(finished, directory)
    checkpoints = directory / "checkpoints"
    first = checkpoints / "iteration-000001.pt"
    for path in checkpoints.iterdir():
        if path.name in ("latest.pt", "best.pt"):
            shutil.copy(first, path)
        elif path != first:
            path.unlink()


@pytest.mark.parametrize("name", POINT_NAV)
def test_every_method_trains_resumes_and_evaluates(tmp_path, name):
    """Two iterations: on one thread, on two, and with a break after the first, all alike to the
    bit; finite figures; and an evaluation of what was learned, which is not what it began with."""
    config, two_threads = (
        tiny(name, iterations=2, checkpoint_every=1, threads=n, **{"agent.tasks_per_microbatch": 2})
        for n in (1, 2)
    )
    run = train(config, tmp_path / "run")
    lines = run.metrics()
    assert len(lines) == 2
    assert all(np.isfinite(list(line.values())).all() for line in lines)

    assert_same_outcome(train(two_threads, tmp_path / "two").directory, run.directory)
    killed_after_first_iteration(run.directory, tmp_path / "killed")
    assert Run.open(tmp_path / "killed").latest().iteration == 1
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", run.directory)

    trained, fresh = load(run.directory), config.make_agent()
    result = evaluate(trained, config.env, tasks=3, episodes=2, steps=2)
    assert np.isfinite(result.returns).all()
    points = 1 if name.endswith("/oracle") else 3  # an oracle does not adapt
    assert result.returns.shape == (3, points, 2)
    before = fresh.state_dict()
    changed = [key for key, x in trained.state_dict().items() if not torch.equal(x, before[key])]
    assert "params.weight0" in changed


FEW_ROWS = {
    "tabular_mdp/maml_trpo": {"agent.inner.adapts": "context", "num_tasks": 5, "env.horizon": 15},
    "point_nav/rl2": {"num_tasks": 1, "num_episodes": 1, "env.horizon": 3},
    "point_nav/varibad": {"num_tasks": 1, "num_episodes": 1, "env.horizon": 3},
    "point_nav/pearl": {
        "num_tasks": 2,
        "sampling.train_tasks": 2,
        "agent.update.gradient_steps": 3,
        "agent.update.batch": 8,
        "agent.update.context": 8,
        "agent.update.warmup_iterations": 0,
    },
}
"""Sizes at which the rounding of products depends on where their arguments lie in memory, but for
PEARL, which has two vectors of parameters."""


@pytest.mark.parametrize("name", FEW_ROWS)
def test_loaded_parameters_lie_as_if_they_had_never_been_stored(tmp_path, name):
    sizes = {**TINY, **FEW_ROWS[name], "iterations": 3, "checkpoint_every": 1, "threads": 1}
    config = metarl.load_config(name, **{k: v for k, v in sizes.items() if "policy" not in k})
    run = train(config, tmp_path / "run")
    killed_after_first_iteration(run.directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", run.directory)


RISK = {"sampling.risk": {"alpha": 0.5, "oversampling": 0.5}}


@pytest.mark.parametrize("name", ["point_nav/maml_trpo", "point_nav/rl2"])
def test_the_sampler_of_hard_tasks_is_part_of_the_run(tmp_path, name):
    """On one thread, on two, and with a break after the first of three iterations, alike to the
    bit; and its state is in the checkpoint."""
    settings = {key: value for key, value in TINY.items() if "policy" not in key or "maml" in name}
    settings |= {**RISK, "iterations": 3, "checkpoint_every": 1, "num_tasks": 4}
    runs = [
        train(metarl.load_config(name, **settings, threads=n), tmp_path / str(n)) for n in (1, 2)
    ]
    assert_same_outcome(runs[0].directory, runs[1].directory)
    killed_after_first_iteration(runs[0].directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", runs[0].directory)
    state = runs[0].load().sampler["probabilities"]
    assert state.shape == (2, 10)
    assert state.sum(1).tolist() == pytest.approx([1, 1])
    assert not torch.equal(state, runs[0].load("1").sampler["probabilities"])
    for line in runs[0].metrics():
        assert np.isfinite(line["return_worst"])


def test_the_whole_distribution_is_no_risk(tmp_path, finished):
    """alpha = 1 is what there was before; with less, the worst tasks count alone."""
    same = train(tiny(**{"sampling.risk.alpha": 1.0}), tmp_path / "same")
    assert_same_outcome(same.directory, finished.directory)
    other = train(tiny(iterations=1, **{"sampling.risk.alpha": 0.4}), tmp_path / "other")
    first, plain = other.metrics()[0], finished.metrics()[0]
    assert first["return_after"] == plain["return_after"]
    assert first["return_worst"] < first["return_after"]
    assert first["improvement"] != plain["improvement"]


def test_nuisances_are_of_training_alone(tmp_path, finished):
    """And the same on any number of threads, and after a break."""
    nuisances = {
        "observation_noise": [0.0, 0.1],
        "action_delay": [0, 2],
        "motor_strength": [0.2, 0.4],
    }
    settings = {"sampling.nuisances": nuisances, "iterations": 2, "checkpoint_every": 1}
    runs = [train(tiny(**settings, threads=n), tmp_path / str(n)) for n in (1, 2)]
    assert_same_outcome(runs[0].directory, runs[1].directory)
    killed_after_first_iteration(runs[0].directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", runs[0].directory)
    assert runs[0].metrics()[0] != finished.metrics()[0]
    assert runs[0].config.env == finished.config.env
    fresh = [run.config.make_agent() for run in (runs[0], finished)]
    results = [evaluate(agent, finished.config.env, tasks=2, episodes=2) for agent in fresh]
    assert np.array_equal(results[0].returns, results[1].returns)


@pytest.mark.parametrize("kind", ["pearl", "varibad"])
def test_agents_that_do_not_weigh_tasks_refuse_risk(kind):
    data = {"env": {"family": "point_nav"}, "agent": {"kind": kind}}
    sampling = {"train_tasks": 10, "risk": {"alpha": 0.2}}
    message = rf"^test: sampling\.risk\.alpha: 0\.2 needs an agent .* maml or rl2\), got {kind}; "
    with pytest.raises(UserError, match=message):
        make_config({**data, "sampling": sampling}, "test", {})


@pytest.mark.parametrize("name", config_names())
def test_every_config_has_an_agent(name):
    """Of the sizes it is trained with."""
    try:
        agent = metarl.load_config(name).make_agent()
    except WorkerError as error:
        pytest.skip(str(error))
    assert all(torch.as_tensor(x).isfinite().all() for x in agent.state_dict().values())


@pytest.mark.parametrize(
    "settings",
    [
        {"agent.outer.fisher_fraction": 1.0},  # so few steps need all
        {
            "agent.inner.adapts": "context",
            "agent.inner.surrogate": "dice",
            "agent.outer.update": "adam",
        },
        {"agent.inner.rule": "meta_lstm", "agent.outer.update": "ppo"},
    ],
)
def test_discrete_actions_train(tmp_path, settings):
    """On tabular_mdp, with a categorical policy."""
    data = {"env": {"family": "tabular_mdp", "num_states": 4, "num_actions": 3}}
    config = make_config(data, "test", {**TINY, "iterations": 2, **settings})
    run = train(config, tmp_path / "run")
    for line in run.metrics():
        assert np.isfinite(list(line.values())).all()
        assert "policy_std" not in line
        assert line["outer_kl"] > 0
    result = evaluate(load(run.directory), config.env, tasks=3, episodes=2, steps=1)
    assert np.isfinite(result.returns).all()


def test_a_training_imports_nothing_slow_that_it_does_not_use(tmp_path):
    """Torch's compiler and the statistics of evaluations take seconds at the start."""
    program = (
        "import sys; from metarl.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "slow = 'torch._dynamo', 'torch._inductor', 'scipy', 'matplotlib', 'wandb', 'ray'\n"
        "print('imported:', [name for name in slow if name in sys.modules])\n"
    )
    words = ["train", "point_nav/maml_ppo", "--iterations=1", "--num-tasks=2", "--env.horizon=5"]
    more = ["--tracking.trackers=none", f"--out={tmp_path / 'run'}"]
    command = [sys.executable, "-c", program, *words, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"
