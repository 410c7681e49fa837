"""RL2 on CartPole in worker processes, by the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metarl.cli.main import main
from metarl.runs.run import Run
from tests.training.test_loop import assert_same_outcome

TINY = ["--iterations=2", "--num-tasks=3", "--num-episodes=2", "--inner-steps=1"]
TINY += ["--env.horizon=40", "--agent.network.size=6", "--tracking.mode=disabled", "--threads=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in two workers."""
    directory = tmp_path_factory.mktemp("runs") / "cartpole"
    words = ["train", "cartpole/rl2", *TINY, "--env.workers=2", "--out", str(directory)]
    assert main(words) == 0
    return Run.open(directory)


def test_trials_end_where_the_pole_falls(run):
    """Actions, episodes of other lengths and the memory go through the workers."""
    lines = run.metrics()
    assert len(lines) == 2
    for line in lines:
        assert 1 <= line["return_before"] <= 40
        assert 0 < line["entropy"] < np.log(2)
    assert 2 * 2 * 6 < lines[-1]["env_steps"] < 2 * 2 * 6 * 40


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_number_of_workers_changes_nothing(tmp_path, cell):
    words = ["train", "cartpole/rl2", *TINY, f"--agent.network.cell={cell}", "--out"]
    for workers in (1, 3):
        assert main([*words, str(tmp_path / str(workers)), f"--env.workers={workers}"]) == 0
    assert_same_outcome(tmp_path / "1", tmp_path / "3")


def test_it_is_evaluated_shown_and_reported(run):
    directory = run.directory
    words = [str(directory), "--episodes=2"]
    few = ["--protocol=few_episode", "--tasks=2", "--trials=2", "--against=random"]
    assert main(["evaluate", *words, *few]) == 0
    (file,) = (directory / "evaluation").glob("few_episode-*.json")
    for method in json.loads(file.read_text())["methods"].values():
        returns = np.array(method["parts"][""]["returns"])
        assert returns.shape == (2, 7, 2)
        assert ((returns >= 1) & (returns <= 40)).all()
    out = directory / "videos" / "trial.gif"
    assert (
        main(["render", *words, "--steps=1", "--width=64", "--height=64", "--out", str(out)]) == 0
    )
    assert out.read_bytes().startswith(b"GIF8")
    assert main(["report", str(directory)]) == 0
    page = (directory / "report" / "report.html").read_text()
    assert f'<h2 id="{file.stem}">' in page
    assert "data:image/gif" in page
