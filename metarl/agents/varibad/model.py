"""The model of the tasks: encoder and decoders, trained by the evidence lower bound (ELBO) on
trials from a buffer (Zintgraf et al. 2020, equation 8).

m is the number of trials, S the number of steps of each at which the bound is taken, L the number
of steps of the longest trial, d the size of the latent variable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.annealing import remaining
from metarl.agents.base import Metrics
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.learner import encode_trials
from metarl.agents.recurrent.trials import Trials
from metarl.agents.varibad.belief import BeliefEncoder
from metarl.agents.varibad.decoders import Decoders, Steps
from metarl.agents.varibad.replay import TrialBuffer
from metarl.agents.vector_adam import VectorAdam, clipped, mean_norm
from metarl.core.devices import upload
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, flat_gradient, flatten, leaves, total, unflatten
from metarl.core.schema import Count, NotNegative, Positive, Section

ROWS = 16  # trials that a thread processes together on a CPU, at most


class ModelConfig(Section):
    """The training of encoder and decoders."""

    lr: Positive = 1e-3
    """Step size of Adam."""
    lr_anneal: Annotated[int, Field(ge=0)] = 0
    """Number of updates over which the step size goes linearly to 0; 0 for a constant one."""
    updates: Count = 3
    """Gradient steps of an iteration."""
    trials: Count = 25
    """Trials of a gradient step."""
    buffer: Count = 1000
    """The last trials that are kept and learned from."""
    bounds: Annotated[int, Field(ge=0)] = 0
    """Steps of each trial, drawn at random, at which the bound is taken; 0 for all."""
    decoded: Annotated[int, Field(ge=0)] = 0
    """Steps of each trial, drawn at random, that a sample of the belief must predict, in place of
    all; 0 for all. Fewer take less time and estimate the same bound."""
    kl_weight: NotNegative = 0.1
    """Weight of the KL divergence of each belief from the one before."""
    max_gradient_norm: Positive = 1.0
    """Norm to which larger gradients are scaled down."""


def belief_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the KL divergence of each belief of a trial from the one before, in nats, (m, L). The
    first is from N(0, I).

    Args:
        mean, log_var: of the beliefs, (m, L, d).
    """
    zero = torch.zeros_like(mean[:, :1])
    before, log_var_before = (torch.cat([zero, x[:, :-1]], 1) for x in (mean, log_var))
    ratio = (log_var - log_var_before).exp()
    distance = (mean - before).square() / log_var_before.exp()
    return 0.5 * (ratio + distance - 1 - log_var + log_var_before).sum(-1)


@dataclass(frozen=True)
class Minibatch:
    """Trials of a gradient step, and what is drawn at random of them.

    Attributes:
        trials: m trials.
        bounds: the steps of each at which the bound is taken, (m, S).
        decoded: the steps of each that a sample of the belief must predict, (m, number); None for
            all.
        noise: standard normal, (m, S, d).
    """

    trials: Trials
    bounds: np.ndarray
    decoded: np.ndarray | None
    noise: np.ndarray


class Model:
    """Takes gradient steps on the parameters of encoder and decoders."""

    def __init__(
        self,
        encoder: BeliefEncoder,
        decoders: Decoders,
        config: ModelConfig,
        device: torch.device,
        num_threads: int,
    ) -> None:
        self._encoder, self._decoders, self._config = encoder, decoders, config
        self._device = device
        self._pool = MicrobatchPool(num_threads if device.type == "cpu" else 1)

    def draw(self, buffer: TrialBuffer, rng: np.random.Generator) -> list[Minibatch]:
        """Draw what the gradient steps of an iteration need, from the trials of a buffer."""
        return [
            self._draw(buffer.sample(rng, self._config.trials), rng)
            for _ in range(self._config.updates)
        ]

    def _draw(self, trials: Trials, rng: np.random.Generator) -> Minibatch:
        lengths = trials.mask.sum(axis=1)  # (m,)

        def drawn(number: int) -> np.ndarray:
            """Steps of each trial that took place, (m, number)."""
            return (rng.random((len(lengths), number)) * lengths[:, None]).astype(int)

        config = self._config
        bounds = drawn(config.bounds) if config.bounds else np.indices(trials.mask.shape)[1]
        decoded = drawn(config.decoded) if config.decoded else None
        noise = rng.standard_normal((*bounds.shape, self._encoder.latent), dtype=np.float32)
        return Minibatch(trials, bounds, decoded, noise)

    def learn(
        self,
        params: Params,
        adam: VectorAdam,
        minibatches: Sequence[Minibatch],
        inputs: InputEncoder,
        num_updates: int,
    ) -> tuple[Params, Metrics]:
        """Return the parameters after the gradient steps of an iteration, and diagnostics.

        Args:
            params: the parameters.
            adam: the optimiser, whose state changes.
            minibatches: of each gradient step.
            inputs: makes the inputs of the encoder.
            num_updates: number of iterations before this one, for an annealed step size.

        Raises:
            NotFinite: if the gradient is not finite.
        """
        config, vector = self._config, flatten(params)
        found, norms = [], []
        lr = config.lr * remaining(num_updates, config.lr_anneal)
        for minibatch in minibatches:
            terms, gradient = self._gradient(unflatten(vector, params), minibatch, inputs)
            gradient, norm = clipped(gradient, config.max_gradient_norm)
            vector = adam.step(vector, gradient, lr)
            found.append(terms)
            norms.append(norm)
        mean_norm(norms, "the gradient of the model of the tasks")
        names = "model_loss", "belief_kl", *(f"{name}_error" for name in self._decoders.used)
        means = torch.stack(found).mean(0).tolist()
        return unflatten(vector, params), dict(zip(names, means, strict=True))

    def _gradient(
        self, params: Params, minibatch: Minibatch, inputs: InputEncoder
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its terms as `_loss`, and its gradient, (P,). They are per step of a
        trial, but for the KL divergence, which is per trial, as it is that of one step."""
        dtype = next(iter(params.values())).dtype

        def tensor(array: np.ndarray) -> Tensor:
            return upload(array, self._device, dtype, copy=True)

        trials, at = minibatch.trials, minibatch.bounds
        encoded, _ = encode_trials(inputs, trials)
        x, steps = tensor(encoded), self.steps(trials, inputs, tensor)
        if minibatch.decoded is not None:
            steps = steps.at(tensor_of(minibatch.decoded, self._device))
        lengths = trials.mask.sum(axis=1)  # (m,)
        chosen, used = tensor_of(at, self._device), tensor(at < lengths[:, None])
        noise = tensor(minibatch.noise)
        number = float(lengths.sum())

        def work(rows: Tensor) -> tuple[Tensor, Tensor]:
            start = leaves(params)
            terms = self._loss(
                start, x[rows], steps.rows(rows), chosen[rows], used[rows], noise[rows]
            )
            terms = terms / number
            return terms.detach(), flat_gradient(terms[0], start)

        rows = torch.arange(len(x), device=self._device)
        parts = self._pool.map(
            work, rows.tensor_split(math.ceil(len(x) / ROWS) if self._device.type == "cpu" else 1)
        )
        terms, gradient = (total(list(each)) for each in zip(*parts, strict=True))
        terms[1] *= number / len(x)
        return terms, gradient

    @staticmethod
    def steps(
        trials: Trials, inputs: InputEncoder, tensor: Callable[[np.ndarray], Tensor]
    ) -> Steps:
        """Return the steps of trials as the decoders see them, normalised as in the inputs."""
        obs, following = trials.obs, trials.next_obs
        if inputs.obs is not None:
            obs, following = inputs.obs.normalise(obs), inputs.obs.normalise(following)
        reward = trials.reward[..., None]
        if inputs.reward is not None:
            reward = inputs.reward.normalise(reward, shift=False)
        return Steps(
            obs=tensor(obs),
            next_obs=tensor(following),
            action=tensor(inputs.encode_action(trials.action)),
            reward=tensor(reward[..., 0]),
            positive=tensor(trials.reward > 0),
            mask=tensor(trials.mask),
            task=tensor(trials.task),
        )

    def _loss(
        self, params: Params, x: Tensor, steps: Steps, at: Tensor, used: Tensor, noise: Tensor
    ) -> Tensor:
        """Return the loss, summed over trials, and its terms without their weights: the KL
        divergence and the errors of the decoders in use, (2 + number of these,).

        Args:
            params: the parameters.
            x: inputs of the encoder, (m, L, num_inputs).
            steps: the steps.
            at: the steps at which the bound is taken, (m, S).
            used: 1 for those that took place, else 0, (m, S).
            noise: standard normal, (m, S, d).
        """
        mean, log_var = self._encoder(params, x)
        kl = belief_kl(mean, log_var).gather(1, at)
        where = at[..., None].expand(-1, -1, self._encoder.latent)
        mean, log_var = mean.gather(1, where), log_var.gather(1, where)
        latent = mean + (0.5 * log_var).exp() * noise
        errors = self._decoders.errors(params, latent, steps)
        # The mean over the steps of the bound, per trial
        weight = used / used.sum(1, keepdim=True)
        kl = (kl * weight).sum()
        parts = [(errors[name] * weight).sum() for name in self._decoders.used]
        weighted = [each * w for each, w in zip(parts, self._decoders.used.values(), strict=True)]
        loss = self._config.kl_weight * kl + total(weighted)
        return torch.stack([loss, kl, *parts])


def tensor_of(indices: np.ndarray, device: torch.device) -> Tensor:
    """Return indices as a tensor."""
    return upload(np.ascontiguousarray(indices), device, torch.int64)
