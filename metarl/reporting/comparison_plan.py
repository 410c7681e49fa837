"""The runs of a comparison, and what is checked before the first of them is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.config_files import check_cluster_keys, read_config
from metarl.core.errors import ConfigError, UserError, check
from metarl.envs import TaskFamily
from metarl.evaluation.compare import differences, have_same_tasks
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.protocols import check_measurable
from metarl.rollout.sampler_config import SamplerConfig
from metarl.runs.identity import default_directory, settings_digest
from metarl.runs.run import Run
from metarl.training.checks import check_startable
from metarl.training.continuation import check_same_run
from metarl.training.many_runs import Job
from metarl.training.tracking import check_trackers

MAX_SEEDS = 1000


def plan(
    names: Sequence[str],
    seeds: int,
    out: Path,
    overrides: Mapping[str, Any],
    env_steps: int | None = None,
) -> dict[str, list[Job]]:
    """Return the runs of a comparison by family: all configs with the first seed, then the others.

    Args:
        names: names or paths of configs.
        seeds: number of seeds, from that of each config.
        out: the folder of the runs.
        overrides: values that replace those of all configs.
        env_steps: env steps of each training, at most; they take the place of `iterations`.

    Raises:
        UserError: if a config is not valid or given twice, or one of its trackers cannot be made,
            the configs of a family have different tasks, `overrides` has the seed, or iterations
            too where `env_steps` are given.
    """
    check(1 <= seeds <= MAX_SEEDS, "--seeds", f"from 1 to {MAX_SEEDS}", seeds)
    if "seed" in overrides:
        raise ConfigError("--seed: expected --seeds, the number of seeds, from that of the config")
    if env_steps is not None and "iterations" in overrides:
        raise ConfigError("--iterations: expected it or --env-steps, which sets it, not both")
    configs: dict[str, Config] = {}
    settings: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, Any]] = {}
    for name in names:
        if name in configs:
            raise UserError(f"{name}: given twice; expected each config once")
        settings[name] = dict(overrides)
        values[name] = read_config(name)  # once: the file may change during the comparison
        try:
            configs[name] = Job(name, settings[name], out, values=values[name]).config
        except ConfigError as error:
            is_flag = len(names) > 1 and str(error).startswith("--")
            raise ConfigError(f"{name}: {error}" if is_flag else str(error)) from None
        # It is set where runs take the slots of a cluster: then they have no cluster of their own.
        if "sampler.kind" not in overrides:
            check_cluster_keys(configs[name], values[name], name, overrides)
        if env_steps is not None:
            settings[name] |= of_length(configs[name], iterations(name, configs[name], env_steps))
            settings[name] |= overrides
            configs[name] = Job(name, settings[name], out, values=values[name]).config
    for config in configs.values():
        check_trackers(config)
    check_comparable(configs)
    is_named = "method" in overrides
    stems = {name: folder_stem(name, configs[name], is_named=is_named) for name in configs}
    for name, stem in stems.items():
        others = [other for other in stems if other != name and stems[other] == stem]
        if others:
            expected = "--method for one config of a family" if is_named else "other names of files"
            raise UserError(
                f"{name}: its runs would have the folders of {others[0]}: {stem}-seed...; "
                f"expected {expected}"
            )
    found: dict[str, list[Job]] = {config.env.name: [] for config in configs.values()}
    for number in range(seeds):
        for name, config in configs.items():
            seed = config.seed + number
            folder = out / f"{stems[name]}-seed{seed}"
            own = {**settings[name], "seed": seed}
            found[config.env.name].append(Job(name, own, folder, values=values[name]))
    return found


def cluster_of_runs(
    overrides: Mapping[str, Any],
) -> tuple[SamplerConfig | None, dict[str, Any]]:
    """Return the cluster whose slots the runs take, None for this machine, and the settings of a
    run in its slot.

    Raises:
        ConfigError: if a setting of the cluster is not valid.
    """
    prefix = "sampler."
    of_cluster = {key: value for key, value in overrides.items() if key.startswith(prefix)}
    try:
        config = SamplerConfig(**{key.removeprefix(prefix): of_cluster[key] for key in of_cluster})
    except ConfigError as error:
        raise ConfigError(f"--{prefix}{error}") from None
    if config.kind == "local":
        config.check_used(of_cluster)
        return None, dict(overrides)
    own = {key: value for key, value in overrides.items() if key not in of_cluster}
    return config, {"threads": config.threads, **own, f"{prefix}kind": "local"}


def iterations(name: str, config: Config, env_steps: int) -> int:
    """Return the number of iterations of a config that take at most a number of env steps.

    Raises:
        UserError: if one iteration takes more.
    """
    each = config.sampling.max_steps(config.env.horizon)
    if each > env_steps:
        raise UserError(
            f"--env-steps: expected at least {each:,}, one iteration of {name}, got {env_steps:,}"
        )
    return env_steps // each


def of_length(config: Config, iterations: int) -> dict[str, Any]:
    """Return the settings of a training of a number of iterations, with the schedules that last as
    long as that of the config."""
    schedules = {
        f"agent.{key}": iterations
        for key, value in config.agent.schedules().items()
        if value == config.iterations
    }
    return {"iterations": iterations, **schedules}


def check_comparable(configs: Mapping[str, Config]) -> None:
    """Check that the configs of a family have the same tasks, and other settings.

    Raises:
        UserError: if they do not; names both.
    """
    firsts: dict[str, str] = {}  # the first config of each family
    known: dict[tuple[str, str], str] = {}
    for name, config in configs.items():
        first = firsts.setdefault(config.env.name, name)
        if not have_same_tasks(configs[first].env, config.env):
            raise UserError(
                f"{name}: its tasks are not those of {first}: "
                f"{differences(config, configs[first])}; set it alike, by flags, or compare in "
                "another folder"
            )
        key = config.env.name, settings_digest(config, None)
        if key in known:
            raise UserError(f"{name}: has the settings of {known[key]}; expected each method once")
        known[key] = name


def folder_stem(name: str, config: Config, *, is_named: bool = False) -> str:
    """Return the beginning of the names of a config's runs: FAMILY-METHOD, or the file's name
    unless the method was named by hand (`is_named`)."""
    if is_named:
        return default_directory(config).name.removesuffix(f"-seed{config.seed}")
    path = Path(name)
    return path.stem if path.suffix == ".yaml" or path.is_file() else name.replace("/", "-")


def check_evaluation(family: TaskFamily, settings: Mapping[str, Any]) -> None:
    """Check the settings of an evaluation on a family, before anything is trained.

    Raises:
        UserError: if one is unknown or out of range.
    """
    measured = {name: value for name, value in settings.items() if name != "protocol"}
    check_measurable(settings["protocol"], family, EvaluationConfig(**measured))


def check_jobs(jobs: Sequence[Job], *, here: bool) -> None:
    """Check that the runs that are there already are those of their jobs, and that those that are
    not finished can begin.

    Args:
        jobs: the runs.
        here: whether this machine trains them.

    Raises:
        UserError: as `check_begun`; or, with the name of the config, as `check_startable`, or if
            its agent cannot be made.
        WorkerError: as `check_startable`.
    """
    unfinished = [job for job in jobs if check_begun(job) < job.config.iterations]
    if not here:
        return
    firsts: dict[str, Job] = {}
    for job in unfinished:
        firsts.setdefault(job.name, job)
    for name, job in firsts.items():
        try:
            check_startable(job.config, job.folder)
            job.config.untrained_state()
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def check_begun(job: Job) -> int:
    """Return the number of iterations of a run, after a check that a run that is there already is
    that of its job, and not trained longer.

    Raises:
        UserError: if it has other settings or more iterations; its results are not those of the
            job.
    """
    if not (job.folder / "config.yaml").exists():
        return 0
    begun, config = Run.open(job.folder), job.config
    check_same_run(begun, config)
    metrics = begun.metrics()
    trained = metrics[-1]["iteration"] if metrics else 0
    if trained > config.iterations:
        raise UserError(
            f"{job.folder}: has {trained:,} iterations, expected at most {config.iterations:,}; "
            "name another --out, or at least as many --iterations"
        )
    return trained
