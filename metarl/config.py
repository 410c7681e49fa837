"""The config of an experiment: a frozen dataclass, read from YAML and from command-line flags."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from metarl.agents.maml.batch import ReturnConfig
from metarl.agents.maml.config import InnerConfig
from metarl.agents.maml.outer import OuterConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.maml.surrogates import EPISODIC
from metarl.core.errors import (
    MAX_ADAPTATIONS,
    ConfigError,
    UserError,
    check,
    check_amount,
    nearest,
    shown,
)
from metarl.core.parallel import available_cores
from metarl.core.parsing import dump_yaml, read_yaml
from metarl.core.policies import PolicyConfig
from metarl.core.rng import MAX_SEED
from metarl.core.schema import Key, build, convert, keys, plain
from metarl.envs import TaskFamily, TaskObserved, family_class, family_name, family_settings
from metarl.rollout.failures import OnFailure

PACKAGE = Path(__file__).parent
SWEEPS = "sweeps"  # the folder of Weights & Biases' sweeps, among those of the configs


@dataclass(frozen=True)
class TrackingConfig:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto` is online if you are logged in and offline otherwise; `metrics.jsonl` is always
    written."""
    project: str = "metarl"
    """Project name."""
    entity: str | None = None
    """User or team; null for your default one."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    env: TaskFamily
    """The task family, and its fields."""
    method: str = "maml_trpo"
    """Label in tables and figures."""
    iterations: int = 500
    """Meta-iterations to train for."""
    num_tasks: int = 40
    """Tasks per meta-batch."""
    num_episodes: int = 20
    """Episodes per task, before and after each adaptation step."""
    inner_steps: int = 1
    """Adaptation steps in training; 0 trains one policy for all tasks."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where the learner computes: cpu or cuda (or cuda:1, ...)."""
    threads: int = 0
    """Threads for physics and learner, 0 for one per core. No influence on the results."""
    tasks_per_chunk: int = 0
    """Tasks that the learner works on at once, 0 for the device's best: all on a GPU, one on each
    thread of a CPU, where they fit the cache. Changes the results by rounding only."""
    checkpoint_every: int = 10
    """Iterations from one checkpoint to the next."""
    on_failure: OnFailure = "stop"
    """Where a number is not finite: a simulation that diverges, an observation, reward or gradient.
    `stop` saves and stops, naming task, episode and step. `drop_episode` leaves that episode out of
    everything, and skips an update that is not finite itself. `skip_update` skips the update of an
    iteration in which anything of the sort happens. `failures.jsonl` has them all."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=TRPOConfig)
    returns: ReturnConfig = field(default_factory=ReturnConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        for name in ("iterations", "num_tasks", "num_episodes", "checkpoint_every"):
            check(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        check(self.inner_steps >= 0, "inner_steps", "at least 0", self.inner_steps)
        most = f"at most {MAX_ADAPTATIONS}"
        check(self.inner_steps <= MAX_ADAPTATIONS, "inner_steps", most, self.inner_steps)
        check_amount(self.num_tasks * self.num_episodes, self.env.horizon)
        # It is a part of the name of the run's folder, of tables and of figures.
        fits = self.method.isprintable() and 0 < len(self.method) <= 100
        check(fits, "method", "1 to 100 characters, all printable", self.method)
        check(0 <= self.seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", self.seed)
        check(self.tasks_per_chunk >= 0, "tasks_per_chunk", "at least 0", self.tasks_per_chunk)
        check(0 <= self.threads <= 1024, "threads", "between 0 and 1024", self.threads)
        kind, _, number = self.device.partition(":")
        known = kind in ("cpu", "cuda") and (not number or (kind == "cuda" and number.isdigit()))
        check(known, "device", "cpu, cuda or cuda:NUMBER", self.device)
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse parts of a method that make no sense together."""
        inner, outer = self.inner, self.outer.update

        def refuse(condition: bool, key: str, value: Any, reason: str) -> None:
            if condition:
                raise ConfigError(f"{key}: {value} makes no sense here: {reason}")

        if scale := self.policy.obs_scale:  # some families have to start a world to tell its size
            obs_dim = self.env.observation_space.shape[0]
            expected = f"one number for each of the {obs_dim} of an observation, or none"
            check(len(scale) == obs_dim, "policy.obs_scale", expected, scale)
        refuse(
            inner.adapts == "head" and not self.policy.hidden,
            "inner.adapts",
            inner.adapts,
            "policy.hidden is [], so the policy has no layers below its head to share",
        )
        refuse(
            inner.exploration > 0 and self.num_tasks == 1,
            "inner.exploration",
            inner.exploration,
            "num_tasks is 1, and it compares the tasks of a meta-batch",
        )
        if outer == "reptile":
            reason = "outer.update reptile differentiates nothing through the adaptation"
            for key, usual in (
                ("adapts", "all"),
                ("rule", "sgd"),
                ("exploration", 0.0),
                ("start_weight", 0.0),
                ("first_order", False),
            ):
                value = getattr(inner, key)
                refuse(value != usual, f"inner.{key}", value, f"{reason}; expected {usual}")
            refuse(
                inner.surrogate in EPISODIC,
                "inner.surrogate",
                inner.surrogate,
                f"{reason}, and the second derivatives are all that dice is for",
            )
        if self.inner_steps == 0:
            reason = "with inner_steps 0 no adaptation takes place that could teach it anything"
            refuse(inner.rule != "sgd", "inner.rule", inner.rule, reason)
            for key in ("exploration", "start_weight"):
                value = getattr(inner, key)
                refuse(value > 0, f"inner.{key}", value, reason)
            coded = inner.adapts in ("context", "latent")
            refuse(coded, "inner.adapts", inner.adapts, reason)
            start_kl = getattr(self.outer, "start_kl_weight", 0.0)
            refuse(start_kl > 0, "outer.start_kl_weight", start_kl, "there is no policy before")

    @property
    def num_threads(self) -> int:
        """How many threads to use."""
        return self.threads or available_cores()

    def to_dict(self) -> dict[str, Any]:
        """Return all values as nested dicts and lists."""
        env = {"family": family_name(self.env), **plain(family_settings(self.env))}
        values = {field.name: plain(getattr(self, field.name)) for field in fields(self)[1:]}
        return {"env": env, **values}

    def to_yaml(self) -> str:
        """Return all values, defaults included, as YAML."""
        return dump_yaml(self.to_dict())


def load_config(name: str | os.PathLike[str], /, **overrides: Any) -> Config:
    """Read a config by path or by name, such as `half_cheetah_vel/maml_trpo`.

    Args:
        name: a YAML file, or the name of a config that comes with the package.
        overrides: values that replace those of the file, by key. A key of a section is given as
            `**{"inner.lr": 0.2}`.

    Raises:
        ConfigError: naming the file or the key, what was expected, and the nearest valid value.
    """
    return make_config(read_config(name), str(name), overrides)


def make_config(data: dict[str, Any], source: str, overrides: Mapping[str, Any]) -> Config:
    """Check the plain values of a config, with some replaced.

    Args:
        data: nested, as read from YAML.
        source: what to call them in an error.
        overrides: values by dotted key.

    Raises:
        ConfigError: naming the source and the key.
    """
    data = {**data}
    for path, value in overrides.items():
        *sections, key = path.split(".")
        inside = data
        for depth, section in enumerate(sections, 1):
            copied = inside.get(section) or {}
            if not isinstance(copied, Mapping):
                raise ConfigError(
                    f"{source}: {'.'.join(sections[:depth])}: expected keys with values, "
                    f"got {shown(copied)}"
                )
            inside[section] = {**copied}
            inside = inside[section]
        inside[key] = value
    try:
        if "env" in data and not isinstance(data["env"], TaskFamily):
            data["env"] = build_family(data["env"])
        return build(Config, data)
    except ConfigError as error:
        path, _, reason = str(error).partition(": ")
        if path in overrides:
            raise ConfigError(f"--{path.replace('_', '-')}: {reason}") from None
        raise ConfigError(f"{source}: {error}") from None


def build_family(data: Any) -> TaskFamily:
    """Make a task family from the keys of a config's `env`: `family` and the family's fields."""
    if not isinstance(data, Mapping) or not isinstance(data.get("family"), str):
        raise ConfigError("env.family: expected the name of a task family (metarl list families)")
    values = {**data}
    try:
        cls = family_class(values.pop("family"))
    except ValueError as error:
        raise ConfigError(f"env.family: {error}") from error
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"env.family: {data['family']} does not define {missing}")
    observe_task = convert(bool, values.pop("observe_task", False), "env.observe_task")
    family = build(cls, values, "env")
    return TaskObserved(family) if observe_task else family


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


OBSERVE_TASK = Key(
    "env.observe_task", bool, False, "Whether observations tell the task: what an oracle would see."
)


def config_keys(config: Config | None = None) -> list[Key]:
    """List the keys of a config: with the fields of its own family and outer update, if given."""
    listed = [key for key in keys(Config, like=config) if key.path != "env"]
    if config is None:
        return listed
    return [*listed, *family_keys(family_class(family_name(config.env)))]


def family_keys(family: type[TaskFamily] | None) -> list[Key]:
    """List the keys of a config's `env` besides `family`; none without a family."""
    return [*keys(family, "env."), OBSERVE_TASK] if family else []
