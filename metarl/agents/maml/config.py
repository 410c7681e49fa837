"""The config of MAML agents: policy, inner loop, outer update and advantages."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from metarl.agents.annealing import annealed_away
from metarl.agents.base import AgentConfig, AgentSetup, AgentState, check_init_std
from metarl.agents.maml.agent import MAMLAgent
from metarl.agents.maml.batch import ReturnConfig
from metarl.agents.maml.critic import Critic, CriticConfig
from metarl.agents.maml.inner_config import InnerConfig, make_inner_loop
from metarl.agents.maml.outer import OUTER_UPDATES, OuterConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.maml.surrogates import EPISODIC
from metarl.agents.moments import with_weakened_moments
from metarl.agents.normalization import RunningNormalizedAgent, check_one_normalisation
from metarl.core.errors import ConfigError, check
from metarl.core.layers import MAX_WEIGHTS
from metarl.core.policies import PolicyConfig, make_policy
from metarl.core.returns import baseline_memory
from metarl.core.schema import one_of
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class MAMLConfig(AgentConfig):
    """MAML and its relatives: agents that adapt by policy-gradient steps."""

    kind: Literal["maml"] = "maml"
    """The kind of agent."""
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: Annotated[OuterConfig, one_of("update", OUTER_UPDATES)] = TRPOConfig()
    returns: ReturnConfig = ReturnConfig()
    critic: CriticConfig = CriticConfig()
    running_observations: bool = False
    """Whether observations are normalised by their running mean and standard deviation: those of
    all episodes of training, within ten standard deviations."""
    tasks_per_microbatch: Annotated[int, Field(ge=0)] = 0
    """Number of tasks that the learner processes together; 0 chooses the fastest: all tasks on a
    GPU, one task per thread on a CPU, whose cache should hold them. Changes results by rounding
    only."""

    learns_sequences: ClassVar[bool] = True
    weighs_tasks: ClassVar[bool] = True
    of_training: ClassVar[tuple[str, ...]] = (
        "outer",
        "critic",
        "inner.emaml_weight",
        "inner.pre_adaptation_weight",
        "inner.retention_weight",
        "inner.first_order",
    )

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        if self.policy.obs_scale:  # since some families start a simulation for their spaces
            self._check_obs_scale(family.observation_space.shape[0])
        check_one_normalisation(self, self.running_observations)
        inner = self.inner
        _refuse(
            inner.adapts == "head" and not self.policy.hidden,
            "inner.adapts",
            inner.adapts,
            "policy.hidden is [], so the policy has no layers below its head to share",
        )
        _refuse(
            inner.emaml_weight > 0 and sampling.num_tasks == 1,
            "inner.emaml_weight",
            inner.emaml_weight,
            "num_tasks is 1, and it compares the tasks of a meta-batch",
        )
        lambda_ = self.returns.gae_lambda
        reason = "inner.surrogate dice has returns where the others have advantages; expected 1"
        _refuse(inner.surrogate == "dice" and lambda_ != 1, "returns.gae_lambda", lambda_, reason)
        _refuse(
            len(self.policy.bias_transform) > 0 and inner.adapts in ("head", "context", "nothing"),
            "policy.bias_transform",
            list(self.policy.bias_transform),
            f"inner.adapts is {inner.adapts}, so the additional inputs do not adapt",
        )
        _refuse(
            inner.retention_weight != 1 and sampling.sequence == 1,
            "inner.retention_weight",
            inner.retention_weight,
            "sampling.sequence is 1, so that no task is met before another one",
        )
        keep = getattr(self.outer, "keep_gradients", False)
        reason = "inner.first_order is false, so that inner gradients have derivatives"
        _refuse(keep and not inner.first_order, "outer.keep_gradients", keep, reason)
        if self.outer.update == "reptile":
            _check_reptile(inner, sampling.sequence)
            reason = "outer.update reptile learns from no values after adaptation"
            _refuse(self.critic.epochs > 0, "critic.epochs", self.critic.epochs, reason)
        if sampling.adaptation_steps == 0:
            self._check_without_adaptation()
        else:
            reason = "sampling.adaptation_steps is not 0"
            _refuse(inner.adapts == "nothing", "inner.adapts", inner.adapts, reason)

    def _check_obs_scale(self, obs_dim: int) -> None:
        scale = self.policy.obs_scale
        wanted = f"one number for each of the {obs_dim} of an observation, or none"
        check(len(scale) == obs_dim, "policy.obs_scale", wanted, scale)
        for key in ("normalize_observations", "running_observations"):
            reason = f"{key} is true, and scales them by measured numbers"
            _refuse(getattr(self, key), "policy.obs_scale", list(scale), reason)

    def _check_without_adaptation(self) -> None:
        """Check that the settings of a training without adaptation need none."""
        inner = self.inner
        reason = "with 0 adaptation steps no adaptation takes place that could teach it anything"
        _refuse(inner.rule != "sgd", "inner.rule", inner.rule, reason)
        first_order = "with 0 adaptation steps there are no inner gradients"
        _refuse(inner.first_order, "inner.first_order", True, first_order)
        for key in ("emaml_weight", "pre_adaptation_weight"):
            value = getattr(inner, key)
            _refuse(value > 0, f"inner.{key}", value, reason)
        _refuse(inner.adapts in ("context", "latent"), "inner.adapts", inner.adapts, reason)
        weight = getattr(self.outer, "inner_kl_weight", 0.0)
        reason = "there is no policy before adaptation"
        _refuse(weight > 0, "outer.inner_kl_weight", weight, reason)

    def update_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        obs_dim = family.observation_space.shape[0]
        num_steps = sampling.num_episodes * family.horizon  # of a task
        # The training batches of all rollouts, and their episodes with running observations; and
        # the baselines of one microbatch on a CPU
        copies = 2 if self.running_observations else 1
        batches = copies * len(sampling.phases) * sampling.num_tasks * num_steps * obs_dim * 4
        together = min(self.tasks_per_microbatch or 1, sampling.num_tasks)
        return batches + together * baseline_memory(num_steps, obs_dim)

    def make(self, setup: AgentSetup) -> MAMLAgent | RunningNormalizedAgent:
        check_init_std(self.policy.init_std, setup.action_space, "policy")
        policy = make_policy(self.policy, setup.observation_space, setup.action_space)
        if self.inner.adapts == "latent":
            most = MAX_WEIGHTS // policy.num_weights
            expected = f"at most {most:,} with a policy of {policy.num_weights:,} weights"
            size = self.inner.latent_dim
            check(size <= most, "inner.latent_dim", expected, size)
        loop = make_inner_loop(self.inner, policy, setup.adaptation_steps)
        agent = MAMLAgent(
            policy,
            loop.init(policy.init(setup.rng), setup.rng),
            loop,
            self.inner,
            self.outer,
            self.returns,
            setup,
            self.tasks_per_microbatch or None,
            self._critic(setup) if self.critic.epochs else None,
        )
        if not self.running_observations:
            return agent
        return RunningNormalizedAgent(agent, math.prod(setup.observation_space.shape))

    def _critic(self, setup: AgentSetup) -> Critic:
        obs_dim = math.prod(setup.observation_space.shape)
        sizes = obs_dim, setup.task_dim, setup.rng, setup.device
        return Critic(self.critic, self.returns, *sizes)

    def schedules(self) -> dict[str, int]:
        total = getattr(self.outer, "lr_anneal", 0)
        return {"outer.lr_anneal": total} if total else {}

    def remarks(self, iterations: int) -> list[str]:
        return annealed_away(self.schedules(), iterations)

    def may_average(self, name: str) -> bool:
        return name.startswith("params.")

    def transferred(self, state: AgentState) -> AgentState:
        return with_weakened_moments(state)

    def must_transfer(self, name: str) -> bool:
        return ":" not in name  # the policy's own, not those of a rule such as learned step sizes


def _refuse(condition: bool, key: str, value: Any, reason: str) -> None:
    if condition:
        raise ConfigError(f"{key}: {value} makes no sense here: {reason}")


def _check_reptile(inner: InnerConfig, sequence: int) -> None:
    """Check that the settings of the inner loop need no derivatives through the adaptation, and
    that tasks do not come in sequences.

    Raises:
        ConfigError: if a setting does not fit; names the key.
    """
    reason = "outer.update reptile differentiates nothing through the adaptation"
    for key, default in (
        ("adapts", "all"),
        ("rule", "sgd"),
        ("emaml_weight", 0.0),
        ("pre_adaptation_weight", 0.0),
        ("first_order", False),
    ):
        value = getattr(inner, key)
        _refuse(value != default, f"inner.{key}", value, f"{reason}; expected {default}")
    _refuse(
        inner.surrogate in EPISODIC,
        "inner.surrogate",
        inner.surrogate,
        f"{reason}, and the second derivatives are all that dice is for",
    )
    reason = f"sampling.sequence is {sequence}, and reptile measures no return"
    _refuse(sequence > 1, "outer.update", "reptile", reason)
