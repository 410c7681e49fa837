"""Observations that any kind of agent sees normalised by measured constants."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.base import Rollout
from metarl.agents.normalization import NormalizedAgent
from metarl.agents.rollouts import adaptation_rollouts
from metarl.cli.main import main
from metarl.config_files import make_config
from metarl.core.errors import ConfigError, UserError
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import PointNav, TaskObserved
from metarl.envs.point import PointBatchEnv
from metarl.evaluation.compare import evaluate_run
from metarl.rollout.collect import collect, episode_rngs
from metarl.rollout.failures import EpisodeDiverged
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from tests.agents.test_another_kind import DATA
from tests.training.test_loop import assert_same_outcome, killed_after_first_iteration, tiny

OPTION = {"agent.normalize_observations": True}
UNITS = np.array([1000.0, 0.01])
SHIFT = np.array([5e4, -3.0])


class OddUnits(PointNav):
    """The position is observed in other units, from another origin."""

    name = "odd_units"

    def make_batch(self, num_episodes, num_threads=1):
        return OddBatch(self, num_episodes, num_threads)


class OddBatch(PointBatchEnv):
    def reset(self, tasks, rngs):
        return super().reset(tasks, rngs) * UNITS + SHIFT

    def step(self, action, ids=None):
        obs, *rest = super().step(action, ids)
        return obs * UNITS + SHIFT, *rest


ODD = {"env.family": f"{__name__}:OddUnits", "env.horizon": 10}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    return train(tiny(iterations=2, checkpoint_every=1, **ODD, **OPTION), directory)


class Blind:
    """Acts as if every number observed were 0."""

    def __init__(self, actor):
        self.actor, self.noise = actor, actor.noise

    def act(self, obs, *rest):
        return self.actor.act(np.zeros_like(obs), *rest)


def untrained_episodes(config):
    """The meta-batch of episodes that the constants are measured on."""
    plain = make_config(config.to_dict(), "plain", {"agent.normalize_observations": False})
    tasks = config.env.sample_tasks(make_rng(config.seed, Purpose.OBSERVATIONS, iteration=1), 3)
    agent = plain.make_agent()
    return collect(
        config.env.make_batch(12),
        Blind(agent.actor(agent.initial_state(3))),
        tasks,
        episode_rngs(config.seed, Purpose.OBSERVATIONS, 3, 4),
        Timer(),
    )


def test_the_constants_are_those_of_the_untrained_agents_episodes(run):
    """Of the steps that took place, and the same after training and loading."""
    episodes = untrained_episodes(run.config)
    steps = episodes.obs[episodes.mask].astype(np.float64)
    for agent in (run.config.make_agent(), metarl.load(run.directory)):
        np.testing.assert_allclose(agent.mean, steps.mean(0), rtol=1e-6)
        np.testing.assert_allclose(agent.std, steps.std(0), rtol=1e-6)
    assert agent.mean.dtype == agent.std.dtype == np.float32
    assert run.config.replace(seed=1).make_agent().mean[0] != agent.mean[0]


def test_measured_by_hand():
    """A step that did not take place does not count; a number that does not vary is shifted."""
    config = tiny(num_tasks=1, num_episodes=2, **{"env.horizon": 2})
    episodes = untrained_episodes(tiny())
    obs = np.array([[[[1, 7], [3, 7]], [[5, 7], [99, 99]]]], np.float32)
    mask = np.array([[[True, True], [True, False]]])
    agent = NormalizedAgent(config.make_agent(), 2)
    agent.measure(replace(episodes, obs=obs, mask=mask))
    assert agent.mean.tolist() == [3.0, 7.0]
    assert agent.std.tolist() == pytest.approx([np.sqrt(8 / 3), 1.0])
    assert agent.normalize(np.float32([[5, 8]])).tolist() == [
        pytest.approx([2 / np.sqrt(8 / 3), 1.0])
    ]
    obs[..., 1] = [[1e-13, -1e-13], [1e-13, 0]]  # rounding errors around 0
    agent.measure(replace(episodes, obs=obs, mask=mask))
    assert agent.std[1] == 1.0


def test_acting_and_learning_see_the_same_normalised_observations(run):
    """The log-probabilities of the learner are those of the actor's own actions, and all of an
    episode that did not take place stays 0."""
    config = run.config
    agent = config.make_agent()
    seen = {}

    class Spy:
        def __init__(self, actor):
            self.actor, self.noise = actor, actor.noise

        def act(self, obs, *rest):
            seen.setdefault("acting", []).append(obs.copy())
            return self.actor.act(obs, *rest)

    inner = agent.agent
    real_actor, real_adapt = inner.actor, inner.adapt
    inner.actor = lambda state: Spy(real_actor(state))
    inner.adapt = lambda state, episodes: (
        seen.setdefault("learning", episodes),
        real_adapt(state, episodes),
    )[1]
    list(
        adaptation_rollouts(
            agent,
            config.env.make_batch(12),
            config.env.tasks("train", 3),
            1,
            seed=0,
            purpose=Purpose.TRAIN_EPISODES,
            training=True,
            timer=Timer(),
        )
    )
    learning = seen["learning"]
    acting = np.stack(seen["acting"][: learning.obs.shape[2]], axis=2)  # (B, E, T, obs_dim)
    assert np.array_equal(acting[learning.mask], learning.obs[learning.mask])
    assert not learning.obs[~learning.mask].any()
    assert np.abs(learning.obs[learning.mask].mean(0)).max() < 0.5
    assert np.abs(learning.obs[learning.mask].std(0) - 1).max() < 0.5


def test_units_do_not_matter(run, tmp_path):
    """The same run where positions are observed in their own units, up to rounding."""
    plain = train(tiny(iterations=2, checkpoint_every=1, **OPTION), tmp_path / "plain")
    for odd, own in zip(run.metrics(), plain.metrics(), strict=True):
        assert odd["return_after"] == pytest.approx(own["return_after"], rel=1e-3)


@pytest.mark.parametrize("kind", ["run", "running"])
def test_threads_and_interruptions_do_not_change_the_result(request, kind, tmp_path):
    run = request.getfixturevalue(kind)
    config = run.config.replace(threads=2)
    assert_same_outcome(train(config, tmp_path / "two").directory, run.directory)
    killed_after_first_iteration(run.directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", run.directory)
    Run.create(run.config, tmp_path / "begun")  # killed before its first checkpoint
    resume(tmp_path / "begun")
    assert_same_outcome(tmp_path / "begun", run.directory)


def test_the_constants_stay_as_they_were_measured(run):
    states = [run.load(name).agent for name in ("1", "2", "average")]
    for name in ("observations.mean", "observations.std"):
        assert all(torch.equal(state[name], states[0][name]) for state in states)
    assert not torch.equal(states[0]["params.weight0"], states[1]["params.weight0"])


def test_it_is_evaluated_and_rendered_and_so_is_the_untrained_agent(run, tmp_path):
    """The baseline `random` measures the same constants as the run at its start."""
    results, file = evaluate_run(run.directory, tasks=2, episodes=2, steps=1, against=["random"])
    returns = {name: result.returns for name, result in results.items()}
    assert set(returns) == {"maml_trpo", "random"}
    own = metarl.evaluate(metarl.load(run.directory), run.config.env, tasks=2, episodes=2, steps=1)
    assert np.array_equal(own.returns, returns["maml_trpo"])
    fresh = metarl.evaluate(run.config.make_agent(), run.config.env, tasks=2, episodes=2, steps=1)
    assert np.array_equal(fresh.returns, returns["random"])
    assert json.loads(file.read_text())["methods"]["random"]
    video = tmp_path / "a.gif"
    size = ["--episodes=2", "--steps=1", "--width=96", "--height=96"]
    assert main(["render", str(run.directory), *size, "--out", str(video)]) == 0
    assert video.read_bytes().startswith(b"GIF8")


def test_another_kind_of_agent_normalises_too(tmp_path):
    data = {**DATA, "iterations": 2, "agent": {**DATA["agent"], "normalize_observations": True}}
    run = metarl.train(make_config(data, "test", {}), tmp_path / "run")
    state = run.load().agent
    assert state["num_updates"] == 2
    assert state["observations.std"].shape == (2,)
    assert metarl.load(run.directory).agent.num_updates == 2


def test_by_default_nothing_is_measured():
    agent = tiny().make_agent()
    assert not isinstance(agent, NormalizedAgent)
    assert not any(name.startswith("observations.") for name in agent.state_dict())


def test_a_checkpoint_of_before_does_not_fit_the_option():
    state = tiny().make_agent().state_dict()
    with pytest.raises(UserError, match=r"observations\.mean has the shape none, expected \[2\]"):
        tiny(**OPTION).make_agent(state)
    state = tiny(**OPTION).make_agent().state_dict()
    with pytest.raises(UserError, match=r"observations\.mean has the shape \[2\], expected none"):
        tiny().make_agent(state)


def test_with_constants_in_the_config_it_is_refused():
    with pytest.raises(
        ConfigError, match=r"^--agent\.policy\.obs-scale: .* makes no sense here: norm"
    ):
        tiny(**OPTION, **{"agent.policy.obs_scale": [1.0, 2.0]})


def test_observations_of_another_size_are_refused(run):
    with pytest.raises(UserError, match="expected observations of 2 numbers, for which the policy"):
        metarl.evaluate(
            metarl.load(run.directory), TaskObserved(PointNav()), tasks=1, episodes=1, steps=0
        )


def test_episodes_that_fail_are_left_out_or_stop(tmp_path, monkeypatch):
    """The first two of 12 episodes, at their second step."""
    advance, calls = PointBatchEnv.advance, []

    def explode(self, action, ids=None):
        advance(self, action, ids)
        calls.append(1)
        if len(calls) == 2:
            self.position[:2] = np.nan

    monkeypatch.setattr(PointBatchEnv, "advance", explode)
    agent = tiny(on_failure="drop_episode", **OPTION).make_agent()
    assert np.isfinite(agent.mean).all()
    assert np.isfinite(agent.std).all()
    calls.clear()
    with pytest.raises(EpisodeDiverged, match=r"episode 0, step 1"):
        train(tiny(**OPTION), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(PointBatchEnv, "advance", lambda self, *_: self.position.fill(np.nan))
    with pytest.raises(EpisodeDiverged):
        tiny(on_failure="skip_update", **OPTION).make_agent()


RUNNING = {"agent.running_observations": True}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "running"
    return train(tiny(iterations=2, checkpoint_every=1, **ODD, **RUNNING), directory)


def test_running_moments_are_those_of_all_observations_so_far(running):
    """Of the untrained agent's episodes, and then of both phases of each iteration."""
    agents = [
        running.config.make_agent(),
        *(metarl.load(running.directory, checkpoint=name) for name in ("1", "2")),
    ]
    steps = [0, *(metrics["env_steps"] for metrics in running.metrics())]
    own = float(agents[0].moments.count)
    assert [float(agent.moments.count) for agent in agents] == [own + each for each in steps]
    agent, tasks = agents[-1], running.config.env.tasks("train", 3)
    before, states = agent.moments, [agent.initial_state(3, training=True)]
    rollouts = []
    for seed in range(2):
        batch, rngs = running.config.env.make_batch(12), episode_rngs(seed, Purpose.UPDATE, 3, 4)
        played = collect(batch, agent.actor(states[-1]), tasks, rngs, Timer())
        rollouts.append(Rollout(states[-1], played))
        states.append(agent.adapt(states[-1], played))
    agent.update(rollouts, np.random.default_rng(0), Timer())
    rows = np.concatenate([played.obs[played.mask] for _, played in rollouts]).astype(np.float64)
    count = before.count + len(rows)
    mean = (before.mean * before.count + rows.sum(0)) / count
    square = before.square + before.mean**2 * before.count + (rows**2).sum(0)
    np.testing.assert_allclose(agent.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(agent.std, np.sqrt(square / count - mean**2), rtol=1e-3)


def test_running_normalisation_is_bounded_in_the_actor_and_in_the_module(running):
    agent = metarl.load(running.directory)
    far = (agent.moments.mean + 1e6 * agent.moments.std)[None].astype(np.float32)
    assert agent.normalize(far).tolist() == [[10.0, 10.0]]
    module = agent.policy_module(agent.initial_state(1))
    actor = agent.actor(agent.initial_state(1), deterministic=True)
    action = actor.act(far, np.zeros((1, 2), np.float32), np.zeros(1), np.array([0]))
    exported = module(torch.from_numpy(far)).action.detach()
    np.testing.assert_allclose(exported, action[0], rtol=1e-5)


def test_a_warm_start_takes_running_moments_as_those_of_few_rows(running, tmp_path, monkeypatch):
    monkeypatch.setattr("metarl.agents.moments.KEPT_ROWS", 10)
    config = running.config.replace(seed=1)
    begun = train(config.replace(iterations=1), tmp_path / "begun", init_from=running.directory)
    first = begun.load().agent["observations.count"]
    grown = begun.metrics()[0]["env_steps"]
    assert float(first) == 10 + grown


def test_observations_are_normalised_once():
    for options in ({**OPTION, **RUNNING}, {**RUNNING, "agent.policy.obs_scale": [1.0, 1.0]}):
        with pytest.raises(ConfigError, match=r"running-observations|obs-scale"):
            tiny(**options)
