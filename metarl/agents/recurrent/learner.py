"""PPO on the trials of an iteration.

n is the number of trials, L the number of steps of the longest trial.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.agents.base import Metrics
from metarl.agents.moments import Moments
from metarl.agents.recurrent.actor_critic import SequenceNetwork
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.ppo import PPOBatch, PPOConfig, ppo_loss, trial_advantages
from metarl.agents.recurrent.trials import Trials, shifted
from metarl.agents.vector_adam import VectorAdam, clipped, mean_norm
from metarl.core.devices import upload
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, flat_gradient, flatten, leaves, total, unflatten
from metarl.core.returns import explained_share, is_last
from metarl.core.timer import Timer

MAX_ROWS, FEW_ROWS = 40, 8
"""Number of sequences that a thread processes together on a CPU: at most, and in long sequences."""
ROW_STEPS = 16_000
"""Number of steps of all these sequences from which on there are fewer of them, for the memory."""

PLAIN_STEPS = 2_000
"""Number of steps that a thread of a CPU processes together in a network without a memory."""


def microbatches(rows: Tensor, steps: int) -> list[Tensor]:
    """Split rows into parts of similar size, each for one thread of a CPU.

    Wide matrix products are faster; two threads are faster than one. The parts do not depend on the
    number of threads, so that results do not either.

    Args:
        rows: indices of sequences.
        steps: number of steps of each sequence.
    """
    size = min(MAX_ROWS, max(FEW_ROWS, ROW_STEPS // steps))
    number = max(1, math.ceil(len(rows) / size), min(2, len(rows) // FEW_ROWS))
    return list(rows.tensor_split(number))


def reward_scale(
    moments: Moments | None, trials: Trials, config: PPOConfig
) -> tuple[Moments | None, float]:
    """Return the moments of returns with those of these trials, and the factor on rewards.

    Args:
        moments: the moments of discounted returns so far; None for a factor of 1.
        trials: the trials.
        config: the discount, and whether returns go on over the ends of episodes.
    """
    if moments is None:
        return None, 1.0
    returns = np.zeros(trials.reward.shape)
    carried = np.zeros(len(trials.reward))
    goes_on = np.full_like(trials.ends, True) if config.across_episodes else ~trials.ends
    for step in range(trials.reward.shape[1] - 1, -1, -1):
        carried = trials.reward[:, step] + config.discount * carried * goes_on[:, step]
        returns[:, step] = carried
    moments = moments.with_rows(returns[trials.mask][:, None])
    return moments, float(1 / moments.std[0])


def encode_trials(encoder: InputEncoder, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of all steps, (n, L, num_inputs), and those after the last step of each
    episode, with the observation that was not acted on, (n, L, num_inputs)."""
    encoded = encoder.encode_action(trials.action) * trials.mask[..., None]
    previous = shifted(encoded), trials.previous_reward, trials.begins_anew
    inputs = encoder(trials.obs, *previous)
    after = encoder(trials.last_obs, encoded, trials.reward, np.zeros_like(trials.mask))
    return inputs, after


class Learner:
    """Makes the batch of an iteration, and takes the gradient steps of PPO."""

    def __init__(
        self,
        network: SequenceNetwork,
        config: PPOConfig,
        device: torch.device,
        pool: MicrobatchPool,
    ) -> None:
        self._network, self._config, self._device, self._pool = network, config, device, pool

    def batch(
        self, params: Params, trials: Trials, inputs: np.ndarray, after: np.ndarray, scale: float
    ) -> tuple[PPOBatch, float]:
        """Return the batch of trials, in segments if back-propagation is truncated; and the
        explained variance of the values."""
        dtype = next(iter(params.values())).dtype

        def tensor(array: np.ndarray) -> Tensor:
            kind = None if array.dtype == bool else dtype
            return upload(array, self._device, kind, copy=True)

        x, beyond, action = tensor(inputs), tensor(after), tensor(trials.action)
        mask, ends = tensor(trials.mask), tensor(trials.ends)
        reward = scale * tensor(trials.reward)
        ends_return = is_last(mask) if self._config.across_episodes else ends
        bootstrap = ends_return & tensor(trials.bootstrap)
        start = x.new_zeros(len(x), self._network.memory_size)

        @torch.no_grad()
        def work(rows: Tensor) -> tuple[Tensor, ...]:
            found = self._network(params, x[rows], start[rows])
            last = torch.zeros_like(found.value)
            where = bootstrap[rows]
            if where.any():  # one step on from there, each in a trial of its own
                further = self._network(params, beyond[rows][where][:, None], found.memory[where])
                last[where] = further.value[:, 0]
            policy = found.policy
            return policy.outputs[0], policy.log_prob(action[rows]), found.value, last, found.memory

        rows = torch.arange(len(x), device=self._device)
        parts = self._pool.map(work, self._split(rows, x.shape[1]))
        outputs, log_prob, value, last_value, memory = map(torch.cat, zip(*parts, strict=True))
        advantage = trial_advantages(reward, value, last_value, ends, mask, self._config)
        target = value + advantage
        kept = advantage[mask]
        wanted = target[mask]
        explained = explained_share(
            kept.var(correction=0), wanted.var(correction=0), wanted.square().mean()
        )
        advantage = (advantage - kept.mean()) / (kept.std(correction=0) + 1e-8) * mask
        weight = mask.to(x)
        if trials.weight is not None:
            weight = weight * tensor(trials.weight)[:, None]
            # Of mean 1, so that a minibatch is divided by its steps, not by its share of the weight
            weight = weight * ((weight > 0).sum() / weight.sum())
        batch = PPOBatch(x, start, action, outputs, log_prob, advantage, target, weight)
        return self._segments(batch, memory), float(explained)

    def _segments(self, batch: PPOBatch, memory: Tensor) -> PPOBatch:
        """Return the trials cut into segments of `truncate` steps, each a row, trial by trial."""
        size, steps = self._config.truncate, batch.weight.shape[1]
        if not 0 < size < steps:
            return batch
        padding = -steps % size
        before = torch.cat([batch.memory[:, None], memory[:, size - 1 : -1 : size]], 1)

        def cut(x: Tensor) -> Tensor:
            padded = F.pad(x.movedim(1, -1), (0, padding)).movedim(-1, 1)
            return padded.unflatten(1, (-1, size)).flatten(0, 1)

        tensors = {name: cut(x) for name, x in batch.tensors.items() if name != "memory"}
        return PPOBatch(**tensors, memory=before.flatten(0, 1), segments=before.shape[1])

    def _split(self, rows: Tensor, steps: int) -> list[Tensor]:
        if self._device.type != "cpu":
            return [rows]
        if not self._network.memory_size:
            return list(rows.split(max(1, PLAIN_STEPS // steps)))
        return microbatches(rows, steps)

    def learn(
        self,
        params: Params,
        batch: PPOBatch,
        adam: VectorAdam,
        num_updates: int,
        rng: np.random.Generator,
        timer: Timer,
    ) -> tuple[Params, Metrics]:
        """Return the parameters after all epochs, and diagnostics.

        Args:
            params: the parameters.
            batch: the trials.
            adam: the optimiser, whose state changes.
            num_updates: number of updates before this one, for annealed settings.
            rng: draws the minibatches.
            timer: measures the sections.

        Raises:
            NotFinite: if the gradient of the loss is not finite.
        """
        config, vector = self._config.annealed(num_updates), flatten(params)
        num_trials = len(batch.weight) // batch.segments
        terms, norms = [], []
        with timer("policy gradient"):
            for _ in range(config.epochs):
                order = upload(rng.permutation(num_trials), self._device)
                for trials in order.tensor_split(min(config.minibatches, num_trials)):
                    rows = batch.rows_of(trials)
                    found, gradient = self._gradient(unflatten(vector, params), batch, rows, config)
                    gradient, norm = clipped(gradient, config.max_gradient_norm)
                    vector = adam.step(vector, gradient, config.lr)
                    terms.append(found)
                    norms.append(norm)
        gradient_norm = mean_norm(norms, "the gradient of the loss")
        new = unflatten(vector, params)
        with timer("evaluation"):
            kl, entropy = self._kl_and_entropy(params, new, batch)
        _, policy_loss, value_loss = torch.stack(terms).mean(0).tolist()
        return new, {
            "outer_kl": kl,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "gradient_norm": gradient_norm,
            "lr": config.lr,
        }

    def _gradient(
        self, params: Params, batch: PPOBatch, rows: Tensor, config: PPOConfig
    ) -> tuple[Tensor, Tensor]:
        """Return the terms of the loss on some rows, (3,), and its gradient, (P,)."""
        count = (batch.weight[rows] > 0).sum()

        def work(rows: Tensor) -> tuple[Tensor, Tensor]:
            start, part = leaves(params), batch.rows(rows)
            predictions = self._network(start, part.inputs, part.memory)
            terms = ppo_loss(predictions, part, config) / count
            return terms.detach(), flat_gradient(terms[0], start)

        parts = self._pool.map(work, self._split(rows, batch.weight.shape[1]))
        return total([terms for terms, _ in parts]), total([gradient for _, gradient in parts])

    def _kl_and_entropy(self, old: Params, new: Params, batch: PPOBatch) -> tuple[float, float]:
        """Return the mean KL(old || new) and the mean entropy of `new`, both in nats."""

        @torch.no_grad()
        def work(rows: Tensor) -> Tensor:
            part = batch.rows(rows)
            before = self._network.distribution(old, part.outputs)
            after = self._network(new, part.inputs, part.memory).policy
            entropy = after.entropy().expand_as(part.weight)
            return (torch.stack([before.kl(after), entropy]) * part.weight).sum((1, 2))

        rows = torch.arange(len(batch.weight), device=self._device)
        sums = total(self._pool.map(work, self._split(rows, batch.weight.shape[1])))
        kl, entropy = (sums / batch.weight.sum()).tolist()
        return kl, entropy
