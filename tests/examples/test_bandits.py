"""examples/bandits.py: agents and UCB1 on the same bandits."""

import numpy as np
import pytest

import metarl
from examples import bandits
from metarl.config_files import make_config
from metarl.envs import Bandit

AGENT = {"kind": "rl2", "network": {"size": 4}}


def test_the_table_has_a_row_for_each_run_and_one_for_all():
    lines = list(
        bandits.table(["one", "two"], [np.array([3.0, 5]), np.array([4.0, 6])], np.array([3.0, 3]))
    )
    assert lines[2].startswith("| one | 4.00 | 3.00 | +1.00 (")
    assert lines[4].startswith("| all | 4.50 | 3.00 | +1.50 (")


def test_ucb1_plays_the_given_bandits():
    """Of arms that always or never pay, it pulls each wrong one once before the right one."""
    tasks = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = bandits.ucb1_returns(Bandit(horizon=10, num_arms=3), tasks, 2)
    np.testing.assert_array_equal(found, [8, 10])


def test_the_parts_of_the_difference_are_expected_returns():
    """Of arms that pay always or never, UCB1 pulls the first, then the second until the end."""
    tasks, family = np.array([[0.0, 1.0]]), Bandit(horizon=4, num_arms=2)
    arms = [np.array([[1, 1, 1, 1]]), np.array([[0, 0, 0, 1]])]
    lines = list(bandits.parts_table(["best", "late"], arms, family, tasks, 2))
    assert lines == [
        "| run | pulls 1 to 2 | later | arms tried |",
        "|---|---|---|---|",
        "| best | +1.00 | +0.00 | 1.0 |",
        "| late | -1.00 | -1.00 | 2.0 |",
        "| UCB1 | +0.00 | +0.00 | 2.0 |",
    ]


def test_a_run_is_compared_on_its_test_bandits(tmp_path, capsys, monkeypatch):
    values = {"env": {"family": "bandit", "horizon": 3}, "agent": AGENT}
    overrides = {"num_tasks": 3, "num_episodes": 2, "iterations": 1, "tracking.trackers": "none"}
    run = metarl.train(make_config(values, "test", overrides), tmp_path / "a")
    arguments = ["bandits", str(run.directory), "--tasks", "20", "--episodes", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    bandits.main()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("| a | ")
    monkeypatch.setattr("sys.argv", [*arguments, "--checkpoint", "average", "--first", "2"])
    bandits.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| a | ")
    assert lines[-1].startswith("| UCB1 | +0.00 | +0.00 | ")


def test_runs_of_different_bandits_are_refused(tmp_path, capsys, monkeypatch):
    folders = [tmp_path / "3", tmp_path / "4"]
    for horizon, folder in zip((3, 4), folders, strict=True):
        values = {"env": {"family": "bandit", "horizon": horizon}, "agent": AGENT}
        overrides = {"num_tasks": 2, "num_episodes": 2, "iterations": 1}
        metarl.train(
            make_config(values, "test", {**overrides, "tracking.trackers": "none"}), folder
        )
    monkeypatch.setattr("sys.argv", ["bandits", *map(str, folders), "--tasks", "2"])
    with pytest.raises(SystemExit):
        bandits.main()
    assert (
        f"4: expected the bandits of {folders[0]}, got Bandit(horizon=4" in capsys.readouterr().err
    )


def test_a_run_of_another_family_is_refused(tmp_path, capsys, monkeypatch):
    values = {"env": {"family": "gridworld", "horizon": 3}, "agent": AGENT}
    overrides = {"num_tasks": 3, "num_episodes": 2, "iterations": 1, "tracking.trackers": "none"}
    run = metarl.train(make_config(values, "test", overrides), tmp_path / "a")
    monkeypatch.setattr("sys.argv", ["bandits", str(run.directory)])
    with pytest.raises(SystemExit):
        bandits.main()
    assert "expected a run of bandit, got one of gridworld" in capsys.readouterr().err
