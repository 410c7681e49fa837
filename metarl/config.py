"""The config of an experiment, read from YAML and overridden from Python or the command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, InstanceOf, model_validator

from metarl.agents import KINDS, AgentConfig, AgentSetup, MetaAgent, make_agent, make_agent_config
from metarl.core.errors import ConfigError, check, check_amount
from metarl.core.parallel import available_cores
from metarl.core.parsing import dump_yaml
from metarl.core.rng import MAX_SEED, Purpose, make_rng
from metarl.core.schema import Section, build
from metarl.core.schema_keys import Choice, Key, keys, plain
from metarl.envs import TaskFamily, TaskObserved, family_class, family_name, family_settings
from metarl.rollout.failures import OnFailure
from metarl.rollout.sampling import SamplingConfig


def make_family(values: Any) -> TaskFamily:
    """Make a task family from the keys of a config's section `env`.

    Args:
        values: `family`, `observe_task` and the fields of the family; or a family, or its name.

    Raises:
        ConfigError: naming the key within the section.
    """
    if isinstance(values, TaskFamily):
        return values
    values = {"family": values} if isinstance(values, str) else values
    if not isinstance(values, Mapping) or not isinstance(values.get("family"), str):
        raise ConfigError("family: expected the name of a task family (metarl list families)")
    fields = {**values}
    try:
        cls = family_class(fields.pop("family"))
    except ValueError as error:
        raise ConfigError(f"family: {error}") from error
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"family: {values['family']} does not define {missing}")
    observe_task = ObserveTask(**{k: fields.pop(k) for k in ("observe_task",) if k in fields})
    family = build(cls, fields)
    return TaskObserved(family) if observe_task.observe_task else family


class ObserveTask(Section):
    """The key of the section `env` that every family has."""

    observe_task: bool = False
    """Whether observations show the task, as an oracle would see it."""


class TrackingConfig(Section):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto` is online if you are logged in and offline otherwise; `metrics.jsonl` is always
    written."""
    project: str = "metarl"
    """Project name."""
    entity: str | None = None
    """User or team; null for your default one."""


class Config(Section):
    """One experiment."""

    env: Annotated[InstanceOf[TaskFamily], BeforeValidator(make_family)]
    """The task family, and its fields."""
    method: str = "unnamed"
    """Label in tables, figures and the name of the run's folder; that of the config's file."""
    iterations: Annotated[int, Field(ge=1)] = 500
    """Meta-iterations to train for."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where the learner computes: cpu or cuda (or cuda:1, ...)."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads for physics and learner, 0 for one per core. No influence on the results."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """Iterations from one checkpoint to the next."""
    on_failure: OnFailure = "stop"
    """What to do where a number is not finite: a simulation that diverges, an observation, reward
    or gradient. `stop` saves and stops, naming task, episode and step. `drop_episode` leaves that
    episode out of everything, and skips an update that is not finite itself. `skip_update` skips
    the update of an iteration in which anything of the sort happens. `failures.jsonl` has them
    all."""
    sampling: SamplingConfig = SamplingConfig()
    agent: Annotated[
        InstanceOf[AgentConfig], Choice(make_agent_config, tag="kind", names=tuple(KINDS))
    ] = Field(default_factory=lambda: make_agent_config({}))
    """The kind of agent, and its settings."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        sampling = self.sampling
        check_amount(sampling.num_tasks * sampling.num_episodes, self.env.horizon)
        fits = self.method.isprintable() and 0 < len(self.method) <= 100
        check(fits, "method", "1 to 100 characters, all printable", self.method)
        kind, _, number = self.device.partition(":")
        known = kind in ("cpu", "cuda") and (not number or (kind == "cuda" and number.isdigit()))
        check(known, "device", "cpu, cuda or cuda:NUMBER", self.device)
        try:
            self.agent.check(self.env, sampling)
        except ConfigError as error:
            raise ConfigError(f"agent.{error}") from None
        return self

    @property
    def num_threads(self) -> int:
        """Number of threads to use."""
        return self.threads or available_cores()

    def make_agent(self, state: Mapping[str, Any] | None = None) -> MetaAgent:
        """Make the agent as the config's seed initialises it, or with the state of a checkpoint.

        Raises:
            ConfigError: if the device is not there.
            UserError: if the checkpoint does not fit the config.
        """
        setup = AgentSetup(
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            adaptation_steps=self.sampling.adaptation_steps,
            rng=make_rng(self.seed, Purpose.INITIALISE),
            device=torch.device(self.device),
            num_threads=self.num_threads,
        )
        return make_agent(self.agent, setup, state)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as nested dicts and lists."""
        env = {"family": family_name(self.env), **plain(family_settings(self.env))}
        values = {name: plain(value) for name, value in self if name != "env"}
        return {"env": env, **values}

    def to_yaml(self) -> str:
        """Return all values, defaults included, as YAML."""
        return dump_yaml(self.to_dict())


def config_keys(config: Config | None = None) -> list[Key]:
    """List the keys of a config with its values, or those of the defaults.

    The keys of a task family are among them where a config is given.
    """
    listed = [key for key in keys(Config, like=config) if key.path != "env"]
    if config is None:
        return listed
    return [*listed, *family_keys(family_class(family_name(config.env)), config.env)]


def family_keys(cls: type[TaskFamily] | None, family: TaskFamily | None = None) -> list[Key]:
    """List the keys of a config's `env` besides `family`; none without a family.

    Args:
        cls: the family's class.
        family: its values, instead of the defaults.
    """
    if cls is None:
        return []
    observed = ObserveTask(observe_task=isinstance(family, TaskObserved))
    inside = family.family if isinstance(family, TaskObserved) else family
    return [*keys(cls, "env.", like=inside), *keys(ObserveTask, "env.", like=observed)]
