"""The training of one run, from the checks before it to the end of its last iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from metarl.agents import MetaAgent
from metarl.config import Config
from metarl.core.errors import ConfigError, UserError, as_path, warn
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.rollout.failures import Failure
from metarl.rollout.sampler import Sampler
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.identity import default_directory
from metarl.runs.run import Run, check_free, is_free
from metarl.training.callbacks import Callback
from metarl.training.checks import check_startable
from metarl.training.continuation import check_same_run, open_to_continue
from metarl.training.episode_source import episode_source, make_sampler
from metarl.training.iterations import Iterations
from metarl.training.memory import check_memory
from metarl.training.progress import Progress, announce
from metarl.training.signals import stop_signals
from metarl.training.tracker import Tracker
from metarl.training.tracking import check_trackers, start_tracker
from metarl.training.warm_start import check_same_origin, warm_start


class Trainer:
    """Trains the remaining iterations of a run.

    Attributes:
        directory: the run's folder.
        config: the run's config.
    """

    def __init__(
        self,
        run: Run,
        agent: MetaAgent | None = None,
        sampler: Sampler | None = None,
        *,
        begun: Config | None = None,
        allow_finished: bool = False,
    ) -> None:
        """Set up the training of a run.

        Args:
            run: the run.
            agent: the initial agent of a new run; None makes it when it is needed.
            sampler: the sampler, which `run` closes; None makes what plays the episodes when it is
                needed.
            begun: the config in the run's folder, if `run` has another one.
            allow_finished: whether a run without remaining iterations is accepted.
        """
        self._run, self._agent, self._allow_finished = run, agent, allow_finished
        self._sampler = sampler
        self._begun = begun or run.config
        self.directory, self.config = run.directory, run.config

    @classmethod
    def create(
        cls,
        config: Config,
        out: str | Path | None = None,
        init_from: str | Path | None = None,
    ) -> Trainer:
        """Create a run in a new folder; see `metarl.training.loop.train`."""
        directory = default_directory(config) if out is None else as_path("out", out)
        if init_from is not None:
            as_path("init_from", init_from)
        check_free(directory)
        check_startable(config, directory)
        sampler = make_sampler(config)  # before there is a folder: there may be no such cluster
        try:
            if init_from is None:
                agent = config.make_agent()
                return cls(Run.create(config, directory), agent, sampler)
            agent, origin = warm_start(config, init_from)
            return cls(Run.create(config, directory, origin, agent.state_dict()), agent, sampler)
        except BaseException:
            if sampler is not None:
                sampler.close()
            raise

    @classmethod
    def resume(cls, directory: str | Path, **overrides: Any) -> Trainer:
        """Open an interrupted run; see `metarl.training.loop.resume`."""
        begun = Run.open(directory)
        begun.check_trainable()
        run = open_to_continue(begun, overrides)
        check_trackers(run.config)
        return cls(run, begun=begun.config)

    @classmethod
    def create_or_resume(
        cls, config: Config, out: str | Path, init_from: str | Path | None = None
    ) -> Trainer:
        """Create a run, or open it if it exists; see
        `metarl.training.loop.start_or_resume`."""
        directory = as_path("out", out)
        if is_free(directory):
            return cls.create(config, directory, init_from)
        begun = Run.open(directory)
        begun.check_trainable()
        check_same_run(begun, config)
        check_same_origin(begun, config, init_from)
        check_trackers(config)
        return cls(Run(directory, config), begun=begun.config, allow_finished=True)

    def remaining(self) -> int:
        """Return the number of remaining iterations. Nothing is changed in the run's folder.

        Raises:
            UserError: as `run`, except that another process may be training the run.
        """
        state = self._run.resumable()
        number = self._check_unfinished(state)
        self._agent_of(state)
        return number

    def run(self, callbacks: Sequence[Callback] = ()) -> Run:
        """Train the remaining iterations.

        Args:
            callbacks: are told the events, and may stop the training.

        Returns:
            The run: finished, unless a callback stopped it.

        Raises:
            ConfigError: if the device is not available, the observations do not fit into memory, or
                more iterations are done than the config has.
            UserError: if the run is finished already, if another process is training it, or if all
                its checkpoints are damaged.
            Interrupted: at SIGINT or SIGTERM, after the state was saved.
            EpisodeDiverged, NotFinite: if a number is not finite and `on_failure` is `stop`, after
                the state was saved.
            WorkerError: if an environment cannot be started, or fails (after saving).
            StorageError: if the run cannot be written; its last checkpoint is undamaged.
        """
        run, config = self._run, self._run.config
        with ExitStack() as stack:
            made = None
            if self._sampler is not None:  # closed whatever happens before the first iteration
                made = stack.enter_context(episode_source(config, self._sampler))
            stack.enter_context(run.lock())
            state = run.restore_latest()
            if not self._check_unfinished(state):
                return Run(self.directory, self._begun)
            run.make_checkpoint_folder()  # an error comes before the first iteration
            announce(run, state.iteration if state else 0)
            warn_of(config)
            training = Iterations(run, self._agent_of(state), state)
            keep_freed_memory()
            # Before the folder changes: a cluster may not be there.
            env = made or stack.enter_context(episode_source(config))
            run.rewind(training.state.iteration)
            self._record_changes(training.state.iteration)
            training.restore()
            progress = Progress(run, training.state.iteration)
            tracker = start_tracker(run)
            with (
                finishing(tracker, run),
                single_threaded_math(),
                stop_signals() as stop,
                progress,
            ):
                training.run(env, tracker, progress, stop, callbacks)
        return run

    def _agent_of(self, state: Checkpoint | None) -> MetaAgent:
        """Return the agent of a checkpoint; the initial agent for None."""
        check_memory(self.config)
        if state is None:
            return self._agent or self.config.make_agent()
        return self._run.make_agent(state)

    def _check_unfinished(self, state: Checkpoint | None) -> int:
        """Return the number of iterations that remain after a checkpoint.

        Raises:
            UserError: if none remain, unless `allow_finished` is true.
        """
        done, wanted = state.iteration if state else 0, self.config.iterations
        if done < wanted or self._allow_finished:
            return max(wanted - done, 0)
        if done > wanted:
            raise ConfigError(
                f"--iterations: {self.directory} has {done} already; expected more, got {wanted}"
            )
        raise UserError(
            f"{self.directory}: finished already ({done} iterations); more --iterations train it on"
        )

    def _record_changes(self, iteration: int) -> None:
        """Write the config if it is not the one in the run's folder. Warn of another device, also
        in `failures.jsonl`, if `iteration`, the last one on the first device, is not 0."""
        run, begun = self._run, self._begun
        if self.config == begun:
            return
        if iteration and self.config.device != begun.device:
            change = Failure(
                "warning",
                f"from iteration {iteration + 1} on the device is {self.config.device}, in place "
                f"of {begun.device}: results are no longer bit for bit those of {begun.device}",
            )
            warn(f"{run.directory}: {change}")
            run.record(iteration, [change])
        run.write_config()


def warn_of(config: Config) -> None:
    """Print the warnings of a config's agent before a training."""
    for remark in config.agent.remarks(config.iterations):
        warn(remark)


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
