"""What PPO learns from, against a loop over the steps of each trial, for agents with a memory.

The episodes of a trial have different lengths and end in all ways: by a terminal state, cut off by
a time limit, or cut off before it; and one trial has an episode that failed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.core.timer import Timer
from metarl.envs import PointNav, TabularMDP
from metarl.rollout.episodes import Episodes
from tests.agents.playing import play

CONTINUOUS = PointNav(horizon=6, action_scale=1.0, ends_at_goal=False)
DISCRETE = TabularMDP(horizon=6, num_states=3, num_actions=3)
SCALE = 0.7  # of rewards


def cut(episodes: Episodes, rng: np.random.Generator) -> Episodes:
    """The episodes shortened at random; about half of their returns go on. One is left out."""
    length = rng.integers(1, episodes.mask.shape[2] + 1, episodes.mask.shape[:2])
    length[0, 0] = 0
    mask = np.arange(episodes.mask.shape[2]) < length[..., None]
    obs = np.concatenate([episodes.obs, episodes.last_obs[:, :, None]], axis=2)
    last_obs = np.take_along_axis(obs, length[..., None, None], axis=2)[:, :, 0]
    kept = {
        name: np.where(mask.reshape(*mask.shape, *[1] * (array.ndim - 3)), array, 0)
        for name, array in episodes.arrays.items()
        if name in ("obs", "action", "reward")
    }
    bootstrap = (rng.random(length.shape) < 0.5) & (length > 0)
    return replace(episodes, mask=mask, last_obs=last_obs, bootstrap=bootstrap, **kept)


def steps_of(agent, phases: list[Episodes], row: tuple[int, int]) -> np.ndarray:
    """For each step of a trial: reward, value, log probability of the action, whether it is the
    last one of its episode, and the value of the state after it if its return goes on, else 0."""
    arrays, encoder, memory = agent._acting_arrays(), agent.encoder, agent._memory
    params = {name: torch.from_numpy(value) for name, value in arrays.items()}
    state = np.zeros((1, memory.size), np.float32)
    action, reward = np.zeros((1, agent._head.num_outputs), np.float32), np.zeros(1, np.float32)

    def see(obs: np.ndarray, anew: bool, state: np.ndarray):
        inputs = encoder(obs[None], action, reward, np.array([anew]))
        state = memory.step(arrays, inputs, state)
        features = agent._features(arrays, inputs, state[:, : memory.output_size])
        return state, *agent._head(params, torch.from_numpy(features)[None])

    found = []
    for number, phase in enumerate(phases):
        length = phase.mask[row].sum()
        for step in range(length):
            state, policy, value = see(phase.obs[row][step], number > 0 and step == 0, state)
            chosen = phase.action[row][step][None]
            log_prob = policy.log_prob(torch.from_numpy(chosen)[None])
            action, reward = encoder.encode_action(chosen), phase.reward[row][step][None]
            last, after = step == length - 1, 0.0
            if last and phase.bootstrap[row]:
                after = see(phase.last_obs[row], False, state)[2].item()
            found.append((SCALE * reward[0], value.item(), log_prob.item(), last, after))
    return np.array(found)


def advantages_of(steps: np.ndarray, update) -> np.ndarray:
    """The sums of Schulman et al. 2016, equation 16, term by term."""
    reward, value, _, last, after = steps.T
    found = np.zeros(len(steps))
    for first in range(len(steps)):
        weight = 1.0
        for step in range(first, len(steps)):
            ends = step == len(steps) - 1 or (last[step] and not update.across_episodes)
            following = after[step] if ends else value[step + 1]
            found[first] += weight * (reward[step] + update.discount * following - value[step])
            weight *= update.discount * update.gae_lambda
            if ends:
                break
    return found


def agent_of(kind: str, cell: str, head: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    memory, head = {"size": 4, "cell": cell}, {"hidden": [3], **head}
    if kind == "rl2":
        return {"kind": kind, "network": {**memory, **head}, "update": update}
    update = {**update, "truncate": 0}  # as its policy has no memory
    return {"kind": kind, "encoder": {**memory, "latent": 2}, "policy": head, "update": update}


@pytest.mark.parametrize("kind", ["rl2", "varibad"])
@pytest.mark.parametrize(
    ("family", "cell", "head", "update"),
    [
        (CONTINUOUS, "gru", {}, {}),
        (CONTINUOUS, "lstm", {"action_bound": "tanh"}, {"across_episodes": False}),
        (CONTINUOUS, "gru", {"hypernetwork": True}, {"gae_lambda": 1.0, "truncate": 5}),
        (DISCRETE, "lstm", {"hypernetwork": True}, {"discount": 1.0, "truncate": 4}),
        (DISCRETE, "gru", {}, {"across_episodes": False, "truncate": 1}),
    ],
)
def test_what_is_learned_from_is_that_of_a_loop(kind, family, cell, head, update):
    """Log probabilities, targets, standardised advantages; and the memories of segments."""
    agent_settings = agent_of(kind, cell, head, update)
    sampling = {"num_tasks": 4, "num_episodes": 2, "adaptation_steps": 2}
    config = Config(env=family, agent=agent_settings, sampling=sampling, threads=1)
    agent, rng = config.make_agent(), np.random.default_rng(0)
    for iteration in range(2):  # so that there are moments of observations and rewards
        phases = [cut(each.episodes, rng) for each in play(config, agent, iteration=iteration)]
        rollouts = [(None, episodes) for episodes in phases]
        if iteration == 0:
            if kind == "varibad":
                agent.record(1, phases)
            agent.update(rollouts, rng, Timer())
    trials = join_episodes(phases)
    batch, _ = agent._learner.batch(agent.params, trials, *agent._ppo_inputs(trials), SCALE)

    whole = np.logical_and.reduce([phase.episode_mask for phase in phases])
    assert not whole[0, 0]
    steps = [steps_of(agent, phases, (task, trial)) for task, trial in np.argwhere(whole)]
    assert len({len(each) for each in steps}) > 2, "trials of different lengths"
    advantages = [advantages_of(each, config.agent.update) for each in steps]
    every = np.concatenate(advantages)
    rows = {name: x.detach().reshape(len(steps), -1) for name, x in batch.tensors.items()}
    for row, (own, advantage) in enumerate(zip(steps, advantages, strict=True)):
        length = len(own)
        assert rows["weight"][row].count_nonzero() == rows["weight"][row][:length].sum() == length
        expected = {
            "target": advantage + own[:, 1],
            "log_prob": own[:, 2],
            "advantage": (advantage - every.mean()) / every.std(),
        }
        for name, values in expected.items():
            found = rows[name][row][:length]
            np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-4, err_msg=name)
    # Segments go on from the memories of their trials, so that all ratios are 1.
    again = agent.network(agent.params, batch.inputs, batch.memory).policy.log_prob(batch.action)
    taken = batch.weight > 0
    torch.testing.assert_close(again[taken], batch.log_prob[taken], rtol=1e-4, atol=1e-5)
