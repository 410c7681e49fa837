"""Learning, end to end and small: MAML-TRPO learns to adapt, and the baseline really fits."""

import pytest

from metarl.config_files import load_config, make_config
from metarl.evaluation.evaluate import evaluate
from metarl.training.loop import train

SMALL = {
    "iterations": 40,
    "num_tasks": 20,
    "num_episodes": 10,
    "seed": 1,
    "env.horizon": 50,
    "agent.policy.hidden": [32, 32],
    "tracking.mode": "disabled",
}


def test_the_natural_gradient_knows_more_than_the_first_steps_of_episodes(tmp_path):
    """Its products see every 16th step; in episodes of 16, which begin in one state, all updates
    would be refused."""
    values = {"env.family": "gridworld", "env.horizon": 16, "iterations": 4, "num_tasks": 10}
    run = train(
        make_config({}, "maml_trpo", {**values, "tracking.mode": "disabled"}), tmp_path / "r"
    )
    assert [line["line_search_rejected"] for line in run.metrics()] == [0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "log_likelihood"])
def test_maml_trpo_learns_to_adapt(tmp_path, surrogate):
    """On point_nav, tested on held-out goals. The best return is around -3, standing still -20.

    Adaptation gains little before training and much after it.
    """
    config = load_config("point_nav/maml_trpo", **SMALL, **{"agent.inner.surrogate": surrogate})
    run = train(config, tmp_path / "run")
    untrained, trained = (
        evaluate(agent, config.env, tasks=40, episodes=10, steps=1, threads=2).mean
        for agent in (config.make_agent(), config.make_agent(run.load().agent))
    )
    assert trained[1] > untrained[1] + 10, "training improves the return after adaptation"
    assert trained[1] > trained[0] + 8, "adapting improves it"
    assert untrained[1] - untrained[0] < 5, "adapting improves it because of training"
    assert sum(line["line_search_rejected"] for line in run.metrics()) <= 4


@pytest.mark.slow
def test_the_baseline_fits_better_as_returns_grow_apart(tmp_path):
    """On half_cheetah_dir, whose returns depend on the state once it runs."""
    values = {**SMALL, "iterations": 25, "num_episodes": 20}
    run = train(load_config("half_cheetah_dir/demo", **values), tmp_path / "run")
    explained = [line["explained_variance"] for line in run.metrics()]
    assert explained[0] > 0.1
    assert sum(explained[-5:]) / 5 > 0.3
