"""Returns on `tabular_mdp`: posterior sampling, by simulation, and an oracle that knows the MDP."""

from __future__ import annotations

import numpy as np

from metarl.envs.tabular import TabularMDP

NO_NOISE = 1e-12  # variance of rewards without noise; posterior means are exact to this much


def oracle(family: TabularMDP, tasks: np.ndarray) -> np.ndarray:
    """Return the expected return of an optimal episode, (N,), on each of N tasks, (N, task_dim)."""
    return plan(*family.tables(tasks), family.horizon)[1]


def posterior_sampling(
    family: TabularMDP,
    num_episodes: int,
    num_tasks: int,
    seed: int = 0,
    *,
    prior_mean: float = 1.0,
) -> np.ndarray:
    """Play PSRL (Strens 2000, Osband et al. 2013) on each of `num_tasks` random tasks.

    At the beginning of each episode the agent draws an MDP from its posterior, and follows the
    optimal policy of that MDP to the end of the episode. The prior is the family's distribution:
    normal mean rewards, around `prior_mean` and with variance 1, seen through noise of
    `reward_std`, and next states from Dirichlet(1, ..., 1). The family's mean is 1. RL2's authors
    left the prior at 0, the default of the implementation they took (TabulaRL), which explores less
    and so has a higher return over few episodes.

    Returns:
        The undiscounted returns, (num_tasks, num_episodes); they depend on the seed only.
    """
    rng = np.random.default_rng(seed)
    tasks, env = family.sample_tasks(rng, num_tasks), family.make_batch(num_tasks)
    shape = (num_tasks, family.num_states, family.num_actions)
    counts, reward_sums = np.zeros((2, *shape))
    next_counts = np.zeros((*shape, family.num_states))
    everyone = np.arange(num_tasks)
    returns = np.zeros((num_tasks, num_episodes))
    for episode in range(num_episodes):
        sampled = (
            sample_rewards(rng, counts, reward_sums, prior_mean, family.reward_std),
            sample_transitions(rng, next_counts),
        )
        policy, _ = plan(*sampled, family.horizon)
        state = env.reset(tasks, rng.spawn(num_tasks)).argmax(axis=1)
        for step in range(family.horizon):
            action = policy[everyone, step, state]
            obs, reward, _ = env.step(action[:, None])
            here, state = (everyone, state, action), obs.argmax(axis=1)
            counts[here] += 1
            reward_sums[here] += reward
            next_counts[(*here, state)] += 1
            returns[:, episode] += reward
    return returns


def sample_rewards(
    rng: np.random.Generator,
    counts: np.ndarray,
    reward_sums: np.ndarray,
    prior_mean: float,
    reward_std: float,
) -> np.ndarray:
    """Draw mean rewards from their posteriors, (N, S, A).

    Args:
        rng: the generator to draw from.
        counts: how often each action was taken in each state, (N, S, A).
        reward_sums: the sum of the rewards there, (N, S, A).
        prior_mean: mean of the normal prior, whose variance is 1.
        reward_std: standard deviation of the noise on each reward.
    """
    noise = max(reward_std**2, NO_NOISE)
    mean = (noise * prior_mean + reward_sums) / (noise + counts)
    return rng.normal(mean, np.sqrt(noise / (noise + counts)))


def sample_transitions(rng: np.random.Generator, next_counts: np.ndarray) -> np.ndarray:
    """Draw probabilities of the next state, (N, S, A, S), given how often each has followed."""
    gammas = rng.standard_gamma(1 + next_counts)
    return gammas / gammas.sum(axis=-1, keepdims=True)


def plan(
    rewards: np.ndarray, transitions: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return optimal policies of N MDPs for a finite horizon, by dynamic programming.

    Args:
        rewards: mean rewards, (N, S, A).
        transitions: probabilities of the next state, (N, S, A, S).
        horizon: number of steps of an episode, which begins in state 0.

    Returns:
        The action at each step in each state, (N, horizon, S), and the expected return, (N,).
    """
    value = np.zeros(rewards.shape[:2])
    policy = np.zeros((len(rewards), horizon, rewards.shape[1]), np.int64)
    for step in reversed(range(horizon)):
        action_value = rewards + np.einsum("nsat,nt->nsa", transitions, value)
        policy[:, step] = action_value.argmax(axis=-1)
        value = action_value.max(axis=-1)
    return policy, value[:, 0]
