"""metarl.rollout.task_sampler: tasks of meta-batches, their weights, and the state of a run."""

import numpy as np
import pytest

from metarl.core.errors import ConfigError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import PointNav, TabularMDP, TaskObserved
from metarl.envs.gridworld import GridWorld
from metarl.rollout.sampling import SamplingConfig, sample_meta_batch
from metarl.rollout.task_sampler import TaskSampler

FAMILY = PointNav()
RISK = {"alpha": 0.2, "oversampling": 0.5, "rate": 0.3}


def sampler(family=FAMILY, num_tasks=20, **settings):
    settings = {"risk": RISK, "num_tasks": num_tasks, **settings}
    return TaskSampler(SamplingConfig(**settings), family)


def draw(of, iteration=0):
    return of.sample(make_rng(0, Purpose.TASKS, iteration=iteration))


def distance(tasks):
    """What is hard here: goals far away."""
    return np.linalg.norm(tasks, axis=1)


def trained(iterations=60, **settings):
    """A sampler that has seen how hard tasks are."""
    of = sampler(**settings)
    for iteration in range(iterations):
        of.weigh(-distance(draw(of, iteration)[0]))
    return of


def test_without_risk_tasks_are_those_of_the_distribution_and_weigh_the_same():
    of = sampler(risk={})
    tasks, ids = draw(of)
    assert np.array_equal(tasks, sample_meta_batch(SamplingConfig(), FAMILY, task_rng())[0][:20])
    assert ids is None
    assert of.weigh(-distance(tasks)) is None
    assert of.state_dict() == {}


def task_rng():
    return make_rng(0, Purpose.TASKS)


def test_without_oversampling_only_the_weights_differ():
    of = sampler(risk={"alpha": 0.2}, num_tasks=10)
    tasks, _ = draw(of)
    assert np.array_equal(tasks, FAMILY.sample_tasks(task_rng(), 10))
    weights = of.weigh(-distance(tasks))
    assert np.flatnonzero(weights).tolist() == sorted(np.argsort(-distance(tasks))[:2])
    assert weights.sum() == 10


@pytest.mark.parametrize("family", [PointNav(), TaskObserved(PointNav())])
def test_hard_tasks_are_drawn_more_often(family):
    of = trained(family=family)
    tasks = np.concatenate([draw(of, i)[0] for i in range(100, 150)])
    assert tasks.shape == (1000, 2)
    assert (np.abs(tasks) <= 0.5).all()
    assert distance(tasks).mean() > 0.45  # 0.38 by the distribution


def test_the_reweighting_is_unbiased():
    """The mean of ratio times any function is that of the distribution, within four standard
    errors; without the ratios it is far off. With alpha, the weighted mean is the CVaR."""
    of = trained()
    estimates, plain, worst, expected = [], [], [], distance(FAMILY.tasks("train", 20_000))
    proposal = of.proposal
    for iteration in range(1000, 1400):
        tasks, _ = draw(of, iteration)
        ratio = 1 / (0.5 + 0.5 * proposal.density(of._coordinates))
        estimates.append((ratio * distance(tasks)).mean())
        plain.append(distance(tasks).mean())
        worst.append((of.weigh(-distance(tasks)) * distance(tasks)).mean())
        of.proposal = proposal
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - expected.mean()) < 4 * error
    assert error < 0.005
    assert np.mean(plain) - expected.mean() > 20 * error
    tail = np.sort(expected)[-4000:].mean()
    assert np.mean(worst) == pytest.approx(tail, abs=0.01)


@pytest.mark.parametrize("train_tasks", [0, 30])
def test_tasks_of_a_finite_set_have_a_probability_each(train_tasks):
    family = PointNav() if train_tasks else GridWorld()
    of = trained(family=family, train_tasks=train_tasks)
    tasks, ids = draw(of, 100)
    all_tasks = family.tasks("train", train_tasks) if train_tasks else family.all_tasks
    assert of.proposal.probabilities.shape == (1, len(all_tasks))
    assert (ids is not None) == bool(train_tasks)
    assert {task.tobytes() for task in tasks} <= {task.tobytes() for task in all_tasks}
    if train_tasks:
        assert np.array_equal(tasks, all_tasks[ids])
    probability = of.proposal.probabilities[0]
    hard = distance(all_tasks) > np.quantile(distance(all_tasks), 0.8)
    assert probability[hard].sum() > 0.6


def test_a_copy_goes_on_alike():
    of, copy = trained(20), sampler()
    copy.load_state_dict(of.state_dict())
    for iteration in range(20, 25):
        (tasks, _), (same, _) = draw(of, iteration), draw(copy, iteration)
        assert np.array_equal(tasks, same)
        weights = of.weigh(-distance(tasks))
        assert np.array_equal(weights, copy.weigh(-distance(tasks)))
        assert np.array_equal(of.proposal.probabilities, copy.proposal.probabilities)


@pytest.mark.parametrize(
    ("settings", "family", "message"),
    [
        ({"risk": {"oversampling": 0.5}}, FAMILY, "0.5 needs a sampling.risk.alpha below 1"),
        ({"num_tasks": 1}, FAMILY, "none or all of them; expected such as 0.5, with at least 2"),
        ({}, TabularMDP(), "tabular_mdp have no coordinates .* or a sampling.train_tasks"),
    ],
)
def test_what_cannot_be_oversampled_is_refused(settings, family, message):
    with pytest.raises(ConfigError, match=rf"^sampling\.risk\.oversampling: .*{message}"):
        sampler(family, **settings)
    sampler(TabularMDP(), train_tasks=10)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1])
def test_a_level_outside_of_0_to_1_is_refused(alpha):
    with pytest.raises(ConfigError, match=r"risk\.alpha: expected more than 0, at most 1, got"):
        SamplingConfig(risk={"alpha": alpha})
