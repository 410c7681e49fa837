"""The only training loop."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from metarl.agents import MetaAgent
from metarl.config import Config, family_keys
from metarl.core.errors import UserError
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.schema_keys import by_path
from metarl.core.timer import Timer
from metarl.envs import WorkerError, family_class, family_name
from metarl.rollout.failures import EpisodeDiverged, Failure, failures_of
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.run import Run, is_free
from metarl.training.meta_iteration import meta_iteration
from metarl.training.monitor import TrainingMonitor
from metarl.training.progress import Progress
from metarl.training.signals import stop_signals
from metarl.training.tracking import Tracker, start_tracker, tracked
from metarl.training.tracking_environment import check_environment

ENVIRONMENT_KEYS = ("benchmark", "env_name", "env_id")
"""Keys of task families that choose the environments."""


class Interrupted(Exception):
    """A signal stopped the training, and its state has been saved.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, run: Run, iteration: int, signal_number: int) -> None:
        self.signal = signal_number
        super().__init__(
            f"stopped after iteration {iteration}; go on with: "
            f"metarl train --resume {run.directory}"
        )


def train(config: Config, out: str | Path | None = None) -> Run:
    """Meta-train a new run.

    Args:
        config: the config of the run.
        out: the run's folder, which must not exist; by default runs/FAMILY-METHOD-seedN.

    Returns:
        The finished run.

    Raises:
        UserError: if the folder exists, the device is not available, or WANDB_MODE is no mode.
        WorkerError: if an environment of the user's does not repeat its episodes.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    return Trainer.create(config, out).run()


def resume(directory: str | Path) -> Run:
    """Continue an interrupted run; the finished run is identical to an uninterrupted one.

    Raises:
        UserError: if the run does not exist or is finished, if another process is training it, or
            if all its checkpoints are damaged.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    return Trainer.resume(directory).run()


def start_or_resume(config: Config, out: str | Path) -> Run:
    """Start the run of a config in the folder `out`, or continue it, and return the finished run.

    An existing run may have been started with another number of iterations: the result is identical
    to a run that was started with this config. A run with enough iterations is not changed.

    Raises:
        UserError: if the folder has a run of another config, or another process is training it.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    return Trainer.create_or_resume(config, out).run()


def default_directory(config: Config, source: str | None = None) -> Path:
    """Return the default folder of a run: runs/FAMILY-METHOD-seedN.

    Args:
        config: the config of the run.
        source: path or name of the config, whose last part replaces the method, since several files
            may have one label. `config.yaml`, the name of a run's own config, does not.

    A family whose settings choose the environments, such as Meta-World's, has these settings after
    its name where they are not the defaults: runs/metaworld-ML10-METHOD-seedN.
    """
    defaults = {key.path: key.default for key in family_keys(family_class(family_name(config.env)))}
    values = by_path({"env": config.to_dict()["env"]})
    paths = [f"env.{name}" for name in ENVIRONMENT_KEYS]
    chosen = [values[path] for path in paths if values.get(path) != defaults.get(path)]
    stem = "" if source is None else Path(source).name.removesuffix(".yaml")
    label = config.method if stem in ("", "config") else stem
    name = "-".join([config.env.name, *map(str, chosen), label, f"seed{config.seed}"])
    # Replaces characters such as "/", which would lead out of the folder `runs`.
    return Path("runs") / re.sub(r"[^\w.+=,@-]", "-", name)


def initial_checkpoint(agent: MetaAgent) -> Checkpoint:
    """Return the checkpoint of a run before its first iteration."""
    return Checkpoint(0, 0, -np.inf, agent.state_dict())


class Trainer:
    """Trains the remaining iterations of a run.

    Attributes:
        directory: the run's folder.
    """

    def __init__(
        self, run: Run, agent: MetaAgent | None = None, *, allow_finished: bool = False
    ) -> None:
        """Set up the training of a run.

        Args:
            run: the run.
            agent: the initial agent of a new run; None makes it when it is needed.
            allow_finished: whether `run` accepts a run without remaining iterations.
        """
        self._run, self._agent, self._allow_finished = run, agent, allow_finished
        self.directory = run.directory

    @classmethod
    def create(cls, config: Config, out: str | Path | None = None) -> Trainer:
        """Create a run in a new folder; see `train`."""
        check_environment()
        agent = config.make_agent()
        config.env.check_repeatable()
        return cls(Run.create(config, Path(out) if out else default_directory(config)), agent)

    @classmethod
    def resume(cls, directory: str | Path) -> Trainer:
        """Open an interrupted run; see `resume`."""
        return cls(Run.open(Path(directory)))

    @classmethod
    def create_or_resume(cls, config: Config, out: str | Path) -> Trainer:
        """Create a run, or open it if it exists; see `start_or_resume`."""
        directory = Path(out)
        if is_free(directory):
            return cls.create(config, directory)
        run = Run.open(directory)
        begun, wanted = (by_path(each.to_dict()) for each in (run.config, config))
        for key in sorted((wanted.keys() | begun.keys()) - {"iterations"}):
            if wanted.get(key) != begun.get(key):
                raise UserError(
                    f"{directory}: was begun with {key} = {begun.get(key)}, not {wanted.get(key)}; "
                    "choose another folder with --out"
                )
        if len(run.metrics()) <= config.iterations != run.config.iterations:
            run = run.with_iterations(config.iterations)
        return cls(run, allow_finished=True)

    def run(self) -> Run:
        """Train the remaining iterations.

        Returns:
            The finished run.

        Raises:
            UserError: if the run is finished already, if another process is training it, or if all
                its checkpoints are damaged.
            Interrupted: at SIGINT or SIGTERM, after the state was saved.
            EpisodeDiverged, NotFinite: if a number is not finite and `on_failure` is `stop`, after
                the state was saved.
            WorkerError: if an environment cannot be started, or fails (after saving).
            StorageError: if the run cannot be written; its last checkpoint is undamaged.
        """
        run, config = self._run, self._run.config
        with run.lock():
            state, agent = self._initial_state()
            if state.iteration >= config.iterations:
                if self._allow_finished:
                    return run
                raise UserError(
                    f"{run.directory}: finished already ({config.iterations} iterations)"
                )
            keep_freed_memory()
            run.rewind(state.iteration)
            num_episodes = config.sampling.num_tasks * config.sampling.num_episodes
            env = config.env.make_batch(num_episodes, config.num_threads)
            timer = Timer(agent.device)
            tracker = start_tracker(run)
            monitor = TrainingMonitor(agent.max_update_kl)
            returns = []
            for line in run.metrics():
                returns.append(line["return_after"])
                monitor(line)
            progress = Progress(run, state.iteration)
            with finishing(tracker, run), single_threaded_math(), stop_signals() as stop, progress:
                for iteration in range(state.iteration, config.iterations):
                    start = time.perf_counter()
                    done = iteration + 1
                    failures: list[Failure] = []
                    try:
                        metrics = meta_iteration(config, agent, env, iteration, timer, failures)
                    except (EpisodeDiverged, FloatingPointError, WorkerError) as error:
                        run.record(done, [*failures, *failures_of(error)])
                        run.save(state, best=False, keep=False)
                        raise
                    seconds = time.perf_counter() - start
                    returns.append(metrics["return_after"])

                    warnings = monitor(metrics)
                    for warning in warnings:
                        print(f"warning: iteration {done}: {warning}", flush=True)
                    if monitor.warnings:
                        metrics["warnings"] = len(monitor.warnings)
                    run.record(done, [*failures, *warnings])
                    env_steps = state.env_steps + metrics.pop("steps")
                    metrics = {"iteration": done, "env_steps": env_steps, **metrics}
                    timings = {
                        "iteration": done,
                        "seconds": seconds,
                        "env_steps_per_second": (env_steps - state.env_steps) / seconds,
                        **{f"seconds/{name}": spent for name, spent in timer.restart().items()},
                    }
                    run.log(metrics, timings)
                    tracker.log(tracked(metrics, timings))
                    progress(metrics, timings)

                    due = done % config.checkpoint_every == 0 or done == config.iterations
                    # The mean over all iterations since the last checkpoint has less variance than
                    # the mean of one meta-batch.
                    recent = mean_return(returns[-config.checkpoint_every :])
                    best = due and recent > state.best_return
                    best_return = recent if best else state.best_return
                    state = Checkpoint(done, env_steps, best_return, agent.state_dict())
                    if due or stop:
                        run.save(state, best=best, keep=due)
                    if due and config.tracking.artifacts == "all":
                        tracker.artifact("checkpoint", run.checkpoints / "latest.pt")
                    if stop and done < config.iterations:
                        raise Interrupted(run, done, stop[0])
        return run

    def _initial_state(self) -> tuple[Checkpoint, MetaAgent]:
        """Return the checkpoint at which training starts, and the agent of this checkpoint."""
        state = self._run.resumable()
        if state is None:
            agent = self._agent or self._run.config.make_agent()
            return initial_checkpoint(agent), agent
        return state, self._run.config.make_agent(state.agent)


def mean_return(returns: list[float | None]) -> float:
    """Return the mean of the returns that are not None; -inf if all are None."""
    known = [each for each in returns if each is not None]
    return float(np.mean(known)) if known else -np.inf


@contextmanager
def finishing(tracker: Tracker, run: Run) -> Iterator[None]:
    """Call `tracker.finish` at the end of the block, also after an error.

    Before that, the last checkpoint is sent, if the config wants only this one.
    """
    try:
        yield
    finally:
        last = run.checkpoints / "latest.pt"
        if run.config.tracking.artifacts == "last" and last.exists():
            tracker.artifact("checkpoint", last)
        tracker.finish()
