"""Numbers that are not finite: what fails is found, named, and leaves no trace in anything else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from metarl.agents.base import Rollout
from metarl.agents.maml.batch import ReturnConfig
from metarl.agents.maml.config import InnerConfig
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.rollouts import adaptation_rollouts
from metarl.cli.main import main
from metarl.config_files import make_config
from metarl.core import policies
from metarl.core.params import stack
from metarl.core.policies import GaussianMLP, PolicyConfig
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import HalfCheetahVel, SimulationDiverged, TaskObserved
from metarl.envs.mujoco.family import MujocoBatchEnv
from metarl.envs.point import PointBatchEnv
from metarl.envs.wrappers.perturbed import Perturbed
from metarl.rollout.collect import collect
from metarl.rollout.episodes import Episodes, mean_return
from metarl.rollout.failures import (
    EpisodeDiverged,
    Failure,
    NotFinite,
    episode_failures,
)
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from metarl.training.monitor import TrainingMonitor
from tests.agents.maml.settings import OUTER
from tests.faulty import FaultyNav

TASKS = np.array([[0.4, 0.3], [-0.45, 0.2], [0.3, -0.5]])
FAMILY = FaultyNav(horizon=6)
TASK, EPISODE, STEP = 1, 2, 3  # what fails below: number 5 of three times three
FAULTS = ["reward", "huge reward", "observation", "state"]
RNG = np.random.default_rng(0)  # of updates, which MAML does not use
REASONS = {"state": "the position is not finite"}

# --- collecting ---


@pytest.fixture
def play(timer, episode_rngs):
    """Plays three episodes of each of three tasks, or as many as the environment has."""

    def play(env, tasks=TASKS, failures=None, actor=None, **options) -> Episodes:
        if actor is None:
            space = env.family.observation_space
            policy = GaussianMLP(PolicyConfig(hidden=(8,)), space.shape[0], env.family.action_dim)
            actor = policy.actor(stack(policy.init(np.random.default_rng(0)), len(tasks)))
        rngs = episode_rngs(len(tasks), env.num_episodes // len(tasks))
        return collect(env, actor, tasks, rngs, timer, failures=failures, **options)

    return play


def assert_only_one_is_out(found: Episodes, healthy: Episodes) -> None:
    """The episode that fails is empty, and all others are the same to the bit."""
    others = np.ones((3, 3), bool)
    others[TASK, EPISODE] = False
    assert np.array_equal(found.episode_mask, others)
    for name, array in found.arrays.items():
        expected = healthy.arrays[name]
        if name == "tasks":
            assert np.array_equal(array, expected)
            continue
        assert np.array_equal(array[others], expected[others]), name
        assert not array[~others].any(), name
    assert np.isnan(found.returns[TASK, EPISODE])
    assert mean_return([found]) == healthy.returns[others].mean()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_episode_that_fails_changes_nothing_else(play, fault):
    """In any of the ways; nor when wrappers are around the family."""
    for wrap in (
        lambda family: family,
        TaskObserved,
        lambda family: Perturbed(family, observation_noise=0.1, action_delay=1),
    ):
        family = wrap(replace(FAMILY, fault=fault))
        healthy, env = play(family.make_batch(9)), family.make_batch(9)
        inner = getattr(env, "batch_env", env)
        inner.planned = {3 * TASK + EPISODE: STEP}
        failures: list[Failure] = []
        assert_only_one_is_out(play(env, failures=failures, adaptation_step=1), healthy)
        reason = failures[0].reason
        assert reason == REASONS.get(fault, "an observation or reward is not finite")
        task = tuple(TASKS[TASK])
        assert failures == [Failure("episode", reason, 1, TASK, task, EPISODE, STEP)]
        with pytest.raises(EpisodeDiverged, match=re.escape(f"{failures[0]}")) as caught:
            play(env, adaptation_step=1)
        assert caught.value.failures == failures


def test_a_first_observation_that_is_not_finite(play):
    env = replace(FAMILY, fault="first observation").make_batch(9)
    healthy, failures = play(FAMILY.make_batch(9)), []
    env.planned = {3 * TASK + EPISODE: 0}
    assert_only_one_is_out(play(env, failures=failures), healthy)
    assert failures[0].step == 0
    assert failures[0].reason == "the first observation is not finite"


@dataclass
class Overflowing:
    """An actor one of whose actions is none."""

    actor: object
    value: float = np.nan
    step: int = -1

    def noise(self, rng, horizon):
        return self.actor.noise(rng, horizon)

    def act(self, obs, noise, last_reward, active):
        self.step += 1
        action = self.actor.act(obs, noise, last_reward, active).astype(np.float64)
        if self.step == STEP:
            action[TASK, EPISODE, 1] = self.value
        return action


@pytest.mark.parametrize("value", [np.nan, 1e39])  # the second is infinite in float32
@pytest.mark.parametrize("family", [FAMILY, HalfCheetahVel(horizon=6)])
def test_an_action_that_is_not_finite_is_not_taken(play, family, value):
    """MuJoCo would take 0 for it without a word."""
    tasks = TASKS[:, : family.task_space.shape[0]]
    obs_dim = family.observation_space.shape[0]
    policy = GaussianMLP(PolicyConfig(hidden=(8,)), obs_dim, family.action_dim)
    actor = policy.actor(stack(policy.init(np.random.default_rng(0)), 3))
    failures: list[Failure] = []
    found = play(family.make_batch(9), tasks, failures, Overflowing(actor, value))
    assert_only_one_is_out(found, play(family.make_batch(9), tasks, actor=actor))
    assert failures[0].reason == "the policy's action is not finite"
    assert failures[0].step == STEP


class Exploding(MujocoBatchEnv):
    """Physics in which one joint turns at 1e30 rad/s from the fourth step on."""

    steps_taken = 0

    def step(self, action, ids=None):
        if self.steps_taken == STEP:
            self.batch.bind("qvel")[3 * TASK + EPISODE, 4] = 1e30
        self.steps_taken += 1
        return super().step(action, ids)


class Stiff(HalfCheetahVel):
    """A cheetah whose joints are springs of 1e9 N m/rad where it is to run fast."""

    def apply_task(self, batch, tasks):
        batch.expand("jnt_stiffness")[:, 3:] = np.where(tasks > 1.4, 1e9, 60.0)


def test_physics_that_diverge_change_nothing_else(play):
    """MuJoCo resets what diverges, and would go on with it as if nothing had happened."""
    family = HalfCheetahVel(horizon=6)
    failures: list[Failure] = []
    tasks = np.array([[0.5], [1.0], [1.5]])
    found = play(Exploding(family, 9), tasks, failures)
    assert_only_one_is_out(found, play(family.make_batch(9), tasks))
    assert failures == episode_failures(
        [5], tasks, 3, failures[0].reason, adaptation_step=0, step=STEP
    )
    assert failures[0].reason.startswith("MuJoCo found a position, velocity or acceleration")


def test_a_task_that_cannot_be_simulated_fails_alone(play):
    """All of its episodes, and none of the others'."""
    failures: list[Failure] = []
    found = play(Stiff(horizon=6).make_batch(9), np.array([[0.5], [1.5], [1.0]]), failures)
    healthy = play(Stiff(horizon=6).make_batch(9), np.array([[0.5], [0.7], [1.0]]))
    assert {(each.task_index, each.episode) for each in failures} == {(1, 0), (1, 1), (1, 2)}
    assert found.task_mask.tolist() == [True, False, True]
    ours, theirs = (each.of_tasks(np.array([0, 2])).arrays for each in (found, healthy))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


class Silent(PointBatchEnv):
    """An environment that does not tell how the others fared, as none had to before."""

    def step(self, action, ids=None):
        if ids is None:
            raise SimulationDiverged(np.array([5]), "the wheel came off")
        return super().step(action, ids)


def test_an_environment_that_does_not_tell_of_the_others_stops(play):
    with pytest.raises(
        EpisodeDiverged, match=r"^task 1 .*, episode 2, step 0: the wheel came off$"
    ):
        play(Silent(FAMILY, 9, 1))
    with pytest.raises(EpisodeDiverged, match=r"came off; the others cannot go on without it"):
        play(Silent(FAMILY, 9, 1), failures=[])


class Unmade(PointBatchEnv):
    def reset(self, tasks, rngs):
        raise SimulationDiverged(np.array([5]), "the wheel came off")


@pytest.mark.parametrize("failures", [None, []])
def test_a_reset_that_fails_always_stops(play, failures):
    with pytest.raises(EpisodeDiverged, match=r"episode 2, step 0: at its reset, the wheel"):
        play(Unmade(FAMILY, 9, 1), failures=failures)


def test_a_task_that_lost_all_its_episodes_is_not_played_any_further(make_agent, timer):
    """It could not be adapted to. The others do not notice."""
    agent, rollouts = make_agent(FAMILY), {}
    for name, planned in (("healthy", {}), ("faulty", {3: 0, 4: 2, 5: 4})):
        env, failures = FAMILY.make_batch(9), []
        env.planned = planned
        rollouts[name] = []
        for _, episodes in adaptation_rollouts(
            agent,
            env,
            TASKS,
            2,
            seed=0,
            purpose=Purpose.TRAIN_EPISODES,
            timer=timer,
            failures=failures,
        ):
            rollouts[name].append(episodes)
            env.planned = {}
        assert len(failures) == len(planned)
    for healthy, faulty in zip(rollouts["healthy"], rollouts["faulty"], strict=True):
        assert faulty.task_mask.tolist() == [True, False, True]
        for name, array in faulty.of_tasks(np.array([0, 2])).arrays.items():
            assert np.array_equal(array, healthy.of_tasks(np.array([0, 2])).arrays[name]), name
        assert not faulty.mask[1].any()


# --- updates ---

INNER = {
    "sgd": InnerConfig(),
    "gates": InnerConfig(rule="meta_lstm"),
    "dice": InnerConfig(surrogate="dice"),
    "exploring": InnerConfig(
        surrogate="log_likelihood", emaml_weight=1.0, pre_adaptation_weight=0.5
    ),
    "context": InnerConfig(adapts="context", rule="lslr"),
}
COMBINATIONS = [
    *((outer, "sgd") for outer in OUTER),
    *(("ppo", inner) for inner in INNER if inner != "sgd"),
]


def meta_batch(agent, timer, planned, tasks=TASKS):
    """An adapted state and what it then played, where episodes fail in the last rollout, or the
    first: planned is (adaptation step, episode, step)."""
    env, failures = FAMILY.make_batch(3 * len(tasks)), []
    env.planned = {i: step for adaptation_step, i, step in planned if adaptation_step == 0}
    options = {"seed": 0, "purpose": Purpose.TRAIN_EPISODES, "failures": failures}
    played = adaptation_rollouts(agent, env, tasks, 1, timer=timer, **options)
    next(played)
    env.planned = {i: step for adaptation_step, i, step in planned if adaptation_step == 1}
    last = next(played)
    assert len(failures) == len(planned)
    return last


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("inner", INNER)
def test_a_task_that_lost_one_episode_is_learned_from(make_agent, timer, inner):
    """Its others have their mean return, by which E-MAML weighs the task."""
    agent = make_agent(FAMILY, inner=INNER[inner])
    lost = meta_batch(agent, timer, [(1, 6, 0)])
    assert np.isfinite(lost.episodes.task_returns).all()
    before = agent.state_dict()
    metrics = agent.update([lost], np.random.default_rng(0), timer)
    assert metrics["line_search_rejected"] == 0
    assert not all(torch.equal(before[name], value) for name, value in agent.state_dict().items())


@pytest.mark.parametrize(
    ("outer", "inner", "tasks_per_microbatch"),
    [*((*each, 1) for each in COMBINATIONS), ("trpo", "sgd", 3), ("ppo", "gates", 3)],
)
@pytest.mark.parametrize("adaptation_step", [0, 1])
def test_a_task_without_episodes_takes_no_part(
    make_agent, timer, outer, inner, tasks_per_microbatch, adaptation_step
):
    """The update is that of the tasks before it alone: to the bit where each is a microbatch."""
    settings = {
        "outer": OUTER[outer],
        "inner": INNER[inner],
        "tasks_per_microbatch": tasks_per_microbatch,
    }
    whole, without = make_agent(FAMILY, **settings), make_agent(FAMILY, **settings)
    lost = [(adaptation_step, 6, 0), (adaptation_step, 7, 3), (adaptation_step, 8, 5)]
    found = whole.update([Rollout(*meta_batch(whole, timer, lost))], RNG, timer)
    expected = without.update([Rollout(*meta_batch(without, timer, [], TASKS[:2]))], RNG, timer)
    if tasks_per_microbatch == 1:
        assert found == expected
        assert_same(whole.state_dict(), without.state_dict())
    else:
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("inner", INNER)
def test_an_episode_that_failed_weighs_nothing(make_agent, timer, inner):
    """In baseline, advantages and adaptation: these are those of the other episodes alone."""
    agent = make_agent(FAMILY, dtype=torch.float64, inner=INNER[inner])
    state, episodes = meta_batch(agent, timer, [(1, 2, 2), (1, 5, 0), (1, 8, 5)])
    with_gap, alone = agent.adapt(state, episodes), agent.adapt(state, episodes.first(2))
    for ours, theirs in zip(with_gap.microbatches, alone.microbatches, strict=True):
        played, expected = ours.support[-1], theirs.support[-1]
        assert not played.weight[:, 12:].any()
        np.testing.assert_allclose(played.weight[:, :12], expected.weight, rtol=1e-12)
        np.testing.assert_allclose(played.advantage[:, :12], expected.advantage, rtol=1e-8)
        for name, value in ours.params.items():
            np.testing.assert_allclose(value, theirs.params[name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("tasks_per_microbatch", [1, 3])
def test_a_task_without_episodes_stays_where_it_is(make_agent, timer, tasks_per_microbatch):
    """There is nothing to adapt to; nor is anything NaN in what it did not experience."""
    agent = make_agent(FAMILY, tasks_per_microbatch=tasks_per_microbatch)
    state, episodes = meta_batch(agent, timer, [(1, 3, 0), (1, 4, 1), (1, 5, 2)])
    before, after = state.of_tasks(np.array([1])), agent.adapt(state, episodes)
    (microbatch,), (stepped,) = before.microbatches, after.of_tasks(np.array([1])).microbatches
    assert_same(microbatch.params, stepped.params)
    batch = stepped.support[-1]
    assert all(torch.isfinite(x).all() for x in vars(batch).values() if torch.is_tensor(x))
    assert not batch.weight.any()


TOO_FAR = {
    "trpo": TRPOConfig(cg_steps=3, max_kl=1e38),
    "adam": AdamConfig(lr=1e30),
    "ppo": PPOConfig(lr=1e30, kl_weight=0.5, kl_target=1e-6),
    "reptile": ReptileConfig(lr=1e38),
    "reptile adam": ReptileConfig(optimizer="adam", lr=1e30),
}


@pytest.mark.parametrize("outer", [name for name in TOO_FAR if name != "trpo"])
def test_an_update_that_leads_nowhere_is_not_made(make_agent, timer, outer):
    """Steps of 1e30: the loss there is none, for PPO before its second step. What was begun is
    taken back, the optimiser's moments and the weight of the KL divergence included."""
    agent = make_agent(FAMILY, outer=TOO_FAR[outer])
    before = agent.state_dict()
    with pytest.raises(NotFinite, match="is not finite; nothing was updated"):
        agent.update([Rollout(*meta_batch(agent, timer, []))], RNG, timer)
    assert_same(agent.state_dict(), before)


@pytest.mark.parametrize("outer", OUTER)
def test_the_task_of_a_gradient_that_is_not_finite_is_named(make_agent, timer, outer):
    """Rewards whose sums are beyond 32 bits, in task 1; task 0 has lost its episodes."""
    returns = ReturnConfig(standardize=False)
    agent = make_agent(FAMILY, outer=OUTER[outer], returns=returns)
    state, episodes = meta_batch(agent, timer, [(1, 0, 0), (1, 1, 0), (1, 2, 0)])
    reward = episodes.reward.copy()
    reward[1, 0], reward[1, 1] = 3e38, -3e38
    before = agent.state_dict()
    with pytest.raises(NotFinite, match=r"^task 1 \[-0\.45, 0\.2\]: .*not finite") as caught:
        agent.update([Rollout(state, replace(episodes, reward=reward))], RNG, timer)
    assert caught.value.failure.task_index == 1
    assert_same(agent.state_dict(), before)


def test_an_update_from_nothing_is_refused(make_agent, timer):
    agent = make_agent(FAMILY)
    state, episodes = meta_batch(agent, timer, [(1, i, 0) for i in range(9)])
    with pytest.raises(NotFinite, match="the mean return of no episodes is not finite"):
        agent.update([Rollout(state, episodes)], RNG, timer)


# --- training ---

OVERFLOWING = {"agent.returns.standardize": False, "inner_steps": 0}
TINY = {
    "iterations": 6,
    "num_tasks": 3,
    "num_episodes": 3,
    "checkpoint_every": 2,
    "env.horizon": 5,
    "agent.policy.hidden": [8],
    "agent.inner.lr": 0.5,
    "tracking.mode": "disabled",
    "threads": 1,
}


def faulty(fault="reward", share=0.1, on_failure="drop_episode", **overrides):
    """A tiny config in which episodes fail."""
    env = {"family": "tests.faulty:FaultyNav", "fault": fault, "share": share}
    data = {"env": env, "method": "maml_trpo", "on_failure": on_failure}
    return make_config(data, "test", {**TINY, **overrides})


def outcome(run: Run):
    """What must not depend on how a run came about."""
    state = run.load().agent
    failures = run.failures_file.read_bytes() if run.failures_file.exists() else None
    return run.metrics_file.read_bytes(), failures, state


def assert_same_outcome(one: Run, other: Run) -> None:
    (metrics, failures, state), (others, other_failures, other_state) = outcome(one), outcome(other)
    assert metrics == others
    assert failures == other_failures
    assert_same(state, other_state)


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A run that leaves episodes out."""
    return train(faulty(), tmp_path_factory.mktemp("runs") / "dropped")


@pytest.fixture(scope="module")
def skipped(tmp_path_factory):
    """A run that skips updates, of some iterations."""
    config = faulty(share=0.03, on_failure="skip_update", **{"agent.outer.update": "ppo"})
    return train(config, tmp_path_factory.mktemp("runs") / "skipped")


def test_episodes_left_out_are_counted_and_recorded(dropped):
    lines, failures = dropped.metrics(), dropped.failures()
    assert sum(line["dropped_episodes"] for line in lines) == len(failures) > 5
    assert all(line["skipped_update"] == 0 for line in lines)
    assert all(np.isfinite(line["return_after"]) for line in lines)
    for line in lines:
        of_iteration = [each for each in failures if each["iteration"] == line["iteration"]]
        assert len(of_iteration) == line["dropped_episodes"]
    first = failures[0]
    assert set(first) == {
        "iteration",
        "kind",
        "reason",
        "adaptation_step",
        "task_index",
        "task",
        "episode",
        "step",
        "handled",
    }
    assert (first["kind"], first["handled"]) == ("episode", "drop_episode")
    assert first["reason"] == "an observation or reward is not finite"
    assert len(first["task"]) == 2


def test_returns_are_those_of_the_other_episodes(tmp_path, dropped):
    """By hand: the first iteration of a run without faults, played again, without those that the
    record names. Nothing was learned yet, so the episodes before adaptation are the same."""
    config = dropped.config
    config = config.replace(env=replace(config.env, share=0.0), iterations=1)
    agent, env = config.make_agent(), config.env.make_batch(9)
    rng = np.random.Generator(np.random.Philox(key=[0, 1 << 20], counter=[0, 0, 0, 0]))
    tasks = config.env.sample_tasks(rng, 3)
    options = {"seed": 0, "purpose": Purpose.TRAIN_EPISODES, "timer": Timer()}
    (_, healthy), _ = adaptation_rollouts(agent, env, tasks, 1, **options)
    returns = healthy.returns.copy()
    lost = [
        each
        for each in dropped.failures()
        if each["iteration"] == 1 and each["adaptation_step"] == 0
    ]
    assert lost
    for each in lost:
        assert each["task"] == tasks[each["task_index"]].tolist()
        returns[each["task_index"], each["episode"]] = np.nan
    assert dropped.metrics()[0]["return_before"] == np.mean(returns[np.isfinite(returns)])
    assert dropped.metrics()[0]["return_before"] != healthy.returns.mean()


@pytest.mark.parametrize("outer", ["trpo", "ppo", "adam", "reptile"])
def test_a_skipped_update_leaves_everything_as_it_was(tmp_path, outer):
    """All parameters and an optimiser's moments: each iteration's episodes fail here."""
    config = faulty(
        share=0.3,
        on_failure="skip_update",
        iterations=2,
        checkpoint_every=1,
        **{"agent.outer.update": outer},
    )
    run = train(config, tmp_path / "run")
    assert_same(run.load().agent, config.make_agent().state_dict())
    for line in run.metrics():
        assert line["skipped_update"] == 1
        assert "outer_kl" not in line
        assert np.isfinite(line["return_before"])
    assert {each["handled"] for each in run.failures()} == {"skip_update"}


def test_between_skipped_updates_training_goes_on(skipped):
    lines = skipped.metrics()
    assert {line["skipped_update"] for line in lines} == {0, 1}
    for line in lines:
        assert ("outer_kl" in line) == (not line["skipped_update"])
        assert bool(line["dropped_episodes"]) == bool(line["skipped_update"])


@pytest.mark.parametrize("on_failure", ["drop_episode", "skip_update"])
def test_where_nothing_is_left_there_is_no_return(tmp_path, capsys, on_failure):
    """null, not NaN, which is no JSON; and readers can do with it."""
    run = train(faulty("first observation", 1.0, on_failure, iterations=2), tmp_path / "run")
    for text in run.metrics_file.read_text().splitlines():
        line = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert line["return_before"] is line["return_after"] is line["adaptation_gain"] is None
        assert (line["dropped_episodes"], line["skipped_update"]) == (9, 1)
        assert line["env_steps"] == 0
    assert_same(run.load().agent, run.config.make_agent().state_dict())
    assert not (run.checkpoints / "best.pt").exists()
    output = capsys.readouterr().out
    assert "return none -> none (9 episodes dropped, 1 update skipped)" in output
    assert main(["list", "runs", "--runs", str(tmp_path)]) == 0
    assert "none -> none" in capsys.readouterr().out
    assert main(["report", str(run.directory)]) == 0
    last = run.failures()[-1]
    if on_failure == "drop_episode":
        assert last["kind"] == "update"
        assert last["reason"].startswith("the mean return of no episodes is not finite")
    assert last["handled"] == ("skip_update" if last["kind"] == "update" else on_failure)


@pytest.mark.parametrize("on_failure", ["drop_episode", "skip_update"])
@pytest.mark.parametrize("outer", ["trpo", "ppo", "adam", "reptile"])
def test_a_gradient_that_is_not_finite_skips_the_update(tmp_path, outer, on_failure):
    """Rewards of 3e38 and a baseline that cannot explain them."""
    settings = {"agent.outer.update": outer, **OVERFLOWING, "iterations": 1}
    config = faulty("large reward", 0.5, on_failure, **settings)
    run = train(config, tmp_path / "run")
    (line,) = run.metrics()
    assert (line["dropped_episodes"], line["skipped_update"]) == (0, 1)
    (failure,) = run.failures()
    assert (failure["kind"], failure["handled"]) == ("update", "skip_update")
    assert "not finite; nothing was updated" in failure["reason"]
    assert_same(run.load().agent, config.make_agent().state_dict())


def test_an_adaptation_that_is_not_finite_costs_the_task(tmp_path):
    """Its policy's actions are none, so that no episode of it is left."""
    config = faulty(
        "large reward", 0.1, iterations=1, seed=2, **{"agent.returns.standardize": False}
    )
    run = train(config, tmp_path / "run")
    failures = run.failures()
    lost = {each["task_index"] for each in failures}
    assert 0 < len(lost) < 3
    assert len(failures) == 3 * len(lost)
    assert {each["reason"] for each in failures} == {"the policy's action is not finite"}
    assert {(each["adaptation_step"], each["step"]) for each in failures} == {(1, 0)}


def test_stop_saves_records_and_names(tmp_path, capsys):
    """And comes to the same end when it is resumed."""
    config = faulty(share=0.01, on_failure="stop", iterations=50, seed=2)
    assert_stop_saves_records_and_names(config, tmp_path / "run", capsys)


def assert_stop_saves_records_and_names(config, directory, capsys):
    """Train a config in which an episode fails after the first iterations."""
    with pytest.raises(EpisodeDiverged) as caught:
        train(config, directory)
    run = Run.open(directory)
    done = len(run.metrics())
    assert run.load().iteration == done > 0
    assert not any("dropped_episodes" in line for line in run.metrics())
    (failure,) = run.failures()
    assert (failure["iteration"], failure["handled"]) == (done + 1, "stop")
    assert main(["train", "--resume", str(directory)]) == 1
    assert capsys.readouterr().err == f"metarl: error: training stopped: {caught.value}\n"
    assert run.failures() == [failure]
    named = f"task {failure['task_index']} {failure['task']}, episode {failure['episode']}, step"
    assert str(caught.value).startswith(named)


def test_stop_names_the_task_of_a_gradient_that_is_not_finite(tmp_path):
    config = faulty("large reward", 0.5, "stop", **OVERFLOWING)
    with pytest.raises(NotFinite, match=r"^task \d \[.*\]: .*not finite; nothing was updated"):
        train(config, tmp_path / "run")
    (failure,) = Run.open(tmp_path / "run").failures()
    assert (failure["kind"], failure["iteration"], failure["handled"]) == ("update", 1, "stop")


@pytest.mark.parametrize("which", ["dropped", "skipped"])
@pytest.mark.parametrize("damage", ["whole lines", "half a line"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, request, which, damage):
    """Killed between two checkpoints, or in the middle of a line."""
    whole = request.getfixturevalue(which)
    run = Run.create(whole.config, tmp_path / "run")
    for path in (run.metrics_file, run.timings_file, run.failures_file):
        lines = (whole.directory / path.name).read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: -len(lines) // 4]) + lines[-1][:9] * (damage[0] == "h"))
    for name in ("latest", "best"):
        source = whole.checkpoints / "iteration-000002.pt"
        (run.checkpoints / f"{name}.pt").write_bytes(source.read_bytes())
    resume(run.directory)
    assert_same_outcome(run, whole)


def test_threads_do_not_change_what_fails(tmp_path, dropped):
    other = train(dropped.config.replace(threads=2), tmp_path / "two")
    assert_same_outcome(other, dropped)


def test_without_failures_the_setting_changes_nothing(tmp_path):
    """But for the counts, which then are 0."""
    runs = [
        train(faulty(share=0.0, on_failure=each, iterations=2), tmp_path / each)
        for each in ("stop", "drop_episode", "skip_update")
    ]
    expected = runs[0].metrics()
    for run in runs[1:]:
        lines = run.metrics()
        assert {line.pop("dropped_episodes") + line.pop("skipped_update") for line in lines} == {0}
        assert lines == expected
        assert not run.failures_file.exists()
        assert_same(run.load().agent, runs[0].load().agent)


# --- warnings ---


def warned(run: Run) -> list[tuple[int, str]]:
    """The iterations and reasons of the warnings in a run's record."""
    events = [each for each in run.failures() if each["kind"] == "warning"]
    assert {each["handled"] for each in events} <= {"warned"}
    return [(each["iteration"], each["reason"]) for each in events]


def healthy(**overrides):
    """A tiny config without faults, which stops where a number is not finite."""
    return faulty(share=0.0, on_failure="stop", **overrides)


def test_a_line_search_that_never_succeeds_is_warned_of_once(tmp_path, capsys):
    """As steps are so short that rounding hides them; after a resumption too."""
    settings = {"agent.outer.max_kl": 1e-30, "agent.outer.line_search_steps": 1, "iterations": 13}
    run = train(healthy(**settings), tmp_path / "run")
    assert all(line["line_search_rejected"] for line in run.metrics())
    expected = [(10, "the line search has rejected every step 10 times in a row")]
    assert warned(run) == expected
    assert [line.get("warnings") for line in run.metrics()] == [None] * 9 + [1] * 4
    output = capsys.readouterr().out
    assert output.count("warning: iteration 10: the line search has rejected") == 1
    assert output.count("(1 warning)") == 4

    whole = outcome(run)
    for iteration in (8, 12):  # before it begins, and while it lasts
        source = run.checkpoints / f"iteration-{iteration:06d}.pt"
        (run.checkpoints / "latest.pt").write_bytes(source.read_bytes())
        resume(run.directory)
        assert outcome(run)[:2] == whole[:2]
    assert capsys.readouterr().out.count("warning:") == 1


def test_metrics_that_are_no_numbers_warn_of_nothing():
    """A resumption reads them from a file, which anybody may have written."""
    monitor = TrainingMonitor(TRPOConfig().max_update_kl)
    for value in ("1e9", None, [5], {}, float("nan")):
        assert monitor({"outer_kl": value}) == []
    assert [event.kind for event in monitor({"outer_kl": 5.0})] == ["warning"]


@pytest.mark.parametrize(
    ("ratio", "max_std", "changes"),
    [(1.0001, 20.0, ["collapsed", "exploded"]), (1000.0, 1.0001, ["exploded"])],
)
def test_a_std_that_has_collapsed_or_exploded_is_warned_of(
    tmp_path, monkeypatch, ratio, max_std, changes
):
    """By a factor of 1.0001, where one becomes smaller and others larger; or at an upper bound."""
    monkeypatch.setattr(policies, "MAX_STD_RATIO", ratio)
    run = train(healthy(iterations=3, **{"agent.policy.max_std": max_std}), tmp_path / "run")
    for (_, reason), change in zip(warned(run), changes, strict=True):
        assert reason.startswith(f"the policy's std has {change} in")
        assert run.metrics()[-1][f"std_{change}"] in (1.0, 2.0)
    assert run.metrics()[-1]["warnings"] == len(changes)


def test_a_std_that_is_kept_at_its_lower_bound_is_not_warned_of(tmp_path):
    run = train(healthy(iterations=3, **{"agent.policy.min_std": 0.9999}), tmp_path / "run")
    assert warned(run) == []


@pytest.mark.parametrize("init_std", [1.0, 1e-6, 20.0])
def test_a_std_has_collapsed_or_exploded_by_a_factor_of_a_thousand(init_std):
    """Or at the upper bound; not where it began, be it there, nor at a lower bound that is
    nearer."""
    policy = GaussianMLP(PolicyConfig(hidden=(8,), init_std=init_std), 3, 2)
    params = policy.init(np.random.default_rng(0))
    start = params["log_std"]
    assert policy.std_diagnostics([params, stack(params, 4)]) == {}
    for factor, key, bound in ((1e-4, "std_collapsed", 1e-6), (1e4, "std_exploded", 20.0)):
        for each, count in ((factor, 1.0), (factor**0.5, 0.0)):
            log_std = start.clone()
            log_std[0, 1] += np.log(each)
            if each > 1:
                counted = count or init_std * each > bound
            else:
                counted = count and init_std / 1000 > bound
            expected = {key: 1.0} if counted else {}
            assert policy.std_diagnostics([{"log_std": start}, {"log_std": log_std}]) == expected


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"kl_target": 0.001, "kl_weight": 1e-9, "lr": 0.05}, "0.01"), ({"lr": 0.3}, "1")],
)
def test_a_divergence_far_beyond_its_limit_is_warned_of(tmp_path, settings, limit):
    settings = {f"agent.outer.{key}": value for key, value in settings.items()}
    config = healthy(
        iterations=2, **{"agent.outer.update": "ppo", "agent.outer.epochs": 10, **settings}
    )
    run = train(config, tmp_path / "run")
    (warning,) = warned(run)
    assert re.fullmatch(rf"the KL divergence of an update, .*, is far beyond {limit}", warning[1])


def test_an_adaptation_without_effect_is_warned_of(tmp_path):
    """A step size that grows with the loss is 0 where rewards are positive."""
    data = {"env": {"family": "tabular_mdp"}, "method": "maml_trpo"}
    inner = {"agent.inner.lr": 0.1, "agent.inner.loss_scaled_lr": 8.0}
    run = train(make_config(data, "test", {**TINY, "iterations": 2, **inner}), tmp_path / "run")
    ((iteration, reason),) = warned(run)
    assert iteration == 1
    assert reason.startswith("the adaptation changes no policy (adaptation_kl is 0)")


def test_an_agent_that_is_trained_without_adaptation_is_not_warned_of():
    for adapts, number in ((True, 1), (False, 0)):
        monitor = TrainingMonitor(TRPOConfig().max_update_kl, adapts=adapts)
        assert len(monitor({"outer_kl": 0.001, "adaptation_kl": 0.0})) == number
        assert not monitor({"outer_kl": 0.001, "adaptation_kl": 1e-9})


def test_a_warning_ends_and_begins_again():
    monitor = TrainingMonitor(PPOConfig().max_update_kl)
    kls = [0.1, 2.0, 3.0, None, 0.1, 5.0]  # None: no update was made
    metrics = [{} if kl is None else {"outer_kl": kl} for kl in kls]
    begins = [[each.kind for each in monitor(line)] for line in metrics]
    assert begins == [[], ["warning"], [], [], [], ["warning"]]


def test_a_skipped_update_is_neither_a_rejection_nor_a_success():
    monitor, events = TrainingMonitor(TRPOConfig().max_update_kl), []
    for i in range(12):
        line = {} if i in (3, 4) else {"outer_kl": 0.0, "line_search_rejected": 1.0}
        events += [(i, each.kind) for each in monitor(line)]
    assert events == [(11, "warning")]
    monitor({"outer_kl": 0.01, "line_search_rejected": 0.0})
    assert monitor.warnings == {}
