"""Meta-iterations that do not fit into memory are refused before anything is allocated."""

from __future__ import annotations

import resource
import sys

import pytest

import metarl
from metarl.cli.main import main
from metarl.core.errors import ConfigError
from metarl.training import memory
from metarl.training.loop import resume, train
from metarl.training.memory import check_memory, memory_limit, needed_memory
from tests.training.test_loop import tiny

IMAGES = """
import gymnasium, numpy as np

class Images(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 3), np.uint8)
    wind = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.image(), {}

    def step(self, action):
        return self.image(), float(action[0]) * self.wind, False, False, {}

    def image(self):
        return self.np_random.integers(0, 256, (84, 84, 3), np.uint8)
"""


@pytest.fixture
def images(tmp_path):
    """A config of an environment with images of 84 x 84 x 3 numbers, by values."""
    (tmp_path / "images.py").write_text(IMAGES)
    file = tmp_path / "images.yaml"
    file.write_text(
        "env: {family: gymnasium, env_id: 'images.py:Images', parameters: {wind: [-1, 1]},"
        " horizon: 5}\n"
        "sampling: {num_tasks: 2, num_episodes: 3}\n"
        "agent: {policy: {hidden: [4]}}\n"
        "tracking: {mode: disabled}\n"
        "iterations: 1\n"
    )
    return file


@pytest.fixture
def bounded(monkeypatch):
    """Sets the memory of this machine, in bytes."""
    return lambda limit: monkeypatch.setattr(memory, "memory_limit", lambda: limit)


def test_the_needed_memory_by_hand():
    """Two tasks, three episodes, five steps of 2 numbers: rollouts of 2 * 3 * 5 * 2 * 4 bytes. Two
    of them, one more in the order of steps, two training batches; 3 arrays of 15 x 8 features."""
    settings = {"num_tasks": 2, "num_episodes": 3, "env.horizon": 5}
    config = metarl.load_config("point_nav/maml_trpo", **settings)
    assert needed_memory(config) == (2 + 1 + 2) * 240 + 3 * 15 * 8 * 8
    on_gpu = metarl.load_config("point_nav/maml_trpo", **settings, device="cuda")
    assert needed_memory(on_gpu) == (2 + 1) * 240
    both = metarl.load_config(
        "point_nav/maml_trpo", **settings, **{"agent.tasks_per_microbatch": 7}
    )
    assert needed_memory(both) == (2 + 1 + 2) * 240 + 2 * 3 * 15 * 8 * 8


def test_a_limit_is_kept_to_the_byte(bounded):
    config = metarl.load_config("point_nav/maml_trpo")
    bounded(needed_memory(config))
    check_memory(config)
    bounded(needed_memory(config) - 1)
    with pytest.raises(ConfigError, match=r"^env: 2 x 800 episodes of 100 steps, .* GB"):
        check_memory(config)
    bounded(None)
    check_memory(config)


RL2 = {"num_tasks": 2, "num_episodes": 3, "inner_steps": 2, "env.horizon": 5}
RL2 |= {"agent.network.size": 10}


def test_the_memory_of_rl2_by_hand():
    """Six trials of 15 steps, and inputs of 25 + 5 + 2 numbers."""
    observations = (3 + 1) * 2 * 3 * 5 * 25 * 4
    kept = 6 * 15 * (2 * 25 + 2 * 1 + 3 * 32)
    values = 6 * 15 * (32 + 2 * 10)  # the memories are those of before and after they are joined
    step = 8 * 10  # of a sequence that is learned from
    for cell, minibatches, truncate, expected in (
        ("gru", 6, 0, values),
        ("gru", 2, 0, values),
        ("gru", 1, 0, 5 * 15 * step),  # 5 of 6 sequences together
        ("gru", 1, 14, 5 * 14 * step),
        ("gru", 3, 11, values),  # two sequences of each of two trials
        ("lstm", 1, 2, 6 * 15 * (32 + 4 * 10)),
    ):
        update = {"minibatches": minibatches, "truncate": truncate}
        agent = {"agent.network.cell": cell, **{f"agent.update.{k}": v for k, v in update.items()}}
        config = metarl.load_config("gridworld/rl2", **RL2, **agent)
        assert needed_memory(config) == observations + 4 * (kept + expected), agent


def test_sequences_need_the_memory_of_all_their_phases():
    """Five of them with two tasks and one adaptation, and one in the order of steps."""
    one, two = (tiny(**{"sampling.sequence": length}) for length in (1, 2))
    observations = 3 * 4 * 10 * 2 * 4  # of a phase
    assert memory.observation_memory(one) == (2 + 1) * observations
    assert memory.observation_memory(two) == (5 + 1) * observations
    assert two.sampling.max_steps(10) == 5 * 3 * 4 * 10


EPISODES = "episodes of 1,000,000 steps, with observations of 25 numbers, need at least"
CHOICES = (
    "fewer --num-tasks or --num-episodes, a shorter --env.horizon, fewer --inner-steps, "
    "a smaller --agent.network.size"
)


@pytest.mark.parametrize(
    ("sizes", "truncate", "expected"),
    [
        ((84, 3), 0, f"3 x 252 {EPISODES} 1,032 GB"),
        ((1, 1), 0, f"3 x 1 {EPISODES} 8.32 GB"),
        ((1, 1), 9_999, f"3 x 1 {EPISODES} 4.1 GB"),
    ],
)
def test_a_trial_longer_than_memory_is_refused_in_one_line(
    bounded, capsys, sizes, truncate, expected
):
    bounded(2e9)
    flags = [f"--num-tasks={sizes[0]}", f"--num-episodes={sizes[1]}", "--env.horizon=1000000"]
    flags += ["--inner-steps=2", f"--agent.update.truncate={truncate}", "--dry-run"]
    assert main(["train", "gridworld/rl2", *flags]) == 2
    choices = CHOICES.replace(", a smaller", " or a smaller")
    if sizes == (1, 1) and not truncate:  # the graph of the one trial outweighs all else
        choices = f"{CHOICES} or a positive --agent.update.truncate"
    assert capsys.readouterr().err == (
        f"metarl: error: env: {expected} of memory, and 2 GB are here; choose {choices}\n"
    )


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "train"])
def test_images_that_do_not_fit_are_refused_in_one_line(images, tmp_path, bounded, capsys, dry):
    """800 episodes of 200 steps: 13.5 GB of numbers, of which 5 copies and features are needed."""
    bounded(25e9)
    sizes = ["--num-tasks=40", "--num-episodes=20", "--env.horizon=200"]
    assert main(["train", str(images), *sizes, "--out", str(tmp_path / "run"), *dry]) == 2
    assert capsys.readouterr().err == (
        "metarl: error: env: 2 x 800 episodes of 200 steps, with observations of 21,168 numbers, "
        "need at least 71.8 GB of memory, and 25 GB are here; choose fewer --num-tasks or "
        "--num-episodes, a shorter --env.horizon or smaller observations (such as by Gymnasium's "
        "ResizeObservation)\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_where_it_does_not_fit(tmp_path, bounded):
    directory = train(tiny(iterations=1), tmp_path / "run").directory
    bounded(1000)
    with pytest.raises(ConfigError, match="need at least"):
        resume(directory, iterations=2)
    with pytest.raises(ConfigError, match="need at least"):
        train(tiny(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets RLIMIT_AS")
def test_images_that_fit_are_trained_on(images, tmp_path):
    """Without a matrix of 42,340 x 42,340 features, 14 GB."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 10**9, limits[1]))
    try:
        run = metarl.train(metarl.load_config(images), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    (line,) = run.metrics()
    assert line["env_steps"] == 2 * 2 * 3 * 5


def test_the_limit_is_the_least_of_machine_container_and_process(monkeypatch, tmp_path):
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", pages.get)
    files = [tmp_path / "memory.max", tmp_path / "limit_in_bytes"]
    monkeypatch.setattr(memory, "CGROUP_LIMITS", files)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert memory_limit() == 4_096_000
    files[0].write_text("max\n")
    assert memory_limit() == 4_096_000
    files[1].write_text("4000000\n")
    assert memory_limit() == 4_000_000
    files[0].write_text("3000000\n")
    assert memory_limit() == 3_000_000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2_000_000, unlimited[1]))
    assert memory_limit() == 2_000_000
