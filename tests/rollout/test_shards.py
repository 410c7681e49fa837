"""metarl.rollout.shards: the episodes of a batch in shards are those of the whole batch to the bit,
and so are its failures."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import Config
from metarl.config_files import make_config
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.rollout.failures import EpisodeDiverged
from metarl.rollout.sampler import EpisodeRngs
from metarl.rollout.shards import Shard, bounds, play_shard, plays_rows
from tests.faulty import FaultyNav
from tests.rollout.sharded import Sharded

NUM_TASKS, NUM_EPISODES = 5, 3
RUNNING = {"agent.running_observations": False}
FIXED = {"agent.normalize_observations": True}
SIZES = {
    "sampling.num_tasks": NUM_TASKS,
    "sampling.num_episodes": NUM_EPISODES,
    "sampling.adaptation_steps": 2,
}
CHEETAH = {"env.family": "half_cheetah_vel", "env.horizon": 6}
WALKER = {"env.family": "walker_params", "env.horizon": 25}  # episodes end early
GRID = {"env.family": "gridworld", "env.horizon": 6}
KINDS = {
    "maml": CHEETAH,
    "maml, normalised": {**CHEETAH, **FIXED},
    "maml, discrete": GRID,
    "maml, ending early": WALKER,
    "rl2": {**CHEETAH, "agent.kind": "rl2"},
    "rl2, normalised": {**CHEETAH, "agent.kind": "rl2", **RUNNING, **FIXED},
    "rl2, ending early": {**WALKER, "agent.kind": "rl2"},
    "varibad": {**CHEETAH, "agent.kind": "varibad"},
    "varibad, discrete": {**GRID, "agent.kind": "varibad"},
    "pearl": {
        **CHEETAH,
        "agent.kind": "pearl",
        "sampling.train_tasks": 5,
        "agent.update.context": 4,
    },
}


def rollouts(config, source, failures=None, agent=None):
    """All rollouts of an iteration of training on `source`, with task ids."""
    return list(
        adaptation_rollouts(
            agent or config.make_agent(),
            source,
            config.env.tasks("train", NUM_TASKS),
            2,
            seed=1,
            purpose=Purpose.TRAIN_EPISODES,
            iteration=4,
            training=True,
            task_ids=np.arange(NUM_TASKS),
            timer=Timer(),
            failures=failures,
        )
    )


def assert_same_episodes(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype, name
        assert other.arrays[name].flags.writeable, name
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_bounds_hold_every_task_once():
    assert bounds(5, 3) == [(0, 1), (1, 3), (3, 5)]
    assert bounds(4, 4) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_every_kind_of_agent_are_the_whole_batch(kind):
    config = make_config({}, "mine", {**SIZES, **KINDS[kind]})
    count = NUM_TASKS * NUM_EPISODES
    agent = config.make_agent()
    whole = rollouts(config, config.env.make_batch(count), agent=agent)
    for num_shards in (1, 2, 3, 5):
        found = rollouts(config, Sharded(config.env, count, num_shards), agent=agent)
        for (_, one), (_, other) in zip(whole, found, strict=True):
            assert_same_episodes(one, other)


def test_only_actors_of_separate_products_play_rows_alone():
    """Otherwise every machine would compute all actions of MAML, or some others with other bits."""
    for kind, alone in [("maml, normalised", True), ("rl2, normalised", False), ("rl2", False)]:
        agent = make_config({}, "mine", {**SIZES, **KINDS[kind]}).make_agent()
        assert plays_rows(agent.actor(agent.initial_state(2))) == alone, kind


def test_actors_are_small_enough_to_travel():
    """An actor that held its agent would take optimiser and replay buffer along."""
    config = make_config({}, "mine", {**CHEETAH, "agent.kind": "varibad"})
    agent = config.make_agent()
    size = len(pickle.dumps(agent.actor(agent.initial_state(2))))
    acting = sum(value.numel() for value in agent._acting_params().values())
    assert size < 4.5 * acting + 100_000


def test_a_worker_of_gradient_agents_does_without_torch(tmp_path):
    """Which takes it seconds to import, and most of its memory."""
    config = make_config({}, "mine", {**SIZES, **KINDS["maml"]})
    agent, tasks = config.make_agent(), config.env.tasks("train", NUM_TASKS)
    rngs = EpisodeRngs(1, Purpose.TRAIN_EPISODES, NUM_EPISODES)
    shard = Shard(0, NUM_TASKS, tasks, np.ones(NUM_TASKS, bool), rngs, False)
    actor = agent.actor(agent.initial_state(NUM_TASKS))
    sent, played = tmp_path / "sent", tmp_path / "played"
    sent.write_bytes(pickle.dumps((config.env, actor, shard)))
    program = f"""
import pathlib, pickle, sys
sys.modules["torch"] = None  # its import is an error
from metarl.rollout.cluster.worker import RolloutWorker, Surroundings
family, actor, shard = pickle.loads(pathlib.Path({str(sent)!r}).read_bytes())
result = RolloutWorker(family, 1, Surroundings.here()).play(actor, shard)
pathlib.Path({str(played)!r}).write_bytes(pickle.dumps(result.episodes))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    env = config.env.make_batch(shard.num_episodes)
    here = play_shard(env, agent.actor(agent.initial_state(NUM_TASKS)), shard).episodes
    assert_same_episodes(pickle.loads(played.read_bytes()), here)  # noqa: S301 (our own file)


@pytest.mark.parametrize("fault", ["reward", "first observation", "observation", "state"])
def test_failures_come_in_the_order_of_one_machine(fault):
    family = FaultyNav(horizon=6, fault=fault, share=0.3)
    config = Config(env=family)
    failures, found = [], []
    count = NUM_TASKS * NUM_EPISODES
    whole = rollouts(config, family.make_batch(count), failures)
    shards = rollouts(config, Sharded(family, count, 3), found)
    assert len(failures) > 3
    assert found == failures
    for (_, one), (_, other) in zip(whole, shards, strict=True):
        assert_same_episodes(one, other)


@pytest.mark.parametrize("kind", ["rl2", "varibad"])
@pytest.mark.parametrize(("fault", "share"), [("reward", 0.6), ("first observation", 0.8)])
def test_shards_without_an_episode_to_play_have_memories_too(kind, fault, share):
    """All episodes of a task failed in an earlier phase, or at their first observation."""
    family = FaultyNav(horizon=6, fault=fault, share=share)
    config = Config(env=family, agent={"kind": kind}, on_failure="drop_episode")
    agent, count = config.make_agent(), NUM_TASKS * NUM_EPISODES
    whole = rollouts(config, family.make_batch(count), [], agent=agent)
    assert not all(episodes.task_mask.all() for _, episodes in whole)
    shards = rollouts(config, Sharded(family, count, NUM_TASKS), [], agent=agent)
    for (_, one), (_, other) in zip(whole, shards, strict=True):
        assert_same_episodes(one, other)


@pytest.mark.parametrize("fault", ["reward", "first observation", "state"])
def test_the_first_failure_of_all_shards_is_the_error(fault):
    family = FaultyNav(horizon=6, fault=fault, share=0.5)
    config = Config(env=family)
    messages = []
    count = NUM_TASKS * NUM_EPISODES
    for source in (family.make_batch(count), Sharded(family, count, 3), Sharded(family, count, 5)):
        with pytest.raises(EpisodeDiverged) as error:
            rollouts(config, source)
        messages.append((str(error.value), error.value.failures))
    assert messages[0] == messages[1] == messages[2]


def test_generators_are_addressed_by_task():
    rngs = EpisodeRngs(3, Purpose.TRAIN_EPISODES, 2, iteration=5, phase=1, num_adaptations=1)
    whole = [rng.random() for rng in rngs.of_tasks(0, 4)]
    assert [rng.random() for rng in rngs.of_tasks(1, 3)] == whole[2:6]
