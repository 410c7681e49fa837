"""metarl.reporting.video.belief_inset: where the belief and the task are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from metarl.config import Config
from metarl.envs import PointNav, make_family
from metarl.reporting.video.adaptation import play
from metarl.reporting.video.belief_inset import BELIEF, TASK, TaskBelief, draw_belief, task_reading

SIZE = 60  # of the inset, pixels
LEFT, TOP = 200 - 3 - SIZE, 200 - 3 - SIZE


def drawn(mean, covariance, task, low, high, step=0):
    """The colours of an image of 200 x 200 pixels with an inset."""
    image = Image.new("RGB", (200, 200), "#000000")
    arrays = (np.asarray(each, float) for each in (mean, covariance, low, high))
    belief = TaskBelief(*arrays)
    draw_belief(image, (197, 197), SIZE, belief, step, np.asarray(task, float))
    return np.asarray(image)


def middle(pixels, colour):
    """The mean place of the pixels of a colour, (x, y)."""
    rows, columns = np.nonzero((pixels == ImageColor.getrgb(colour)).all(-1))
    return np.array([columns.mean(), rows.mean()])


def test_belief_and_task_are_where_they_are_in_the_task_space():
    covariance = [0.01 * np.eye(2)]
    pixels = drawn([[0.5, -0.5]], covariance, [-0.5, 0.5], [-1, -1], [1, 1])
    # The second number goes up.
    np.testing.assert_allclose(middle(pixels, BELIEF), [LEFT + 45, TOP + 45], atol=1)
    np.testing.assert_allclose(middle(pixels, TASK), [LEFT + 15, TOP + 15], atol=1)
    assert (pixels[:TOP] == 0).all()
    assert (pixels[:, :LEFT] == 0).all()


def test_an_ellipse_reaches_two_standard_deviations_along_each_number():
    pixels = drawn([[0.0, 0.0]], [np.diag([0.04, 0.01])], [0.9, 0.9], [-1, -1], [1, 1])
    rows, columns = np.nonzero((pixels == ImageColor.getrgb(BELIEF)).all(-1))
    np.testing.assert_allclose((np.ptp(columns), np.ptp(rows)), (0.8 * 30, 0.4 * 30), atol=2)


def test_one_number_is_an_interval_and_the_last_belief_stays():
    belief = [[0.0], [1.0]], [[[0.04]], [[0.01]]]
    for step, centre, width in ((0, 15, 12), (1, 30, 6), (7, 30, 6)):
        pixels = drawn(*belief, [2.5], [-1], [3], step=step)
        columns = np.nonzero((pixels == ImageColor.getrgb(BELIEF)).all(-1))[1]
        np.testing.assert_allclose(middle(pixels, BELIEF)[0], LEFT + centre, atol=1)
        np.testing.assert_allclose(np.ptp(columns), width, atol=2)


def test_what_reaches_beyond_the_inset_is_cut_off():
    pixels = drawn([[5.0, 5.0]], [100 * np.eye(2)], [9.0, 9.0], [-1, -1], [1, 1])
    assert (pixels[:TOP] == 0).all()
    assert (pixels[:, :LEFT] == 0).all()


def test_panels_have_the_beliefs_of_agents_that_have_them():
    family = PointNav(horizon=5)
    agent = {"kind": "varibad", "encoder": {"size": 4, "latent": 2}, "policy": {"hidden": [4]}}
    sampling = {"num_tasks": 2, "num_episodes": 1, "adaptation_steps": 1}
    tasks = family.tasks("test", 2)
    for settings, expected in (({"agent": agent}, True), ({}, False)):
        config = Config(env=family, sampling=sampling, threads=1, **settings)
        rows = play(config.make_agent(), family, tasks, 1, 0, 2)
        for panel in (panel for row in rows for panel in row):
            assert (panel.belief is not None) == expected
            if panel.belief is not None:
                assert len(panel.belief.mean) == len(panel.reward)
                assert (panel.belief.high - panel.belief.low).tolist() == [1.2, 1.2]


def test_tasks_of_many_numbers_have_no_inset():
    family = make_family("hopper_params", horizon=5)
    agent = {"kind": "varibad", "encoder": {"size": 4, "latent": 2}, "policy": {"hidden": [4]}}
    config = Config(env=family, agent=agent, sampling={"num_tasks": 2, "num_episodes": 1})
    assert family.task_space.shape[0] > 2
    assert task_reading(config.make_agent(), family, 1) is None
