import numpy as np
import pytest

import metarl
from metarl.core.timer import Timer
from metarl.reporting.benchmark import replay_seconds
from metarl.training.meta_iteration import meta_iteration


@pytest.mark.parametrize("family", ["half_cheetah_vel", "hopper_params", "bandit"])
def test_the_physics_limit_is_that_of_the_same_steps(family):
    """Of an iteration's own episodes, up to the ends of those that end early."""
    config = metarl.load_config(
        {"env": {"family": family, "horizon": 40}, "num_tasks": 3, "num_episodes": 2, "threads": 1}
    )
    env, played = config.training_env.make_batch(6), []
    for iteration in range(2):
        meta_iteration(
            config,
            config.make_agent(),
            env,
            iteration,
            Timer(),
            [],
            lambda _, phases: played.append(phases),
        )
        states = [env.render_state(episode) for episode in range(6)]
        assert replay_seconds(env, config.seed, iteration, played[-1]) > 0
        again = [env.render_state(episode) for episode in range(6)]
        np.testing.assert_array_equal(again, states)
    if family == "hopper_params":
        assert not all(episodes.mask.all() for episodes in played[-1])
