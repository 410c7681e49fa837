"""The gradient steps of PEARL (Rakelly et al. 2019, algorithm 1).

M is the number of tasks of a gradient step, b the number of transitions of each, N the number of
transitions of a context, Z the size of the latent variable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.agents.pearl.encoder_loss import halves, metric_loss
from metarl.agents.pearl.networks import CRITICS, Networks, select
from metarl.agents.pearl.posterior import kl_to_prior, product, sample
from metarl.agents.pearl.replay import Replay
from metarl.agents.pearl.sac import SAC, Transitions
from metarl.agents.pearl.update_config import UpdateConfig
from metarl.agents.vector_adam import VectorAdam
from metarl.core.devices import upload
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, as_views, flat_gradient, flatten, leaves, total, unflatten
from metarl.core.timer import Timer
from metarl.rollout.failures import NotFinite, check_metrics

BY_CRITIC = (*CRITICS, "encoder")
"""The networks of the step of the critics."""
MIN_ROWS = 512  # transitions of a microbatch, if there are two
GRADIENTS = {
    "critic_gradient_norm": "the gradient of the critics' loss",
    "policy_gradient_norm": "the gradient of the policy's loss",
}
"""Gradients that have to be finite, by the name of the diagnostic."""


@dataclass(frozen=True)
class Learned:
    """All that gradient steps change, except for the states of the optimisers.

    Attributes:
        params: parameters of critics, encoder and policy.
        target: parameters of the target critics.
        log_temperature: (1,).
    """

    params: Params
    target: Params
    log_temperature: Tensor


@dataclass(frozen=True)
class StepData:
    """All that a gradient step draws, with M rows each.

    Attributes:
        batch: b transitions of each task.
        context: contexts, (M, N, context_dim).
        latent_noise: standard normal, (M, Z).
        target_noise, policy_noise: standard normal, (M, b, A).
    """

    batch: Transitions
    context: Tensor
    latent_noise: Tensor
    target_noise: Tensor
    policy_noise: Tensor

    def tasks(self, start: int, stop: int) -> StepData:
        """Return the data of the tasks `start`, ..., `stop` - 1."""
        tensors = {name: value for name, value in vars(self).items() if name != "batch"}
        parts = {name: value[start:stop] for name, value in tensors.items()}
        return StepData(self.batch.tasks(start, stop), **parts)


def as_stepped(params: Params) -> Params:
    """Return a copy of the parameters that lies as gradient steps leave them: as views of a vector
    for each of two optimisers; see `metarl.core.params.as_views`."""
    copies = as_views(select(params, *BY_CRITIC)) | as_views(select(params, "policy"))
    return {name: copies[name] for name in params}


class Optimisers:
    """Adam for critics and encoder, for the policy, and for the temperature."""

    def __init__(self, learned: Learned, lr: float) -> None:
        self.critic = VectorAdam(flatten(select(learned.params, *BY_CRITIC)), lr)
        self.policy = VectorAdam(flatten(select(learned.params, "policy")), lr)
        self.temperature = VectorAdam(learned.log_temperature, lr)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all states."""
        return {
            f"{name}.{key}": value
            for name, adam in vars(self).items()
            for key, value in adam.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        for name, adam in vars(self).items():
            adam.load_state_dict({key: state[f"{name}.{key}"] for key in adam.state_dict()})


class Learner:
    """Takes gradient steps on transitions of the replay buffer."""

    def __init__(
        self, networks: Networks, config: UpdateConfig, device: torch.device, num_threads: int
    ) -> None:
        self._networks, self._config, self._device = networks, config, device
        self._sac = SAC(networks, config.discount, config.reward_scale)
        self._pool = MicrobatchPool(num_threads if device.type == "cpu" else 1)

    def draw(self, replay: Replay, rng: np.random.Generator, dtype: torch.dtype) -> StepData:
        """Draw the data of a gradient step."""
        config, known = self._config, replay.tasks
        number = min(config.meta_batch, len(known))
        tasks = [known[i] for i in rng.choice(len(known), number, replace=False)]
        rows = replay.draw(tasks, config.batch, rng)
        draws = {"prior": replay.draw_prior, "trial": replay.draw_trial, "all": replay.draw}
        context = draws[config.context_from](tasks, config.context, rng)[
            ..., : self._networks.context_dim
        ]
        action_dim = self._networks.action_dim
        noise = [
            rng.standard_normal(shape, dtype=np.float32)
            for shape in (
                (number, self._networks.config.latent_dim),
                (number, config.batch, action_dim),
                (number, config.batch, action_dim),
            )
        ]
        rows, context, *noise = (
            upload(array, self._device, dtype) for array in (rows, context, *noise)
        )
        batch = Transitions.from_rows(rows, self._networks.obs_dim, action_dim)
        return StepData(batch, context, *noise)

    def learn(
        self,
        learned: Learned,
        optimisers: Optimisers,
        replay: Replay,
        rng: np.random.Generator,
        timer: Timer,
    ) -> tuple[Learned, dict[str, float]]:
        """Return what is learned after all gradient steps, and diagnostics averaged over them.

        Args:
            learned: parameters and temperature.
            optimisers: the optimisers, whose states change.
            replay: the replay buffer, with at least one task.
            rng: draws the data.
            timer: measures the sections.

        Raises:
            NotFinite: if a gradient or a diagnostic is not finite.
        """
        dtype = learned.log_temperature.dtype
        found: list[dict[str, Tensor]] = []
        for _ in range(self._config.gradient_steps):
            with timer("replay"):
                data = self.draw(replay, rng, dtype)
            with timer("critic gradient"):
                learned, z, terms = self.critic_step(learned, optimisers, data)
            with timer("policy gradient"):
                learned, more = self.policy_step(learned, optimisers, data, z)
            found.append({**terms, **more})
        # All at once, after all steps: the CPU would wait for a GPU at each number.
        series = ([terms[name] for terms in found] for name in found[0])
        values = torch.stack([torch.stack(each).mean() for each in series]).tolist()
        means = dict(zip(found[0], values, strict=True))
        for name, what in GRADIENTS.items():
            if not math.isfinite(means[name]):
                raise NotFinite(what)
        check_metrics(means)
        return learned, means

    def critic_step(
        self, learned: Learned, optimisers: Optimisers, data: StepData
    ) -> tuple[Learned, Tensor, dict[str, Tensor]]:
        """Take one step of critics, encoder and target critics.

        Returns:
            What is learned, the latents that the critics saw, (M, Z), and diagnostics.
        """
        config = self._config
        params = select(learned.params, *BY_CRITIC)
        temperature = learned.log_temperature.exp()
        num_rows = data.batch.reward.numel()
        by_critic = config.encoder_loss == "critic"

        def work(part: StepData) -> tuple[Tensor, Tensor, Tensor]:
            start = leaves(params)
            with torch.set_grad_enabled(by_critic):
                posterior = product(self._networks.factors(start, part.context))
                kl = kl_to_prior(posterior).sum()
            z = sample(posterior, part.latent_noise)
            target = self._sac.target(
                learned.params, learned.target, part.batch, z, part.target_noise, temperature
            )
            errors, value = self._sac.critic_loss(start, part.batch, z, target)
            loss = errors / num_rows + (config.kl_weight * kl if by_critic else 0.0)
            terms = torch.stack([errors.detach() / num_rows, kl.detach(), value / num_rows])
            return terms, flat_gradient(loss, start), z.detach()

        found = self._pool.map(work, self._split(data))
        critic_loss, kl, value = total([terms for terms, _, _ in found])
        gradient = total([each for _, each, _ in found])
        z = torch.cat([each for _, _, each in found])
        terms = {
            "critic_loss": critic_loss,
            "posterior_kl": kl / len(data.context),
            "mean_q": value,
        }
        if not by_critic:
            start = leaves(params)
            parts, task = halves(data.context)
            embedding = product(self._networks.factors(start, parts)).mean
            loss = metric_loss(embedding, task, config.repulsion)
            gradient = gradient + flat_gradient(loss, start)
            terms["metric_loss"] = loss.detach()
        terms["critic_gradient_norm"] = gradient.norm()
        vector = optimisers.critic.step(flatten(params), gradient)
        new = unflatten(vector, params)
        rate = config.target_rate
        target = {name: old.lerp(new[name], rate) for name, old in learned.target.items()}
        return replace(learned, params={**learned.params, **new}, target=target), z, terms

    def policy_step(
        self, learned: Learned, optimisers: Optimisers, data: StepData, z: Tensor
    ) -> tuple[Learned, dict[str, Tensor]]:
        """Take one step of the policy, and of the temperature if it is learned.

        Args:
            learned: parameters and temperature.
            optimisers: the optimisers, whose states change.
            data: the data of the step.
            z: latents of the tasks, detached, (M, Z).

        Returns:
            What is learned, and diagnostics.
        """
        params = select(learned.params, "policy")
        critics = select(learned.params, *CRITICS)
        temperature, num_rows = learned.log_temperature.exp(), data.batch.reward.numel()

        def work(part: tuple[StepData, Tensor]) -> tuple[Tensor, Tensor]:
            start, (own, latent) = leaves(params), part
            loss, log_prob = self._sac.policy_loss(
                start, critics, own.batch, latent, own.policy_noise, temperature
            )
            gradient = flat_gradient(loss / num_rows, start)
            return torch.stack([loss.detach(), log_prob]) / num_rows, gradient

        parts = self._split(data)
        latents = z.split([len(part.context) for part in parts])
        found = self._pool.map(work, list(zip(parts, latents, strict=True)))
        policy_loss, log_prob = total([terms for terms, _ in found])
        gradient = total([each for _, each in found])
        vector = optimisers.policy.step(flatten(params), gradient)
        log_temperature = learned.log_temperature
        if self._config.learn_temperature:
            # Haarnoja et al. 2018b, equation 18, in the logarithm
            target_entropy = -self._networks.action_dim
            slope = -(log_prob + target_entropy) * log_temperature.exp()
            log_temperature = optimisers.temperature.step(log_temperature, slope.view(1))
        new = {**learned.params, **unflatten(vector, params)}
        terms = {
            "policy_loss": policy_loss,
            "entropy": -log_prob,
            "temperature": temperature[0],
            "policy_gradient_norm": gradient.norm(),
        }
        return replace(learned, params=new, log_temperature=log_temperature), terms

    def _split(self, data: StepData) -> list[StepData]:
        """Split the tasks into two microbatches, if they are large enough, for two threads; the
        parts do not depend on the number of threads, so that results do not either."""
        num_tasks, rows = data.batch.reward.shape
        if self._device.type != "cpu" or num_tasks < 2 or num_tasks * rows < 2 * MIN_ROWS:
            return [data]
        half = num_tasks // 2
        return [data.tasks(0, half), data.tasks(half, num_tasks)]
