"""Numbers that are not finite, in runs of RL2 and in its update."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents import Rollout
from metarl.cli.main import main
from metarl.config_files import make_config
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite
from metarl.runs.run import Run
from metarl.training.loop import train
from tests.agents.playing import play
from tests.agents.rl2.test_agent import FAMILIES, assert_same, make, updated
from tests.reliability.test_failures import assert_stop_saves_records_and_names

CELLS = ["gru", "lstm"]
ENVS = {
    "point": (
        {"family": "tests.faulty:FaultyNav", "horizon": 5, "ends_at_goal": False},
        "reward",
        "large reward",
    ),
    "recall": ({"family": "tests.agents.rl2.families:FaultyRecall"}, "nan", "large"),
}


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


@pytest.fixture(params=ENVS)
def faulty(request, cell):
    """Makes a tiny config in which episodes fail."""

    def make(share: float, on_failure: str, *, large: bool = False, agent=None, **overrides):
        env, *faults = ENVS[request.param]
        network = {"cell": cell, "size": 4}
        data = {
            "env": {**env, "fault": faults[large], "share": share},
            "agent": {"kind": "rl2", "network": network, **(agent or {})},
            "sampling": {"num_tasks": 3, "num_episodes": 4, "adaptation_steps": 1},
            "on_failure": on_failure,
            "iterations": 4,
            "checkpoint_every": 2,
            "tracking": {"mode": "disabled"},
        }
        return make_config(data, "test", {"threads": 1, **overrides})

    return make


def test_dropped_episodes_are_counted_and_training_goes_on(faulty, tmp_path):
    run = train(faulty(0.1, "drop_episode"), tmp_path / "run")
    lines, failures = run.metrics(), run.failures()
    assert sum(line["dropped_episodes"] for line in lines) == len(failures) > 2
    for line in lines:
        assert line["skipped_update"] == 0
        assert all(np.isfinite(value) for value in line.values())
    assert {each["handled"] for each in failures} == {"drop_episode"}
    assert run.load().agent["num_updates"] == 4


def test_a_skipped_update_leaves_everything_as_it_was(faulty, tmp_path):
    config = faulty(0.9, "skip_update", iterations=2)
    run = train(config, tmp_path / "run")
    assert_same(run.load().agent, config.make_agent().state_dict())
    for line in run.metrics():
        assert line["skipped_update"] == 1
        assert "outer_kl" not in line
    assert {each["handled"] for each in run.failures()} == {"skip_update"}


@pytest.mark.parametrize("on_failure", ["drop_episode", "skip_update"])
def test_where_no_trial_is_left_nothing_is_learned(faulty, tmp_path, on_failure):
    config = faulty(1.0, on_failure, iterations=2)
    run = train(config, tmp_path / "run")
    assert_same(run.load().agent, config.make_agent().state_dict())
    for line in run.metrics():
        assert (line["return_before"], line["skipped_update"]) == (None, 1)
    if on_failure == "drop_episode":
        assert run.failures()[-1]["reason"].startswith("the mean return of no trials")


def test_stop_saves_records_and_names(faulty, tmp_path, capsys):
    """And comes to the same end when it is resumed."""
    config = faulty(0.01, "stop", iterations=99, seed=1)
    assert_stop_saves_records_and_names(config, tmp_path / "run", capsys)


RAW = {"running_rewards": False, "update": {"minibatches": 1}}


@pytest.mark.parametrize("on_failure", ["drop_episode", "skip_update"])
def test_a_loss_that_is_not_finite_skips_the_update(faulty, tmp_path, on_failure):
    """Rewards of 3e38, which nothing scales down."""
    settings = {"large": True, "agent": RAW, "iterations": 1, "inner_steps": 0}
    config = faulty(0.5, on_failure, **settings)
    run = train(config, tmp_path / "run")
    (line,) = run.metrics()
    assert (line["dropped_episodes"], line["skipped_update"]) == (0, 1)
    (failure,) = run.failures()
    assert (failure["kind"], failure["handled"]) == ("update", "skip_update")
    assert "not finite; nothing was updated" in failure["reason"]
    assert_same(run.load().agent, config.make_agent().state_dict())


def test_a_loss_that_is_not_finite_stops(faulty, tmp_path):
    config = faulty(0.5, "stop", large=True, agent=RAW, inner_steps=0)
    with pytest.raises(NotFinite, match="not finite; nothing was updated"):
        train(config, tmp_path / "run")
    (failure,) = Run.open(tmp_path / "run").failures()
    assert (failure["kind"], failure["iteration"], failure["handled"]) == ("update", 1, "stop")


def test_running_moments_scale_large_rewards(faulty, tmp_path):
    """Which RL2 does not survive otherwise."""
    run = train(faulty(0.5, "stop", large=True), tmp_path / "run")
    for text in run.metrics_file.read_text().splitlines():
        line = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert all(np.isfinite(value) for value in line.values())
    for name, value in run.load().agent.items():
        assert torch.isfinite(torch.as_tensor(value)).all(), name


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_trial_with_a_failed_episode_leaves_no_trace(cell, family):
    """An update with it, failed in its second episode, is the update without it."""
    config = make(family, num_episodes=3, network={"cell": cell})
    agents = [updated(config, 1)[0] for _ in range(2)]
    rollouts = [
        Rollout(state, episodes) for state, episodes in play(config, agents[0], iteration=1)
    ]

    def one_task(episodes: Episodes, kept: list[int], task: int = 1) -> Episodes:
        rows = {
            name: array[[task]][:, kept] if name != "tasks" else array[[task]]
            for name, array in episodes.arrays.items()
        }
        return Episodes(**rows)

    failed = [one_task(episodes, [0, 1, 2]) for _, episodes in rollouts]
    emptied = {name: array.copy() for name, array in failed[1].arrays.items()}
    for name in ("mask", "obs", "action", "reward", "last_obs"):
        emptied[name][:, 1] = 0
    failed[1] = replace(failed[1], **emptied)
    without = [one_task(episodes, [0, 2]) for _, episodes in rollouts]
    for agent, phases in zip(agents, (failed, without), strict=True):
        agent.update([Rollout(None, each) for each in phases], np.random.default_rng(3), Timer())
    assert_same(agents[0].state_dict(), agents[1].state_dict())


def test_evaluation_leaves_failed_episodes_out_or_stops(faulty, tmp_path, capsys):
    """And says which; the run itself was healthy."""
    for on_failure in ("drop_episode", "stop"):
        directory = train(faulty(0.0, on_failure, iterations=1), tmp_path / on_failure).directory
        words = ["evaluate", str(directory), "--tasks=3", "--episodes=4", "--steps=2"]
        code = main([*words, "--env.share=0.3"])
        captured = capsys.readouterr()
        if on_failure == "stop":
            assert code == 1
            assert re.match(r"metarl: error: .*not finite", captured.err)
        else:
            assert code == 0
            assert "left out" in captured.out.replace("\n", " ")
