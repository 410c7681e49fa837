"""The section of a report about an agent's beliefs, and its figures."""

from __future__ import annotations

import numpy as np
import pytest

import metarl
from metarl.agents.optional import Beliefs
from metarl.evaluation.beliefs import Reading, TrialBeliefs
from metarl.reporting.belief_figures import beliefs_over_steps, embeddings, principal_components
from metarl.reporting.report import write_report
from metarl.training.loop import train

TINY = {
    "iterations": 1,
    "num_tasks": 2,
    "num_episodes": 1,
    "inner_steps": 1,
    "env.horizon": 6,
    "tracking.mode": "disabled",
}
SMALL_AGENT = {
    "agent.encoder.size": 4,
    "agent.policy.hidden": [4],
    "agent.model.buffer": 4,
    "agent.model.trials": 4,
}
HEADING = "Beliefs about the task"


@pytest.fixture
def run(tmp_path):
    config = metarl.load_config("half_cheetah_vel/varibad", **TINY, **SMALL_AGENT)
    return train(config, tmp_path / "run")


def test_the_report_shows_the_beliefs_of_an_agent_that_has_them(run):
    files = write_report([run.directory])
    assert {"beliefs.csv", "beliefs-embeddings.svg"} <= {file.name for file in files}
    page = files[0].read_text()
    assert HEADING in page
    assert "Not drawn" not in page


def test_a_report_without_a_checkpoint_says_why_there_are_no_beliefs(run):
    for path in run.checkpoints.glob("*.pt"):
        path.unlink()
    page = write_report([run.directory])[0].read_text()
    assert "Not drawn: varibad: " in page
    assert "checkpoint" in page.partition("Not drawn")[2][:200]


def test_other_agents_have_no_such_section(tmp_path):
    small = {"agent.policy.hidden": [4]}
    run = train(metarl.load_config("point_nav/maml_trpo", **TINY, **small), tmp_path / "run")
    assert HEADING not in write_report([run.directory])[0].read_text()


def test_nothing_is_played_for_an_agent_without_beliefs(tmp_path, monkeypatch):
    """Not even to measure the observations that it normalises."""
    small = {"agent.policy.hidden": [4], "agent.normalize_observations": True}
    run = train(metarl.load_config("point_nav/maml_trpo", **TINY, **small), tmp_path / "run")

    def must_not_be_called(*args, **settings):
        raise AssertionError

    monkeypatch.setattr("metarl.config.measure_observations", must_not_be_called)
    assert HEADING not in write_report([run.directory])[0].read_text()


def test_a_trial_is_drawn_step_by_step_without_those_that_did_not_take_place():
    mean = np.arange(8.0).reshape(1, 2, 4, 1)
    mask = np.array([[[True, True, False, False], [True, True, True, False]]])
    found = TrialBeliefs(np.array([[7.0]]), Beliefs(mean, np.full_like(mean, 0.5)), mask)
    reading = Reading(np.array([[2.0]]), np.array([1.0]), np.zeros((1, 1)))
    figure = beliefs_over_steps(found, reading).figure
    latent, task = figure.axes
    assert latent.lines[0].get_ydata().tolist() == [0, 1, 4, 5, 6]
    assert task.lines[0].get_ydata().tolist() == [1, 3, 9, 11, 13]
    assert task.lines[1].get_ydata() == [7, 7]
    assert [line.get_xdata() for line in task.lines[2:]] == [[2, 2]]  # the end of an episode


def test_embeddings_are_principal_components():
    line = np.array([[-2.0], [0.0], [2.0]]) * [3.0, 4.0, 0.0]
    points, share = principal_components(Beliefs(line + 5.0, np.ones_like(line)))
    np.testing.assert_allclose(points, [[-10, 0], [0, 0], [10, 0]], atol=1e-12)
    np.testing.assert_allclose(share, [1, 0], atol=1e-12)
    one = Beliefs(np.array([[1.0], [3.0]]), np.ones((2, 1)))
    np.testing.assert_allclose(principal_components(one)[0], [[-1, 0], [1, 0]])
    found = TrialBeliefs(
        np.zeros((2, 2)),
        Beliefs(one.mean[:, None, None], one.std[:, None, None]),
        np.ones((2, 1, 1), bool),
    )
    assert (
        len(embeddings(found).figure.axes) == 2 * 2
    )  # for each number of the task, with its colours


def test_of_a_task_of_many_numbers_those_are_drawn_that_the_beliefs_tell_most_about():
    """The 34th is what is believed, and others are closer or farther; the last is constant."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(40, 1, 1, 1))
    tasks = rng.normal(size=(40, 37))
    for noise, number in enumerate((33, 2, 10, 20, 0, 5)):
        tasks[:, number] = mean[:, 0, 0, 0] + 0.2 * noise * tasks[:, number]
    tasks[:, 36] = 1.0
    found = TrialBeliefs(tasks, Beliefs(mean, np.ones_like(mean)), np.ones((40, 1, 1), bool))
    reading = Reading.fit(found.last, tasks)
    drawn = ["latent variable", *(f"task, number {n}" for n in (1, 3, 6, 11, 21, 34))]
    steps, places = beliefs_over_steps(found, reading), embeddings(found)
    assert [axes.get_ylabel() for axes in steps.figure.axes[::4]] == drawn
    assert places.columns[:-2] == tuple(drawn[1:])
    assert [row[5] for row in places.rows] == tasks[:, 33].tolist()
    assert steps.figure.axes[0].get_title() == "task 1"
    for drawing in (steps, places):
        assert drawing.caption.endswith(
            "Drawn are the 6 of the 37 numbers of a task that the beliefs tell most about."
        )
