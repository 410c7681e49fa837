"""metarl.agents.rollouts: playing and adapting by turns, for any agent."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.rng import Purpose
from metarl.envs import PointNav
from metarl.rollout.collect import collect, episode_rngs
from tests.agents.mean_action import MeanActor

FAMILY = PointNav(horizon=5)
TASKS = np.array([[0.4, 0.3], [-0.45, 0.2]])


@dataclass
class Counting:
    """An agent whose state is (number of adaptations, whether in training), and acts by it."""

    adapted_to: list = field(default_factory=list)

    def initial_state(self, num_tasks, *, training=False):
        return (0, training)

    def actor(self, state):
        return MeanActor(np.full((len(TASKS), 2), 0.01 * state[0]), 0.1)

    def adapt(self, state, episodes):
        self.adapted_to.append(episodes)
        return (state[0] + 1, state[1])


def play(agent, timer, num_adaptations=2, **options):
    settings = {"seed": 3, "purpose": Purpose.TRAIN_EPISODES, "iteration": 7}
    env = FAMILY.make_batch(4)
    return adaptation_rollouts(
        agent, env, TASKS, num_adaptations, timer=timer, **settings, **options
    )


@pytest.mark.parametrize("training", [False, True])
def test_states_and_episodes_by_turns(timer, training):
    """The state that played comes with its episodes, from which the next one follows."""
    agent = Counting()
    rollouts = list(play(agent, timer, training=training, task_ids=np.array([4, 9])))
    assert [state for state, _ in rollouts] == [(i, training) for i in range(3)]
    assert [episodes for _, episodes in rollouts[:2]] == agent.adapted_to
    for step, (state, episodes) in enumerate(rollouts):
        rngs = episode_rngs(3, Purpose.TRAIN_EPISODES, 2, 2, 7, step)
        expected = collect(FAMILY.make_batch(4), agent.actor(state), TASKS, rngs, timer)
        assert np.array_equal(episodes.action, expected.action)
        assert np.array_equal(episodes.reward, expected.reward)
        assert episodes.task_ids.tolist() == [4, 9]
    assert {"reset", "policy", "environment", "adaptation"} <= timer.seconds.keys()


def test_without_adaptations_there_is_one_rollout(timer):
    agent = Counting()
    ((state, _),) = play(agent, timer, 0)
    assert state == (0, False)
    assert agent.adapted_to == []
