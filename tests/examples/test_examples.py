"""The examples of docs/extending.md do what it says."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.adaptation import SGD, InnerLoop
from metarl.config_files import load_config
from metarl.envs import PointNav
from metarl.evaluation.evaluate import evaluate
from metarl.runs.run import Run
from metarl.training.loop import train

ROOT = Path(__file__).parent.parent.parent
TINY = {"iterations": 2, "num_tasks": 3, "num_episodes": 4, "tracking.mode": "disabled"}


def test_a_rule_of_ones_own_is_found_by_name_and_learned(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    rule = {"agent.inner.rule": "examples.momentum:Momentum", "inner_steps": 2, "env.horizon": 10}
    config = load_config("point_nav/maml_trpo", **TINY, **rule)
    run = train(config, tmp_path / "run")
    strength = run.load().agent["params.momentum:weight0"]
    assert strength.shape == ()
    assert float(strength) != 0


def test_the_momentum_example_is_gradient_descent_at_first_and_remembers(monkeypatch):
    """f(x) = x^2 / 2 from x = 1, lr 0.1, strength 0.5: x = 0.9, then m = 0.9 + 0.5 * 1."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.momentum import Momentum

    start = {"x": torch.ones(1, dtype=torch.float64)}
    loop = InnerLoop(Momentum(0.1))
    meta = loop.init(start)

    def run(loop, meta):
        loss = lambda params: 0.5 * params["x"].square().sum(1)  # noqa: E731
        return loop.adapt(meta, [loss, loss], num_tasks=1).fast_params["x"].item()

    sgd = InnerLoop(SGD(0.1))
    assert run(loop, meta) == run(sgd, sgd.init(start))
    strong = {**meta, "momentum:x": torch.tensor(0.5, dtype=torch.float64)}
    assert run(loop, strong) == pytest.approx(0.9 - 0.1 * (0.9 + 0.5))


def test_the_yaml_of_extending_md_is_a_config(tmp_path):
    """The first YAML block of the page, as it stands."""
    text = (ROOT / "docs/extending.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "anil_ppo.yaml"
    path.write_text(block)
    agent = load_config(path).agent
    assert (agent.inner.adapts, agent.inner.rule, agent.outer.update) == (
        "head",
        "meta_sgd",
        "ppo",
    )


def test_forgetting_is_compared(tmp_path, monkeypatch, capsys):
    """Two seeds of one method, and a seed of another, on two sequences."""
    monkeypatch.syspath_prepend(ROOT)
    from examples import forgetting as example
    from metarl.evaluation.compare import evaluate_run
    from metarl.evaluation.continual import forgetting

    settings = {"iterations": 1, "num_tasks": 2, "num_episodes": 2, "env.horizon": 5}
    file = tmp_path / "new" / "forgetting.json"
    runs = [
        train(load_config(f"point_nav/{name}", seed=seed, **settings), tmp_path / f"{name}{seed}")
        for name, seed in (("maml_trpo", 0), ("maml_trpo", 1), ("continual_maml", 0))
    ]
    folders = [run.directory for run in runs]
    words = ["--tasks", "10", "--episodes", "2", "--out", str(file)]
    for part in (folders[:1], folders):  # the second call adds to what the first one has found
        monkeypatch.setattr("sys.argv", ["forgetting", *map(str, part), *words])
        example.main()
    stored = {
        name: [each["seed"] for each in seeds]
        for name, seeds in json.loads(file.read_text()).items()
    }
    assert stored == {"maml_trpo": [0, 1], "continual_maml": [0]}
    assert example.merged({"a": [{"seed": 1}], "b": []}, {"a": [{"seed": 0}]}) == {
        "a": [{"seed": 0}, {"seed": 1}],
        "b": [],
    }
    _, _, first, other = capsys.readouterr().out.splitlines()[-4:]
    assert first.startswith("| maml_trpo (2 seeds) | ")
    assert other.startswith("| continual_maml (1 seed) | ")
    results, _ = evaluate_run(
        folders[2], protocol="continual", tasks=10, episodes=2, steps=1, out=tmp_path / "again"
    )
    found = forgetting(results["continual_maml, sequential"])
    cells = [cell.strip() for cell in other.split("|")]
    for cell, values in zip(
        cells[2:5], (found.plasticity, found.forgetting, found.average), strict=True
    ):
        assert cell.startswith(f"{values.mean():.1f} (")


def test_the_trade_off_of_going_to_one_point(monkeypatch):
    """At the goal just met nothing is lost but the way; nearer to the mean less is forgotten."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.one_point import straight_returns, trade_off

    family = PointNav(horizon=10)
    goals = np.array([[0.2, -0.15], [0.0, 0.3]])
    returns = straight_returns(family, goals, goals)  # from (0, 0) by at most 0.1 a step and axis
    expected = [-np.hypot(0.1, 0.05), -(0.2 + 0.1)]
    np.testing.assert_allclose(returns, expected, atol=1e-6)
    (near, lost), (far, kept) = (trade_off(family, share, 20) for share in (0.0, 0.9))
    assert -1 < near < 0
    assert far < near
    assert 0 < kept < lost / 2


def test_a_training_stops_at_the_return_that_is_wanted(tmp_path, monkeypatch, capsys):
    """Evaluated on validation tasks after every second iteration, and the last. A repeated call
    trains nothing and prints the same."""
    monkeypatch.syspath_prepend(ROOT)
    from examples import time_to_return

    config = load_config("point_nav/maml_trpo", **{**TINY, "iterations": 3, "env.horizon": 10})
    never = list(time_to_return.train_to_return(config, 0.0, 2, tmp_path / "never"))
    assert [each.iteration for each in never] == [2, 3]
    run = Run.open(tmp_path / "never")
    assert never[-1].env_steps == run.metrics()[-1]["env_steps"]
    assert never[-1].seconds == sum(line["seconds"] for line in run.timings())
    agent = config.make_agent(run.load("3").agent)
    expected = evaluate(agent, config.env, split="validation", steps=1)
    assert never[-1].mean == expected.mean[1]
    assert list(time_to_return.train_to_return(config, 0.0, 2, tmp_path / "never")) == never
    at_once = list(time_to_return.train_to_return(config, never[0].mean, 2, tmp_path / "at_once"))
    assert at_once[0].mean == never[0].mean
    assert len(at_once) == 1

    monkeypatch.setattr(time_to_return, "load_config", lambda name, **settings: config)
    words = f"time point_nav/maml_trpo 0 --seeds 1 --every 2 --runs {tmp_path / 'table'}"
    monkeypatch.setattr("sys.argv", words.split())
    time_to_return.main()
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| point_nav/maml_trpo | 0 | 0, not reached | ")
    assert "| 3 | 0.0M | 8M |" in row
    monkeypatch.setattr("sys.argv", words.replace("--every 2", "--every 1").split())
    time_to_return.main()  # in a folder of its own, as the first one has no checkpoint 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("| point_nav/maml_trpo | 0 | 0, not")


def test_search_directions_are_compared_on_other_meta_batches(tmp_path, monkeypatch, capsys):
    """A row for each setting; the reference has efficiency 1. The run is not changed."""
    monkeypatch.syspath_prepend(ROOT)
    from examples import search_directions

    config = load_config("half_cheetah_dir/demo", **{**TINY, "iterations": 1, "env.horizon": 10})
    run = train(config, tmp_path / "run")
    before = run.load().agent
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["directions", str(run.directory), "--batches", "3"])
    search_directions.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(search_directions.SETTINGS)
    assert lines[2] == "| none |  | 10 | 0.5 | 1.00 ± 0.00 |"
    assert "| kfac | 1.0 | 6 | 0.125 | " in lines[-1]
    after = run.load().agent
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_reproduction_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """Tiny runs: what is missing is trained, evaluated as in the paper, and put beside it."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce import __main__ as reproduce
    from examples.reproduce import measure
    from metarl.training.many_runs import Job, finish_all

    tiny = {**TINY, "env.horizon": 10}
    del tiny["tracking.mode"]
    monkeypatch.setattr(measure, "TASKS", 2)
    monkeypatch.setattr(measure, "FACTORS", (1e-9, 1.0))
    monkeypatch.setattr(measure, "AVERAGED", ("point_nav",))

    def plan(families, seeds, folder):
        names = [
            ("point_nav/maml_trpo", 0),
            ("point_nav/pretrained", 0),
            ("point_nav/maml_trpo", 1),
            ("point_nav/maml_trpo_tuned", 0),
        ]
        jobs = [
            Job(name, {**tiny, "seed": seed}, folder / f"{name.split('/')[1]}-{seed}")
            for name, seed in names
        ]
        return jobs, [replace(jobs[0], settings={**tiny, "iterations": 3}, label=", longer")]

    monkeypatch.setattr(reproduce, "plan", plan)
    words = [
        "reproduce",
        "--jobs",
        "1",
        "--runs",
        str(tmp_path / "trained"),
        "--out",
        str(tmp_path),
        "--measured",
        str(tmp_path / "measured.json"),
    ]
    monkeypatch.setattr("sys.argv", words)
    finish_all(
        plan([], 0, tmp_path / "trained")[0][:1], 1, measure.measure
    )  # as if stopped after it
    metrics = tmp_path / "trained" / "maml_trpo-0" / "metrics.jsonl"
    before = metrics.read_bytes()
    reproduce.main()
    assert metrics.read_bytes()[: len(before)] == before
    printed = capsys.readouterr().out
    assert json.loads((tmp_path / "measured.json").read_text()) == {}  # other iterations
    rows = json.loads((tmp_path / "reproduction.json").read_text())["point_nav"]
    assert set(rows) == {
        *("maml_trpo", "maml_trpo, geometric steps"),
        *("maml_trpo, longer", "maml_trpo, geometric steps, longer"),
        *("random", "random, best step", "pretrained", "pretrained, best step"),
        *("maml_trpo_tuned", "maml_trpo_tuned, geometric steps"),
        *("maml_trpo_tuned, averaged", "maml_trpo_tuned, averaged, geometric steps"),
    }
    assert rows["maml_trpo"]["step_scales"] == [1.0, 0.5, 0.5]
    assert rows["maml_trpo, geometric steps"]["step_scales"] == [1.0, 0.5, 0.25]
    assert rows["maml_trpo"]["seeds"] == [0, 1]
    assert len(rows["maml_trpo"]["curve"][0]) == tiny["iterations"]
    assert rows["random"]["seeds"] == [0]
    assert len(rows["maml_trpo, longer"]["curve"][0]) == 3
    assert rows["maml_trpo, longer"]["env_steps"][0] > rows["maml_trpo"]["env_steps"][0]
    assert rows["maml_trpo, longer"]["returns"] != rows["maml_trpo"]["returns"][:1]
    old = json.loads((tmp_path / "reproduction.json").read_text())
    monkeypatch.setattr(sys, "argv", [*words, "--gather"])
    tiny["agent.inner.lr"] = 0.9  # a config that changed after its runs
    with pytest.raises(SystemExit):
        reproduce.main()
    assert "left out: " in (found := capsys.readouterr().err)
    assert "was begun with agent.inner.lr" in found
    assert json.loads((tmp_path / "reproduction.json").read_text()) == old
    returns = torch.tensor(rows["maml_trpo"]["returns"])
    assert returns.shape == (2, 2, 4)
    assert f"| {returns[..., 1].mean():.1f} (" in printed
    assert "| paper, MAML* | -40.4 | -11.7 | -3.33 | -3.23 |" in printed.replace("*paper", "paper")
    shipped = tmp_path / "runs" / "point_nav-maml_trpo_tuned"
    assert {path.name for path in shipped.rglob("*.*")} == {
        *("config.yaml", "metrics.jsonl", "timings.jsonl", "provenance.json", "latest.pt")
    }
    assert str(tmp_path) not in (shipped / "provenance.json").read_text()
    assert Run.open(shipped).load().iteration == tiny["iterations"]
    assert (tmp_path / "reproduction-adaptation.png").stat().st_size > 10_000
    assert (tmp_path / "reproduction-learning.png").stat().st_size > 10_000


def test_results_of_runs_that_are_gone_stay_as_long_as_their_configs_do(monkeypatch):
    """Seed by seed; a seed that is there again counts as it is now."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce.measure import merge

    def row(config: str, version: str, **returns: float) -> dict:
        """Returns by seed; none has a learning curve."""
        seeds = [int(name[1:]) for name in returns]
        values = list(returns.values())
        lists = {"seeds": seeds, "returns": values, "env_steps": seeds, "hours": seeds, "curve": []}
        return {**lists, "config": config, "versions": version}

    known = {
        "point_nav": {
            "maml": row("a", "old", s0=1.0, s2=3.0),
            "tuned": row("b", "old", s0=4.0, s1=5.0),
            "random": row("a", "old", s0=9.0),
            "untold": {"seeds": [0], "returns": [0.0]},
        },
        "ant_vel": {"maml": row("gone", "old", s0=6.0)},
    }
    found = {
        "point_nav": {"maml": row("a", "new", s1=2.0, s0=1.5), "tuned": row("c", "new", s0=7.0)}
    }
    assert merge(known, found, current={"a", "c"}) == {
        "point_nav": {
            "maml": row("a", "new", s0=1.5, s1=2.0, s2=3.0),
            "tuned": row("c", "new", s0=7.0),
            "random": row("a", "old", s0=9.0),
        }
    }
    assert merge({}, found, {"a", "c"})["point_nav"]["tuned"] == row("c", "new", s0=7.0)
    assert merge(known, {}, {"b"}) == {"point_nav": {"tuned": row("b", "old", s0=4.0, s1=5.0)}}


def test_the_fingerprint_of_an_experiment_is_the_same_for_all_its_seeds(tmp_path, monkeypatch):
    """And another one for other settings, or after a change of its config's values."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce.measure import fingerprint
    from metarl.training.many_runs import Job

    path = tmp_path / "mine.yaml"
    path.write_text("# a comment\nenv: {family: point_nav}\niterations: 3\n")

    def of(**settings) -> str:
        return fingerprint(Job(str(path), settings, tmp_path / "run"))

    first = of(seed=0)
    assert of(seed=1) == first
    assert of(seed=0, iterations=4) != first
    path.write_text("env: {family: point_nav}\niterations: 3\n")
    assert of(seed=2) == first
    path.write_text("env: {family: point_nav}\niterations: 5\n")
    assert of(seed=0) != first


def test_points_of_a_learning_curve_are_means_over_as_many_iterations(monkeypatch):
    """So that no part of it is noisier than the rest."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce import measure

    monkeypatch.setattr(measure, "MAX_CURVE_POINTS", 3)
    names = ("env_steps", "return_before", "return_after")
    metrics = [dict(zip(names, (10 * i, i, 2 * i), strict=True)) for i in range(1, 6)]
    expected = [[20, 1.5, 3], [40, 3.5, 7], [50, 5, 10]]
    assert measure.curve(metrics) == expected
    assert [point[0] for point in measure.curve(metrics[:2])] == [10, 20]


def test_the_page_of_the_reproduction_shows_the_results_as_they_are(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce.figures import table

    results = json.loads((ROOT / "docs/results/reproduction.json").read_text())
    assert "\n".join(table(results)) in (ROOT / "docs/reproduction.md").read_text()


def test_the_list_of_configs_shows_the_results_of_the_reproduction(monkeypatch, tmp_path):
    """`python -m examples.reproduce --gather` writes them anew."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce.measured import write_measured

    results = json.loads((ROOT / "docs/results/reproduction.json").read_text())
    agents = json.loads((ROOT / "docs/results/agents.json").read_text())
    write_measured(results, agents, tmp_path / "measured.json")
    assert (tmp_path / "measured.json").read_text() == (ROOT / "configs/measured.json").read_text()
    found = json.loads((ROOT / "configs/measured.json").read_text())
    row = results["point_nav"]["maml_trpo_tuned"]
    assert found["point_nav/maml_trpo_tuned"]["return"] == pytest.approx(
        np.mean(row["returns"], axis=(0, 1))[1], abs=0.006
    )
    # The episode after one on the same task, as in docs/comparison.md
    assert round(found["point_nav/rl2"]["return"], 1) == -1.2
    assert len(found["half_cheetah_dir/varibad"]["core_minutes"]) == 3
    # Of the runs over the whole budget, not of half of it.
    assert found["half_cheetah_dir/maml_trpo"]["return"] == 243.73


SHIPPED = sorted((ROOT / "docs/results/runs").iterdir())


def test_the_returns_of_the_runs_that_come_with_the_code_are_stored():
    """`python -m examples.docs_check shipped` measures them again."""
    stored = json.loads((ROOT / "docs/results/runs.json").read_text())
    assert sorted(stored) == [folder.name for folder in SHIPPED]
    told = stored["half_cheetah_dir-maml_trpo_gymnasium"][1]
    assert f"has {told:.1f} after one step" in (ROOT / "docs/results.md").read_text()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_run_that_comes_with_the_code_adapts(folder, tmp_path):
    """On a few tasks: by at least half of what the results say of a whole evaluation."""
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 1e6
    assert json.loads((folder / "provenance.json").read_text())["command"][0] == "metarl"
    config = Run.open(folder).config
    result = evaluate(metarl.load(folder), config.env, tasks=8, episodes=10, steps=1)
    rows = json.loads((ROOT / "docs/results/reproduction.json").read_text())[config.env.name]
    gains = np.diff(np.mean(rows[config.method]["returns"], axis=1)[:, :2])  # of each seed
    assert np.diff(result.mean)[0] > 0.5 * gains.max()


def test_the_benchmark_of_families_prints_a_markdown_table():
    few = ["--episodes=4", "--steps=2", "--repeats=1", "--threads=1", "--more=2000"]
    command = [sys.executable, ROOT / "examples/bench_families.py", "point_nav", *few]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    head, ruler, row = done.stdout.splitlines()[-3:]
    assert head.count("|") == ruler.count("|") == row.count("|") == 6
    name, rate, limit, share, memory = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "`point_nav`"
    rates = [float(number.replace(",", "")) for number in (rate, limit)]
    assert float(share) == pytest.approx(rates[0] / rates[1], abs=0.01)
    assert float(memory) < 100


def test_a_family_on_an_environment_of_gymnasiums_is_trained(tmp_path, monkeypatch):
    """Its two lines of code reach the pendulum in the workers."""
    monkeypatch.syspath_prepend(ROOT)
    family = "examples.unknown_pendulum:UnknownPendulum"
    config = load_config("point_nav/maml_trpo", **TINY, env={"family": family, "horizon": 10})
    run = train(config, tmp_path / "run")
    assert len(run.metrics()) == 2
    tasks = config.env.tasks("test", 50)
    assert tasks.min() < 0.7 < 1.5 < tasks.max()
    env = config.env.make_batch(2)
    streams = [np.random.default_rng(0) for _ in range(2)]
    env.reset(np.array([[1.0, 1.0], [2.0, 0.5]]), streams)
    obs, _, _ = env.step(np.full((2, 1), 0.5))
    assert obs[0, 2] != obs[1, 2], "another angular velocity"


def test_the_soak_harms_runs_that_equal_their_twins(tmp_path, monkeypatch, capsys):
    """One run, harmed until it is finished."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.soak import __main__ as soak

    file = tmp_path / "soak.json"
    words = ["soak", "--minutes=0", "--only=point_nav/maml_trpo", "--seed=1", f"--json={file}"]
    monkeypatch.setattr("sys.argv", words)
    assert soak.main() == 0, capsys.readouterr().out
    assert "0 failures" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert result["runs"] == {"point_nav/maml_trpo": 1}
    assert sum(result["faults"].values()) > 0
    assert sum(result["endings"].values()) >= 1 + result["lives"] > 1
    assert result["failures"] == []


def test_the_soak_tells_runs_apart(tmp_path, monkeypatch):
    """By the metrics, by any checkpoint, and by what is there."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.soak.trainer import fingerprint

    config = load_config("point_nav/maml_trpo", **TINY, **{"env.horizon": 10})
    run = train(config, tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(run.directory, other)
    assert fingerprint(other) == fingerprint(run.directory)
    state = run.load()
    state.agent["params.log_std"] += 1e-6
    changed = Run(other, config)
    changed.save(state, best=False, keep=False)
    assert fingerprint(other) != fingerprint(run.directory)
    shutil.copytree(run.directory, other, dirs_exist_ok=True)
    changed.metrics_file.write_bytes(run.metrics_file.read_bytes().replace(b"1", b"2"))
    assert fingerprint(other) != fingerprint(run.directory)
    shutil.copytree(run.directory, other, dirs_exist_ok=True)
    assert fingerprint(other) == fingerprint(run.directory)
    (changed.checkpoints / "best.pt").unlink()
    assert fingerprint(other) != fingerprint(run.directory)


def test_the_results_that_come_with_the_code_belong_to_todays_configs(monkeypatch):
    """Or the next `make reproduce` would leave out those whose runs are not here."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.reproduce.__main__ import plan
    from examples.reproduce.measure import fingerprint
    from examples.reproduce.published import PUBLISHED

    phases = plan(list(PUBLISHED), 3, Path("runs/reproduce"))
    current = {fingerprint(job) for jobs in phases for job in jobs}
    results = json.loads((ROOT / "docs/results/reproduction.json").read_text())
    assert {row["config"] for rows in results.values() for row in rows.values()} <= current
