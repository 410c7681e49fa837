"""metarl.rollout.sampling: the tasks of a meta-batch."""

import numpy as np
import pytest

from metarl.core.errors import ConfigError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import HalfCheetahBody, HalfCheetahDir, Perturbed, PointNav, TabularMDP
from metarl.rollout.sampling import SamplingConfig, sample_meta_batch, sequence_phases

FAMILY = PointNav()


def draw(iteration=0, seed=0, **settings):
    """The tasks of an iteration and their ids."""
    rng = make_rng(seed, Purpose.TASKS, iteration=iteration)
    return sample_meta_batch(SamplingConfig(**settings), FAMILY, rng)


def test_tasks_of_the_distribution_have_no_ids():
    tasks, ids = draw(num_tasks=5)
    assert ids is None
    expected = FAMILY.sample_tasks(make_rng(0, Purpose.TASKS), 5)
    assert np.array_equal(tasks, expected)


def test_training_tasks_are_the_first_of_their_split():
    tasks, ids = draw(num_tasks=5, train_tasks=8)
    assert tasks.shape == (5, 2)
    assert (ids.shape, ids.dtype) == ((5,), np.int64)
    assert np.array_equal(tasks, FAMILY.tasks("train", 8)[ids])
    assert np.array_equal(tasks, FAMILY.tasks("train", 100)[ids]), "however many there are"


def test_no_training_task_is_drawn_twice():
    """Even where all of them are drawn; and over many iterations all are."""
    for iteration in range(20):
        _, ids = draw(iteration, num_tasks=8, train_tasks=8)
        assert sorted(ids) == list(range(8))
    drawn = np.concatenate([draw(i, num_tasks=3, train_tasks=20)[1] for i in range(60)])
    assert set(drawn) == set(range(20))


def test_tasks_repeat_only_if_there_are_too_few():
    tasks, ids = draw(num_tasks=9, train_tasks=4)
    assert set(ids) <= set(range(4))
    assert len(set(ids)) < 9
    assert np.array_equal(tasks, FAMILY.tasks("train", 4)[ids])


def test_more_training_tasks_than_there_are_are_refused():
    class Few(PointNav):
        def tasks(self, split, num_tasks):
            raise ValueError("num_tasks: few has 5 train tasks, got 6")

    config = SamplingConfig(train_tasks=6)
    with pytest.raises(ConfigError, match=r"sampling\.train_tasks: few has 5 train"):
        sample_meta_batch(config, Few(), make_rng(0, Purpose.TASKS))


@pytest.mark.parametrize("train_tasks", [0, 8])
def test_the_stream_alone_decides(train_tasks):
    settings = {"num_tasks": 6, "train_tasks": train_tasks}
    (one, ids), (same, same_ids) = draw(3, **settings), draw(3, **settings)
    assert np.array_equal(one, same)
    assert np.array_equal(ids, same_ids)
    for other in (draw(4, **settings), draw(3, seed=1, **settings)):
        assert not np.array_equal(one, other[0])


def test_phases_of_a_sequence():
    assert sequence_phases(0) == [(0, "query")]
    assert sequence_phases(2) == [(0, "support"), (0, "support"), (0, "query")]
    assert sequence_phases(1, 3) == [
        *((task, kind) for task in range(3) for kind in ("support", "query")),
        (0, "revisit"),
        (1, "revisit"),
    ]
    config = SamplingConfig(num_tasks=3, num_episodes=2, adaptation_steps=2, sequence=4)
    assert config.phases == sequence_phases(2, 4)
    assert config.num_adaptations == 8
    assert config.max_steps(10) == 3 * 2 * (4 * 3 + 3) * 10


def test_sequences_of_the_distribution():
    tasks, ids = draw(num_tasks=5, sequence=3)
    assert (tasks.shape, ids) == ((5, 3, 2), None)
    expected = FAMILY.sample_tasks(make_rng(0, Purpose.TASKS), 15)
    assert np.array_equal(tasks.reshape(15, 2), expected)


def test_training_tasks_differ_within_a_sequence():
    """As many of them as a sequence is long; and over many iterations all are drawn."""
    tasks, ids = draw(num_tasks=50, train_tasks=3, sequence=3)
    assert (ids.shape, ids.dtype) == ((50, 3), np.int64)
    assert np.array_equal(np.sort(ids), np.tile([0, 1, 2], (50, 1)))
    assert len(np.unique(ids, axis=0)) == 6, "in every order"
    assert np.array_equal(tasks, FAMILY.tasks("train", 3)[ids])


def test_the_tasks_of_a_finite_distribution_differ_within_a_sequence():
    config = SamplingConfig(num_tasks=20, sequence=2)
    tasks, ids = sample_meta_batch(config, HalfCheetahDir(), make_rng(0, Purpose.TASKS))
    assert (tasks.shape, ids) == ((20, 2, 1), None)
    assert np.array_equal(tasks[:, 0], -tasks[:, 1])
    assert set(tasks[:, 0, 0]) == {-1.0, 1.0}
    # A set of ten has each direction five times.
    config = SamplingConfig(num_tasks=20, sequence=2, train_tasks=10)
    tasks, ids = sample_meta_batch(config, HalfCheetahDir(), make_rng(0, Purpose.TASKS))
    assert np.array_equal(tasks[:, 0], -tasks[:, 1])
    assert np.array_equal(HalfCheetahDir().tasks("train", 10)[ids], tasks)


def test_tasks_that_drift_move_from_phase_to_phase():
    """By normal steps of a tenth of the range, which is 1.5; and within the range."""
    config = SamplingConfig(num_tasks=2000, adaptation_steps=2, drift=0.1)
    assert config.phases == [(0, "support"), (1, "support"), (2, "query")]
    assert config.max_steps(10) == 2000 * 20 * 3 * 10
    tasks, ids = sample_meta_batch(config, HalfCheetahBody(), make_rng(0, Purpose.TASKS))
    assert (tasks.shape, ids) == ((2000, 3, 3), None)
    first = HalfCheetahBody().sample_tasks(make_rng(0, Purpose.TASKS), 2000)
    assert np.array_equal(tasks[:, 0], first)
    assert (tasks.min(), tasks.max()) == (0.5, 2.0)
    step = np.diff(tasks, axis=1)
    inside = (tasks[:, 1:] > 0.5) & (tasks[:, 1:] < 2.0) & (np.abs(tasks[:, :-1] - 1.25) < 0.1)
    assert np.std(step[inside]) == pytest.approx(0.15, rel=0.05)
    assert abs(np.mean(step[inside])) < 0.015


def test_nuisances_perturb_the_family():
    """Only where there are any; a wrong one is named by its key."""
    assert SamplingConfig().nuisances.applied(FAMILY) is FAMILY
    ranges = {"action_delay": [0, 2], "motor_strength": [0.5, 1.0]}
    family = SamplingConfig(nuisances=ranges).nuisances.applied(FAMILY)
    expected = Perturbed(FAMILY, (0.0, 0.0), (0, 2), (0.5, 1.0))
    assert family == expected
    wrong = SamplingConfig(nuisances={"motor_strength": [1.0, 0.5]})
    with pytest.raises(ConfigError, match=r"^sampling\.nuisances\.motor_strength: expected low <="):
        wrong.nuisances.applied(FAMILY)
    with pytest.raises(ConfigError, match="are choices, which have no strength"):
        SamplingConfig(nuisances=ranges).nuisances.applied(TabularMDP())
    with pytest.raises(ConfigError, match=r"action_delay\[1\]: expected between 0 and 1000"):
        SamplingConfig(nuisances={"action_delay": [0, -1]})
