"""metarl.agents.varibad: acting, adapting and learning of the whole agent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.optional import beliefs
from metarl.agents.recurrent.learner import encode_trials
from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.core.errors import ConfigError
from metarl.core.params import flatten
from metarl.core.timer import Timer
from metarl.envs import PointNav, TabularMDP
from metarl.rollout.failures import NotFinite
from tests.agents.playing import play

AGENT = {
    "kind": "varibad",
    "encoder": {"size": 6, "latent": 2},
    "policy": {"hidden": [5]},
    "update": {"epochs": 2, "minibatches": 2},
    "model": {"trials": 5, "buffer": 12},
}
FAMILIES = {
    "point": PointNav(horizon=5, action_scale=1.0, ends_at_goal=False),
    "mdp": TabularMDP(horizon=4, num_states=3, num_actions=3),
}


def make(family, **policy) -> Config:
    sampling = {"num_tasks": 4, "num_episodes": 2, "adaptation_steps": 2}
    agent = {**AGENT, "policy": {**AGENT["policy"], **policy}}
    return Config(env=FAMILIES[family], agent=agent, sampling=sampling, threads=1)


@pytest.fixture(params=FAMILIES)
def config(request) -> Config:
    return make(request.param)


def learn(config: Config, agent, iterations=2):
    for iteration in range(iterations):
        rollouts = play(config, agent, iteration=iteration)
        agent.record(iteration + 1, [episodes for _, episodes in rollouts])
        metrics = agent.update(rollouts, np.random.default_rng(iteration), Timer())
    return agent, metrics


@pytest.mark.parametrize("hypernetwork", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_acting_is_the_learners_encoder_and_policy(family, hypernetwork):
    """NumPy, step by step over the episodes of a trial, and torch on whole trials."""
    config = make(family, hypernetwork=hypernetwork)
    agent, metrics = learn(config, config.make_agent())
    assert {"model_loss", "belief_kl", "reward_error", "outer_kl"} <= metrics.keys()
    rollouts = play(config, agent, iteration=7)
    trials = join_episodes([episodes for _, episodes in rollouts])
    inputs, _ = encode_trials(agent.encoder, trials)
    mean, log_var = agent.belief_encoder(agent.model_params, torch.from_numpy(inputs))
    found = [beliefs(agent, rollout) for rollout in rollouts]
    for name, wanted in (("mean", mean), ("std", (0.5 * log_var).exp())):
        # Trial by trial, the episodes one after the other
        each = np.concatenate([getattr(one, name) for one in found], axis=2).reshape(8, -1, 2)
        np.testing.assert_allclose(wanted.detach(), each, atol=1e-6)
    features = torch.cat([torch.from_numpy(inputs[..., : agent._obs_dim]), mean, log_var], -1)
    for_ppo, after = agent._ppo_inputs(trials)
    np.testing.assert_allclose(for_ppo, features.detach(), atol=1e-6)
    assert (after[~trials.ends] == 0).all()
    assert (after[trials.ends] != 0).any(axis=-1).all()
    # The third episode's first action, without noise
    actor = agent.actor(rollouts[-1].state, deterministic=True)
    obs = rollouts[-1].episodes.obs[:, :, 0]
    action = actor.act(obs, np.float32(9.0), np.zeros((4, 2)), np.ones((4, 2), bool))
    first = np.argwhere(trials.begins_anew)[1, 1]
    policy, _ = agent._head(agent.params, features[:, first][None].float())
    outputs = policy.outputs[0][:, 0].detach().numpy()
    expected = outputs.argmax(-1)[:, None] if config.env.name == "tabular_mdp" else outputs
    np.testing.assert_allclose(action.reshape(8, -1), expected, atol=1e-5)


def test_the_belief_is_carried_over_episodes_and_begins_anew_with_a_trial(config):
    agent, _ = learn(config, config.make_agent())
    rollouts = play(config, agent)
    before, after = rollouts[0].state, rollouts[-1].state
    assert (before.memory == 0).all()
    np.testing.assert_array_equal(after.memory, rollouts[-2].episodes.memory)
    assert (agent.initial_state(4).memory == 0).all()


def test_the_step_size_of_the_model_goes_to_zero():
    def models(iterations, **model):
        agent = {**AGENT, "model": {**AGENT["model"], **model}}
        sampling = {"num_tasks": 4, "num_episodes": 2, "adaptation_steps": 2}
        config = Config(env=FAMILIES["mdp"], agent=agent, sampling=sampling, threads=1)
        return flatten(learn(config, config.make_agent(), iterations)[0].model_params)

    assert torch.equal(models(1, lr_anneal=2), models(1))
    assert not torch.equal(models(2, lr_anneal=2), models(2))
    assert not torch.equal(models(2, lr_anneal=2), models(1))
    # From the third update on it is 0
    assert torch.equal(models(3, lr_anneal=2), models(2, lr_anneal=2))


def test_an_agent_of_a_checkpoint_and_the_log_learns_the_same_bits(config):
    """After three iterations of 8 trials, a buffer of 12 has gone round."""
    whole, _ = learn(config, config.make_agent(), 3)
    phases = [
        [episodes for _, episodes in play(config, whole, iteration=number)]
        for number in range(3, 6)
    ]
    resumed = config.make_agent(whole.state_dict())
    fresh = config.make_agent(whole.state_dict())
    for agent, first in ((whole, 0), (resumed, 1), (fresh, 2)):
        oldest = [agent.record(4 + number, phases[number]) for number in range(first, 3)]
    assert oldest[-1] == 6  # of `fresh`, which has the last 8 trials only
    rollouts = play(config, whole, iteration=9)
    found = []
    for agent in (whole, resumed, fresh):
        agent.update(rollouts, np.random.default_rng(0), Timer())
        found.append(agent.state_dict())
    for name, value in found[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(found[1][name])), name
    assert not all(torch.equal(found[0][n], found[2][n]) for n in found[0] if n.startswith("model"))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["model", "policy"])
def test_a_number_that_is_not_finite_leaves_the_agent_as_it_was(config, where, threads):
    """Also where the other of the two has already been updated."""
    agent, _ = learn(config, config.replace(threads=threads).make_agent())
    rollouts = play(config, agent)
    broken = agent.state_dict()
    name = "model.belief.bias" if where == "model" else "params.policy.bias1"
    broken[name][:] = np.nan
    agent.load_state_dict(broken)
    with pytest.raises(NotFinite):
        agent.update(rollouts, np.random.default_rng(0), Timer())
    for key, value in agent.state_dict().items():
        assert np.array_equal(value, broken[key], equal_nan=True), key


def test_threads_do_not_change_the_agent(config):
    """Model and policy are updated side by side where there are several."""
    one, two = (learn(config, config.replace(threads=n).make_agent()) for n in (1, 2))
    assert one[1] == two[1]
    for key, value in one[0].state_dict().items():
        assert np.array_equal(value, two[0].state_dict()[key]), key


def test_trials_with_a_failed_episode_are_not_kept(config):
    agent = config.make_agent()
    phases = [episodes for _, episodes in play(config, agent)]
    for name, array in phases[1].arrays.items():
        if name not in ("tasks", "task_ids", "memory"):
            array[0, 0] = 0
    assert agent.record(1, phases) == 1
    assert len(agent._buffer) == 7


def test_without_trials_there_is_no_update(config):
    agent = config.make_agent()
    with pytest.raises(NotFinite, match="no trials"):
        agent.update(play(config, agent), np.random.default_rng(0), Timer())


@pytest.mark.parametrize(("part", "key"), [("encoder", "size"), ("policy", "hidden")])
def test_networks_that_are_too_large_are_refused_by_the_key_of_the_largest(config, part, key):
    sizes = {"size": 4000, "hidden": (4000, 4000)}
    agent = {**AGENT, part: {**AGENT.get(part, {}), key: sizes[key]}}
    expected = (
        rf"^agent\.{part}\.{key}: expected layers of at most 10,000,000 weights together, got"
    )
    with pytest.raises(ConfigError, match=expected):
        config.replace(agent=agent).make_agent()


def test_a_policy_without_a_memory_has_no_propagation_to_truncate(config):
    update = {**AGENT["update"], "truncate": 3}
    expected = r"update\.truncate: expected 0, as the policy of varibad has no memory, got 3$"
    with pytest.raises(ConfigError, match=expected):
        config.replace(agent={**AGENT, "update": update})
