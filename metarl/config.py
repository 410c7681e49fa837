"""The config of an experiment, read from YAML and overridden from Python or the command line."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, InstanceOf, model_validator

from metarl.agents import AgentConfig, AgentSetup, MetaAgent, make_agent, make_agent_config
from metarl.config_upgrade import renamed_key
from metarl.core.errors import ConfigError, UserError, check, check_amount, nearest, shown
from metarl.core.parallel import available_cores
from metarl.core.parsing import dump_yaml, read_yaml
from metarl.core.rng import MAX_SEED, Purpose, make_rng
from metarl.core.schema import Key, Section, build, keys, plain
from metarl.envs import TaskFamily, TaskObserved, family_class, family_name, family_settings
from metarl.rollout.failures import OnFailure
from metarl.rollout.sampling import SamplingConfig

PACKAGE = Path(__file__).parent
SWEEPS = "sweeps"  # the folder of Weights & Biases' sweeps, among those of the configs

ALIASES = {
    "num_tasks": "sampling.num_tasks",
    "num_episodes": "sampling.num_episodes",
    "inner_steps": "sampling.adaptation_steps",
}
"""Short names of keys, for flags (`--num-tasks`) and for overrides in Python."""


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
    agent: Annotated[InstanceOf[AgentConfig], BeforeValidator(make_agent_config)] = Field(
        default_factory=lambda: make_agent_config({})
    )
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


def load_config(name: str | os.PathLike[str], /, **overrides: Any) -> Config:
    """Read a config by path or by name, such as `half_cheetah_vel/maml_trpo`.

    Args:
        name: a YAML file, or the name of a config that comes with the package.
        overrides: values that replace those of the file, by key. A key of a section is given as
            `**{"agent.inner.lr": 0.2}`; the keys of `ALIASES` have short names.

    Raises:
        ConfigError: naming the file or the key, what was expected, and the nearest valid value.
    """
    return make_config(read_config(name), str(name), overrides)


def make_config(data: Mapping[str, Any], source: str, overrides: Mapping[str, Any]) -> Config:
    """Check the plain values of a config, with some replaced.

    Args:
        data: nested, as read from YAML.
        source: the config's name in errors.
        overrides: values by dotted key.

    Raises:
        ConfigError: naming the source and the key.
    """
    check_keys(data, source)
    given: dict[str, str] = {}  # by path, the name under which it was overridden
    values: Any = data
    for name, value in overrides.items():
        if name not in ALIASES and (new := renamed_key(name)):
            raise ConfigError(f"{flag(name)}: has moved to {flag(new)}")
        path = ALIASES.get(name, name)
        given[path] = name
        values = replaced(values, path.split("."), value, source)
    try:
        return Config(**values)
    except ConfigError as error:
        path, _, reason = str(error).partition(": ")
        if path in given:
            raise ConfigError(f"{flag(given[path])}: {reason}") from None
        raise ConfigError(f"{source}: {error}") from None


def check_keys(data: Mapping[Any, Any], source: str, prefix: str = "") -> None:
    """Refuse keys that are not text, or that an earlier version had.

    Raises:
        ConfigError: naming the key, and its new name.
    """
    for key, value in data.items():
        if not isinstance(key, str):
            raise ConfigError(f"{source}: {prefix}{shown(key)}: expected a key that is text")
        if isinstance(value, Mapping) and f"{prefix}{key}" != "env":
            check_keys(value, source, f"{prefix}{key}.")
        if new := renamed_key(prefix + key):
            raise ConfigError(f"{source}: {prefix}{key}: has moved to {new}")


def flag(path: str) -> str:
    """Return the command-line flag of a key."""
    return f"--{path.replace('_', '-')}"


def replaced(
    data: Mapping[str, Any], path: list[str], value: Any, source: str, above: str = ""
) -> dict[str, Any]:
    """Return nested values with one of them replaced.

    Raises:
        ConfigError: if there is something else than keys and values on the path.
    """
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inside = data.get(key)
    inside = {} if inside is None else inside
    if isinstance(inside, Section):
        inside = plain(inside)
    if not isinstance(inside, Mapping):
        raise ConfigError(f"{source}: {above}{key}: expected keys with values, got {shown(inside)}")
    return {**data, key: replaced(inside, rest, value, source, f"{above}{key}.")}


def read_config(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the plain values of a config by path or by name.

    Raises:
        ConfigError: if there is none, or it is not YAML with keys and values.
    """
    path = find_config(name)
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    except UserError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path}: expected keys with values, got {shown(data)}")
    return {"method": path.stem, **data}


def find_config(name: str | os.PathLike[str]) -> Path:
    """Return the file of a config given by path or by name."""
    path = Path(name)
    if path.is_file():
        return path
    known = config_names()
    short = str(name).removesuffix(".yaml").removeprefix("configs/")
    if short in known:
        return known[short]
    raise ConfigError(f"{name}: no such config{nearest(short, known)}; see metarl list configs")


def config_names() -> dict[str, Path]:
    """Return the configs that come with the package, by name."""
    # An installed wheel holds them inside the package, a clone beside it.
    folders = (PACKAGE / "configs", PACKAGE.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
    files = [path for path in sorted(folder.glob("*/*.yaml")) if path.parent.name != SWEEPS]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


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
