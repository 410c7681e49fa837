"""The config of a run, which is read from YAML and overridden from Python or the command line."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field, InstanceOf, model_validator

from metarl.agents import (
    KINDS,
    AgentConfig,
    AgentSetup,
    MetaAgent,
    agent_config_class,
    make_agent,
    make_agent_config,
)
from metarl.agents.base import AgentState
from metarl.agents.normalization import NormalizedAgent, measure_observations
from metarl.config_sections import TrackingConfig, ValidationConfig
from metarl.core.errors import MAX_THREADS, ConfigError, check, check_amount, nearest, shown
from metarl.core.parallel import available_cores
from metarl.core.parsing import dump_yaml
from metarl.core.rng import MAX_SEED, Purpose, make_rng
from metarl.core.schema import Section, build, key_of_others
from metarl.core.schema_keys import Choice, Key, keys, plain
from metarl.envs import (
    FAMILIES,
    TaskFamily,
    TaskObserved,
    family_class,
    family_name,
    family_settings,
)
from metarl.envs.registry import name_of_another, undefined_members, unwrapped
from metarl.rollout.failures import OnFailure
from metarl.rollout.sampler_config import SamplerConfig
from metarl.rollout.sampling import SamplingConfig
from metarl.rollout.task_sampler import initial_proposal

DEVICE = r"cpu|cuda(:([0-9]|[1-9][0-9]|1[01][0-9]|12[0-7]))?"
"""Names of devices. Torch takes a greater number for that of another device, or for none."""


def make_family(values: Any) -> TaskFamily:
    """Make a task family from the section `env` of a config.

    Args:
        values: the values of `family`, `observe_task` and the fields of the family, by key; or the
            name of a family; or a family, which is returned.

    Raises:
        ConfigError: if the family is unknown or a value is wrong; names the key by its path in the
            section.
    """
    if isinstance(values, TaskFamily):
        if taken := name_of_another(type(unwrapped(values))):
            raise ConfigError(f"family: {taken}")
        return values
    if isinstance(values, type) and issubclass(values, TaskFamily):
        raise ConfigError(f"family: expected an object, {values.__name__}(), got the class")
    values = {"family": values} if isinstance(values, str) else values
    if not isinstance(values, Mapping) or not isinstance(values.get("family"), str):
        raise ConfigError(
            f"family: expected the name of a task family (metarl list families){_found(values)}"
        )
    fields = {**values}
    if wrong := [key for key in fields if not isinstance(key, str)]:
        raise ConfigError(f"{shown(wrong[0])}: expected a key that is text")
    try:
        cls = family_class(fields.pop("family"))
    except ValueError as error:
        raise ConfigError(f"family: {error}") from error
    if missing := undefined_members(cls):
        raise ConfigError(f"family: {values['family']} does not define {', '.join(missing)}")
    observe_task = ObserveTask(**{k: fields.pop(k) for k in ("observe_task",) if k in fields})
    try:
        family = build(cls, fields)
    except ConfigError as error:
        known = {
            name: [field.name for field in dataclasses.fields(each)]
            for name, each in FAMILIES.items()
        }
        if misplaced := key_of_others(error, f"family is {values['family']}", known):
            raise misplaced from None
        raise
    return TaskObserved(family) if observe_task.observe_task else family


def _found(values: Any) -> str:
    """Return what is found in place of the name of a family, as the end of an error message."""
    if not isinstance(values, Mapping):
        return f", got {shown(plain(values))}"
    if "family" in values:
        return f", got {shown(plain(values['family']))}"
    return "".join(f", got the key {key}" for key in map(str, values) if nearest("family", [key]))


class ObserveTask(Section):
    """The key of the section `env` that all task families share."""

    observe_task: bool = False
    """Whether observations include the task parameters, as for an oracle."""


class Config(Section):
    """The config of a run."""

    is_trained: ClassVar[bool] = True
    """Whether the settings of training have to fit the task family and one another."""

    env: Annotated[InstanceOf[TaskFamily], BeforeValidator(make_family)]
    """The task family, and its fields."""
    method: str = "unnamed"
    """Label in tables, figures and the name of the run's folder; by default the name of the
    config's file."""
    iterations: Annotated[int, Field(ge=1)] = 500
    """Meta-iterations to train for."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of all random numbers."""
    device: str = "cpu"
    """Device of the learner: cpu or cuda (or cuda:1, ...)."""
    threads: Annotated[int, Field(ge=0, le=MAX_THREADS)] = 0
    """Number of threads of physics and learner, 0 for one per core. No influence on results."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """Number of iterations between checkpoints."""
    on_failure: OnFailure = "stop"
    """The reaction to a number that is not finite: in a simulation, an observation, a reward or a
    gradient. `stop` saves the run and stops, naming task, episode and step. `drop_episode` leaves
    the episode out of all computations, and skips updates that are not finite. `skip_update` skips
    the update of an iteration with any failure. All failures are in `failures.jsonl`."""
    sampling: SamplingConfig = SamplingConfig()
    agent: Annotated[
        InstanceOf[AgentConfig], Choice(make_agent_config, tag="kind", names=tuple(KINDS))
    ] = Field(default_factory=lambda: make_agent_config({}))
    """The agent: its kind and its settings."""
    evaluation: ValidationConfig = ValidationConfig()
    sampler: SamplerConfig = SamplerConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        fits = self.method.isprintable() and 0 < len(self.method) <= 100
        check(fits, "method", "1 to 100 characters, all printable", self.method)
        known = re.fullmatch(DEVICE, self.device) is not None
        check(known, "device", "cpu, cuda or cuda:NUMBER, from 0 to 127", self.device)
        _ = self.training_env
        self._check_agent(self.agent.check)
        if self.is_trained:
            self._check_training()
        return self

    def _check_training(self) -> None:
        sampling = self.sampling
        amounts = {
            f"sampling.{key}": getattr(sampling, key) for key in ("num_tasks", "num_episodes")
        }
        check_amount({**amounts, "env.horizon": self.env.horizon})
        sampling.check(self.env)
        if not (sampling.single_task or self.agent.learns_sequences):
            key, default = ("drift", 0) if sampling.drift else ("sequence", 1)
            reason = f"agent.kind {self.agent.kind}, which learns from one task at a time"
            value = getattr(sampling, key)
            check(False, f"sampling.{key}", f"{default} with {reason}", value)
        if sampling.risk.alpha < 1 and not self.agent.weighs_tasks:
            able = [kind for kind in KINDS if agent_config_class(kind).weighs_tasks]
            raise ConfigError(
                f"sampling.risk.alpha: {sampling.risk.alpha} needs an agent that weighs tasks "
                f"(agent.kind: {' or '.join(able)}), got {self.agent.kind}; expected 1"
            )
        initial_proposal(sampling, self.env)
        self.evaluation.check(self.env, sampling)
        self.sampler.check(sampling.num_tasks)
        self._check_agent(self.agent.check_training)

    def _check_agent(self, check_section: Callable[[TaskFamily, SamplingConfig], None]) -> None:
        try:
            check_section(self.env, self.sampling)
        except ConfigError as error:
            raise ConfigError(f"agent.{error}") from None

    @property
    def training_env(self) -> TaskFamily:
        """The task family as training plays it: `env`, with `sampling.nuisances`."""
        return self.sampling.nuisances.applied(self.env)

    @property
    def num_threads(self) -> int:
        """Number of threads: `threads`, or the number of available cores."""
        return self.threads or available_cores()

    def make_agent(self, state: Mapping[str, Any] | None = None) -> MetaAgent:
        """Make the agent with initial meta-parameters, or with the state of a checkpoint.

        Args:
            state: the agent's state in a checkpoint; None initialises the agent by `seed`, and
                plays a meta-batch of episodes if it normalises observations.

        Raises:
            ConfigError: if the device is not available.
            UserError: if the checkpoint does not fit the config.
            EpisodeDiverged: as `measure_observations`, without `state`.
        """
        agent = make_agent(self.agent, self._agent_setup(), state)
        if state is None and isinstance(agent, NormalizedAgent):
            measure_observations(
                agent,
                self.training_env,
                self.sampling,
                seed=self.seed,
                num_threads=self.num_threads,
                stops=self.on_failure == "stop",
            )
        return agent

    def untrained_state(self) -> AgentState:
        """Return the state of an untrained agent, whose observations have not been measured.

        Raises:
            ConfigError: if the device is not available.
        """
        return make_agent(self.agent, self._agent_setup()).state_dict()

    def _agent_setup(self) -> AgentSetup:
        played = self.training_env
        return AgentSetup(
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            adaptation_steps=self.sampling.num_adaptations,
            task_adaptations=self.sampling.adaptation_steps,
            rng=make_rng(self.seed, Purpose.INITIALISE),
            device=torch.device(self.device),
            num_threads=self.num_threads,
            task_dim=math.prod(self.env.task_space.shape),
            expected_reward=played.expected_reward if played.knows_expected_reward else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values, including defaults, as nested dicts and lists."""
        env = {"family": family_name(self.env), **plain(family_settings(self.env))}
        values = {name: plain(value) for name, value in self if name != "env"}
        return {"env": env, **values}

    def to_yaml(self) -> str:
        """Return all values, including defaults, as YAML."""
        return dump_yaml(self.to_dict())


class PlayedConfig(Config):
    """The config of a run whose agent is played, not trained: the settings of training are those of
    the run, and need not fit values that replace others, such as a shorter horizon."""

    is_trained: ClassVar[bool] = False


def config_keys(config: Config | None = None) -> list[Key]:
    """List all keys of a config, with the values of the config as defaults.

    Args:
        config: the config; None lists the keys and values of a default config, without the keys of
            a task family.
    """
    listed = [key for key in keys(Config, like=config) if key.path != "env"]
    if config is None:
        return listed
    return [*listed, *family_keys(family_class(family_name(config.env)), config.env)]


def family_keys(cls: type[TaskFamily] | None, family: TaskFamily | None = None) -> list[Key]:
    """List the keys of the section `env` except `family`.

    Args:
        cls: the class of the task family; None lists no keys.
        family: a family whose values replace the defaults.
    """
    if cls is None:
        return []
    observed = ObserveTask(observe_task=isinstance(family, TaskObserved))
    inside = family.family if isinstance(family, TaskObserved) else family
    return [*keys(cls, "env.", like=inside), *keys(ObserveTask, "env.", like=observed)]
