"""metarl.rollout.sampling: the tasks of a meta-batch."""

import numpy as np
import pytest

from metarl.core.errors import ConfigError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import Perturbed, PointNav, TabularMDP
from metarl.rollout.sampling import SamplingConfig, sample_meta_batch

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
    with pytest.raises(ConfigError, match=r"sampling\.train_tasks: num_tasks: few has 5 train"):
        sample_meta_batch(config, Few(), make_rng(0, Purpose.TASKS))


@pytest.mark.parametrize("train_tasks", [0, 8])
def test_the_stream_alone_decides(train_tasks):
    settings = {"num_tasks": 6, "train_tasks": train_tasks}
    (one, ids), (same, same_ids) = draw(3, **settings), draw(3, **settings)
    assert np.array_equal(one, same)
    assert np.array_equal(ids, same_ids)
    for other in (draw(4, **settings), draw(3, seed=1, **settings)):
        assert not np.array_equal(one, other[0])


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
