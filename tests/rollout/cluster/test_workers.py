"""Rollouts on three workers of a Ray cluster, which are killed and hang at random moments: those of
one machine to the bit."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from metarl.config_files import make_config
from metarl.core.errors import UserError
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import WorkerError
from metarl.rollout.cluster import checks
from metarl.rollout.cluster.sampler import RaySampler
from metarl.rollout.cluster.session import ClusterError
from metarl.rollout.sampler import EpisodeRngs, Sampler
from metarl.rollout.sampler_config import SamplerConfig
from tests.rollout.test_shards import (
    CHEETAH,
    KINDS,
    NUM_EPISODES,
    NUM_TASKS,
    SIZES,
    assert_same_episodes,
    rollouts,
)
from tests.rollout.writing import WritingActor

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
LONGER = {"env.horizon": 60}
NUM_PHASES = 3  # two adaptation phases, and the one after adaptation
RNG = np.random.default_rng(int(os.environ.get("METARL_KILL_SEED", "0")))


@pytest.fixture(scope="module")
def sampler(cluster):
    """Three workers on four nodes with a CPU each, for short episodes of the HalfCheetah."""
    config = SamplerConfig(
        kind="ray", address=cluster.address, workers=3, placement="spread", max_restarts=1000
    )
    family = make_config({}, "mine", {**CHEETAH, **LONGER}).env
    sampler = RaySampler(config, family, NUM_TASKS, NUM_EPISODES)
    yield sampler
    sampler.close()


def pid(sampler, index):
    """The process of a worker."""
    place = ray.get(sampler.group.actors[index].place.remote())
    return int(re.findall(r"process (\d+)", place)[0])


def play(sampler, actor):
    """One phase, on the sampler's family."""
    tasks = sampler._family.tasks("train", NUM_TASKS)
    rngs = EpisodeRngs(0, Purpose.TRAIN_EPISODES, NUM_EPISODES)
    options = {"failures": None, "task_mask": np.ones(NUM_TASKS, bool), "task_ids": None}
    return sampler.collect(actor, tasks, rngs, Timer(), **options)


@pytest.mark.parametrize("kind", ["maml", "maml, normalised", "rl2", "varibad", "pearl"])
def test_rollouts_are_those_of_one_machine(sampler, kind):
    config = make_config({}, "mine", {**SIZES, **KINDS[kind], **LONGER})
    agent = config.make_agent()
    whole = rollouts(config, config.env.make_batch(NUM_TASKS * NUM_EPISODES), agent=agent)
    found = rollouts(config, sampler, agent=agent)
    for (_, one), (_, other) in zip(whole, found, strict=True):
        assert_same_episodes(one, other)


def test_arrays_that_an_actor_writes_into_are_its_own(sampler):
    """Ray shares large arrays between processes, read-only."""
    episodes = play(sampler, WritingActor(sampler._family.action_dim))
    steps = np.arange(1, sampler._family.horizon + 1, dtype=np.float32)
    for row in episodes.action[..., 0].reshape(-1, len(steps)):
        np.testing.assert_array_equal(row, steps)


def test_killed_and_hanging_workers_change_nothing(sampler, capsys):
    """One worker is killed before a phase, one hangs, and one is killed at a random moment."""
    config = make_config({}, "mine", {**SIZES, **KINDS["maml"], **LONGER})
    agent = config.make_agent()
    whole = rollouts(config, config.env.make_batch(NUM_TASKS * NUM_EPISODES), agent=agent)
    before = sampler.group.num_restarts
    sampler.group._timeout = 5.0
    os.kill(pid(sampler, 0), signal.SIGKILL)
    os.kill(pid(sampler, 1), signal.SIGSTOP)
    killer = threading.Timer(RNG.uniform(0, 5), os.kill, (pid(sampler, 2), signal.SIGKILL))
    killer.start()
    try:
        found = rollouts(config, sampler, agent=agent)
    finally:
        killer.join()
        sampler.group._timeout = 600.0
    for (_, one), (_, other) in zip(whole, found, strict=True):
        assert_same_episodes(one, other)
    assert sampler.group.num_restarts >= before + 2
    warnings = capsys.readouterr().err
    assert re.search(r"warning: worker 1, process \d+ on .*, was lost \(.*\); it is repl", warnings)
    assert re.search(r"worker 2, process \d+ on .* gave no answer for 5 s \(sampler.ti", warnings)


def test_workers_with_a_result_are_in_time_however_long_this_process_was_paused(
    sampler, monkeypatch
):
    numbers, before = itertools.count(), sampler.group.num_restarts

    def paused_after_the_calls():
        if next(numbers) > 3:  # the beginning of the call, and three deadlines
            time.sleep(0.1)
            return 1000.0
        return 0.0

    monkeypatch.setattr("metarl.rollout.cluster.group.time.monotonic", paused_after_the_calls)
    monkeypatch.setattr(ray, "wait", waiting_for_all(ray.wait))
    assert len(sampler.group.call("place", [()] * 3)) == 3
    assert sampler.group.num_restarts == before


def waiting_for_all(wait):
    """All calls have a result whenever one has."""

    def wait_for_all(refs, num_returns, timeout):
        wait(refs, num_returns=len(refs), timeout=60)
        return wait(refs, num_returns=num_returns, timeout=timeout)

    return wait_for_all


def test_a_worker_that_rays_memory_monitor_ends_is_replaced(sampler, monkeypatch, capsys):
    """Ray's error is given instead of the first result: its monitor looks at the whole machine."""
    sampler.group.call("place", [()] * 3)  # so that no worker of a test before is still starting
    get, before = ray.get, sampler.group.num_restarts
    errors = [ray.exceptions.OutOfMemoryError("Memory on the node was full")]

    def killed_at_first(*args, **options):
        if errors:
            raise errors.pop()
        return get(*args, **options)

    monkeypatch.setattr(ray, "get", killed_at_first)
    assert len(sampler.group.call("place", [()] * 3)) == 3
    assert sampler.group.num_restarts == before + 1
    assert "was lost (Memory on the node was full); it is replaced" in capsys.readouterr().err


class Losing(Sampler):
    """Plays on a sampler, and loses a worker at a random moment of one phase."""

    def __init__(self, sampler, phase, seconds):
        self.num_episodes, self.sampler = sampler.num_episodes, sampler
        self.phase, self.seconds = phase, seconds

    def close(self):
        pass

    def collect(self, *args, **options):
        self.phase -= 1
        if self.phase != -1:
            return self.sampler.collect(*args, **options)
        place = str(RNG.choice(list(self.sampler.group._places.values())))
        loser = threading.Timer(RNG.uniform(0, self.seconds), kill, (place,))
        loser.start()
        try:
            return self.sampler.collect(*args, **options)
        finally:
            loser.join()


def kill(place):
    """Kill a worker, unless it is dead since its last episodes."""
    (process,) = re.findall(r"process (\d+)", place)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(process), signal.SIGKILL)


def assert_same_with_losses(sampler, kind, phases):
    """Play all rollouts with a loss in each of some phases, and compare them with this machine."""
    config = make_config({}, "mine", {**SIZES, **KINDS[kind], **LONGER})
    agent = config.make_agent()
    whole = rollouts(config, config.env.make_batch(NUM_TASKS * NUM_EPISODES), agent=agent)
    begin = time.monotonic()
    assert len(rollouts(config, sampler, agent=agent)) == NUM_PHASES
    seconds = (time.monotonic() - begin) / NUM_PHASES
    before = sampler.group.num_restarts
    for phase in phases:
        found = rollouts(config, Losing(sampler, phase, seconds), agent=agent)
        for (_, one), (_, other) in zip(whole, found, strict=True):
            assert_same_episodes(one, other)
    rollouts(config, sampler, agent=agent)  # meets a worker that was lost after its last episodes
    assert before < sampler.group.num_restarts <= before + len(phases)


def test_a_worker_killed_in_some_phase_changes_nothing(sampler):
    kind = str(RNG.choice(["rl2", "varibad", "pearl"]))
    assert_same_with_losses(sampler, kind, [int(RNG.integers(NUM_PHASES))])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["maml", "rl2", "varibad", "pearl"])
def test_workers_killed_at_many_moments_of_every_phase_change_nothing(sampler, kind):
    assert_same_with_losses(sampler, kind, [*range(NUM_PHASES)] * 4)


@pytest.mark.slow
def test_a_node_is_lost(sampler, cluster):
    """Its worker goes on, on another node."""
    config = make_config({}, "mine", {**SIZES, **KINDS["rl2"], **LONGER})
    agent = config.make_agent()
    whole = rollouts(config, config.env.make_batch(NUM_TASKS * NUM_EPISODES), agent=agent)
    before = sampler.group.num_restarts
    (actor, *_) = sampler.group.actors
    address = ray._private.state.actors(actor._actor_id.hex())["Address"]
    (node,) = [each for each in cluster.worker_nodes if each.node_id == address["NodeID"]]
    delay = RNG.uniform(0, 1)
    killer = threading.Timer(delay, cluster.remove_node, (node,), {"allow_graceful": False})
    killer.start()
    deadline = time.monotonic() + 120
    try:
        while sampler.group.num_restarts == before and time.monotonic() < deadline:
            found = rollouts(config, sampler, agent=agent)
            for (_, one), (_, other) in zip(whole, found, strict=True):
                assert_same_episodes(one, other)
    finally:
        killer.join()
        cluster.add_node(num_cpus=1)
    assert sampler.group.num_restarts == before + 1


def test_no_more_workers_are_replaced_than_allowed(sampler):
    sampler.group._max_restarts, before = sampler.group.num_restarts, sampler.group._max_restarts
    os.kill(pid(sampler, 2), signal.SIGKILL)
    try:
        with pytest.raises(ClusterError, match=r"worker 3.* was lost .* than sampler.max_restarts"):
            play(sampler, WritingActor(sampler._family.action_dim))
    finally:
        sampler.group._max_restarts = before


def test_a_node_that_does_not_answer_is_named(sampler, monkeypatch, capsys):
    monkeypatch.setattr(checks, "PROBE_WARNING", 0.1)
    monkeypatch.setattr(checks, "PROBE_TIMEOUT", 0.3)
    node = next(each for each in ray.nodes() if each["Alive"])
    name = f"node {node['NodeManagerAddress']}"
    with pytest.raises(UserError, match=f"{name} has not answered within 0.3 s; expected a node"):
        checks.ask_nodes([node], [node["NodeID"]], lambda: time.sleep(5), "answered")
    assert f"waiting up to 0.3 s for {name}, which has not yet answered" in capsys.readouterr().err


def test_errors_of_a_worker_are_those_of_one_machine(sampler):
    """An actor of the user's whose actions have a wrong size."""
    expected = r"actions of the shape \(\d, 3, 6\) on half_cheetah_vel, got \(\d, 3, 12\)"
    with pytest.raises(UserError, match=expected):
        play(sampler, WritingActor(12))


def test_of_several_errors_that_of_the_first_tasks_is_told(sampler):
    """Whichever worker fails first. The first one has a single task."""
    for _ in range(5):
        with pytest.raises(UserError, match=r"got \(1, 3, 2\)"):
            play(sampler, WritingActor(2))


def test_an_actor_that_cannot_travel_is_named(sampler):
    actor = WritingActor(sampler._family.action_dim)
    actor.lock = threading.Lock()
    with pytest.raises(UserError, match=r"sampler.kind: WritingActor cannot travel .*lock"):
        play(sampler, actor)


def test_a_lost_worker_is_an_error_of_workers():
    assert issubclass(ClusterError, WorkerError)
