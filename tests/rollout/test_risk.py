"""metarl.rollout.risk: weights of the worst tasks, by hand, and the sampler of hard tasks."""

import numpy as np
import pytest

from metarl.rollout.risk import TaskProposal, tail_weights

ONES = np.ones(4)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (1.0, [1, 1, 1, 1]),
        (0.5, [0, 2, 2, 0]),
        (0.25, [0, 4, 0, 0]),
        (0.1, [0, 4, 0, 0]),  # less than one task: the worst alone
        (0.375, [0, 8 / 3, 4 / 3, 0]),  # one task and a half
    ],
)
def test_the_weights_of_the_worst_tasks(alpha, expected):
    weights = tail_weights(np.array([3.0, 1.0, 2.0, 4.0]), ONES, alpha)
    assert weights == pytest.approx(expected)
    assert weights.mean() == pytest.approx(1)


def test_tasks_that_were_not_played_have_no_weight():
    weights = tail_weights(np.array([3.0, np.nan, 2.0, 4.0, 1.0]), np.ones(5), 0.5)
    assert weights.tolist() == [0, 0, 2, 0, 2]
    assert tail_weights(np.full(3, np.nan), np.ones(3), 0.5).tolist() == [0, 0, 0]


def test_tasks_that_were_drawn_more_often_weigh_less():
    """The worst half of the distribution: the first two tasks have a mass of 1/2 of a task each,
    the third that of a whole task."""
    weights = tail_weights(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.5, 1, 2]), 0.5)
    assert weights.tolist() == [1, 1, 2, 0]
    assert tail_weights(np.arange(4.0), np.array([0.5, 1, 2, 3]), 0.25).tolist() == [2, 2, 0, 0]


def proposal():
    return TaskProposal(np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.0, 0.5]]))


def test_a_proposal_draws_by_its_probabilities_and_knows_its_density():
    coordinates = proposal().sample(np.random.default_rng(0), 20_000)
    assert coordinates.shape == (20_000, 2)
    assert ((coordinates >= 0) & (coordinates < 1)).all()
    intervals = proposal().intervals(coordinates)
    for number, expected in enumerate(proposal().probabilities):
        shares = np.bincount(intervals[:, number], minlength=4) / 20_000
        assert shares == pytest.approx(expected, abs=0.015)
    within = coordinates[intervals[:, 0] == 0, 0]
    assert np.quantile(4 * within, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    density = proposal().density(np.array([[0.1, 0.1], [0.3, 0.9], [0.0, 0.6], [1.0, 1.0]]))
    assert density == pytest.approx([2.8, 0.8, 0, 0.8])


def test_a_proposal_moves_to_the_weighted_frequencies():
    uniform = TaskProposal.uniform(2, 2)
    coordinates = np.array([[0.1, 0.9], [0.2, 0.1], [0.9, 0.2]])
    moved = uniform.moved(coordinates, np.array([3.0, 1.0, 0.0]), 0.5)
    np.testing.assert_allclose(moved.probabilities, [[0.75, 0.25], [0.375, 0.625]])
    assert uniform.probabilities.tolist() == [[0.5, 0.5]] * 2, "not changed itself"
    assert uniform.moved(coordinates, np.zeros(3), 0.5) is uniform


def test_a_proposal_that_moves_finds_the_hard_tasks():
    """Of two coordinates the first decides: the worst fifth is its highest fifth."""
    rng, found = np.random.default_rng(0), TaskProposal.uniform(2, 10)
    for _ in range(100):
        coordinates = np.concatenate([rng.random((10, 2)), found.sample(rng, 10)])
        ratio = 1 / (0.5 + 0.5 * found.density(coordinates))
        weights = tail_weights(-coordinates[:, 0], ratio, 0.2)
        found = found.moved(coordinates, weights, 0.1)
    assert found.probabilities[0, 8:].sum() > 0.85
    assert found.probabilities[1].max() < 0.3
