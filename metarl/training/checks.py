"""What a new run needs, checked before it has a folder, and before other runs are trained."""

from __future__ import annotations

from pathlib import Path

from metarl.config import Config
from metarl.core.errors import ConfigError, warn
from metarl.envs import family_name
from metarl.envs.contract.declaration import spaces
from metarl.envs.contract.recording import Violation
from metarl.envs.contract.tasks import sampled_tasks
from metarl.rollout.sampling import training_tasks
from metarl.training.memory import check_disk, check_memory
from metarl.training.tracking import check_trackers


def check_found_again(config: Config) -> None:
    """Check that the class of the task family can be imported when the run is opened; warn of one
    that only the same script or notebook finds.

    Raises:
        ConfigError: if it is defined inside a function.
    """
    name = family_name(config.env)
    remedy = "put the class into a module, a file that is imported"
    if "<locals>" in name:
        raise ConfigError(
            f"env: {name}: expected a class outside of functions, with which the run can be opened "
            f"again; {remedy}"
        )
    if name.startswith("__main__:"):
        warn(f"env: {name}: only this script or notebook can open the run again; {remedy}")


def check_startable(config: Config, directory: Path) -> None:
    """Check that a run can begin on this machine: its trackers, memory, disk and environment. Its
    agent is checked by making it.

    Args:
        config: the config of a new run.
        directory: the run's folder, which may not exist yet.

    Raises:
        ConfigError: if a setting asks for what there is not, such as the memory.
        UserError: if a variable of W&B has a value that W&B refuses.
        WorkerError: if the environment cannot be started, or two of its episodes differ.
    """
    check_found_again(config)
    check_trackers(config)
    try:
        spaces(config.training_env)
        if ":" in family_name(config.env):  # of the user's
            sampled_tasks(config.env)
        if config.sampling.train_tasks:
            training_tasks(config.sampling, config.env)
    except Violation as error:  # of a family of the user's
        hint = "metarl check-env looks at the rest"
        raise ConfigError(f"env: {config.env.name}: {error}; {hint}") from error
    check_memory(config)
    config.env.check_repeatable()
    check_disk(config, directory)
