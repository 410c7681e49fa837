"""The only training loop."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from metarl.agents.base import MetaAgent, make_agent
from metarl.config import Config
from metarl.core.errors import UserError
from metarl.core.parallel import keep_freed_memory, single_threaded_torch
from metarl.core.rng import Purpose, make_rng
from metarl.core.schema import flat
from metarl.core.timer import Timer
from metarl.envs import WorkerError
from metarl.rollout.collect import adaptation
from metarl.rollout.failures import EpisodeDiverged, Failure, Watch, failures_of
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.run import Run, is_free
from metarl.training.progress import Progress
from metarl.training.tracking import Tracker, start_tracker

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training was asked to stop, and saved what it had.

    Attributes:
        signal: the signal that asked.
    """

    def __init__(self, run: Run, iteration: int, signal_number: int) -> None:
        self.signal = signal_number
        super().__init__(
            f"stopped after iteration {iteration}; go on with: "
            f"metarl train --resume {run.directory}"
        )


def train(config: Config, out: str | Path | None = None) -> Run:
    """Meta-train from the beginning.

    Args:
        config: the experiment.
        out: the run's folder, which must not exist; by default runs/FAMILY-METHOD-seedN.

    Returns:
        The finished run.

    Raises:
        UserError: if the folder exists, or the device does not.
        Interrupted: on SIGINT or SIGTERM, after saving.
        EpisodeDiverged, NotFinite: if numbers stop being finite and `on_failure` is `stop`, after
            saving.
        WorkerError: if an environment cannot be used, or fails (after saving).
        StorageError: if the run cannot be written; its last checkpoint is whole.
    """
    agent = make_agent(config)
    run = Run.create(config, Path(out) if out else default_directory(config))
    _go_on(run, agent)
    return run


def resume(directory: str | Path) -> Run:
    """Go on with an interrupted run, as if it had never been.

    Raises:
        UserError: if there is no such run, it is finished, another process is training it, or none
            of its checkpoints is whole.
        Interrupted: on SIGINT or SIGTERM, after saving.
        StorageError: if the run cannot be written; its last checkpoint is whole.
    """
    run = Run.open(Path(directory))
    if not _go_on(run):
        raise UserError(f"{run.directory}: finished already ({run.config.iterations} iterations)")
    return run


def start_or_resume(config: Config, out: str | Path) -> Run:
    """Bring the run of a config to its end, whether it has begun, is unfinished or finished.

    It goes on up to the config's iterations even if it was begun with more or fewer, and is then to
    the letter what it would be if begun with those. One that is past them is left as it is.

    Raises:
        UserError: if the folder holds a run of another config, or another process is training it.
        Interrupted: on SIGINT or SIGTERM, after saving.
    """
    directory = Path(out)
    if is_free(directory):
        return train(config, directory)
    run = Run.open(directory)
    begun, wanted = (flat(each.to_dict()) for each in (run.config, config))
    for key in sorted((wanted.keys() | begun.keys()) - {"iterations"}):
        if wanted.get(key) != begun.get(key):
            raise UserError(
                f"{directory}: was begun with {key} = {begun.get(key)}, not {wanted.get(key)}; "
                "choose another folder with --out"
            )
    if len(run.metrics()) > config.iterations:
        return run
    if config.iterations != run.config.iterations:
        run = run.with_iterations(config.iterations)
    _go_on(run)
    return run


def default_directory(config: Config) -> Path:
    """Return where a run goes if the user does not say."""
    name = f"{config.env.name}-{config.method}-seed{config.seed}"
    # A folder in `runs`, whatever they are called.
    return Path("runs") / re.sub(r"[^\w.+=,@-]", "-", name)


def beginning(agent: MetaAgent) -> Checkpoint:
    """Return the state of a run that has not begun."""
    return Checkpoint(0, 0, -np.inf, agent.state_dict())


def _go_on(run: Run, agent: MetaAgent | None = None) -> bool:
    """Train what is left of a run; `agent` is that of its beginning. False if nothing is left."""
    with run.lock():
        state = run.resumable()
        if state is None:
            agent = agent or make_agent(run.config)
            state = beginning(agent)
        elif state.iteration < run.config.iterations:
            agent = make_agent(run.config, state.agent)
        else:
            return False
        _train(run, agent, state)
    return True


def _train(run: Run, agent: MetaAgent, state: Checkpoint) -> None:
    config = run.config
    keep_freed_memory()
    run.rewind(state.iteration)
    env = config.env.make_batch(config.num_tasks * config.num_episodes, config.num_threads)
    timer = Timer(agent.device)
    tracker = start_tracker(run)
    watch = Watch(config.outer)
    returns = []
    for line in run.metrics():
        returns.append(line["return_after"])
        watch(line)
    show = Progress(run, state.iteration)
    with ending(tracker), single_threaded_torch(), stop_signals() as stop, show:
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

            warnings = watch(metrics)
            for warning in warnings:
                print(f"warning: iteration {done}: {warning}", flush=True)
            if watch.warnings:
                metrics["warnings"] = len(watch.warnings)
            run.record(done, [*failures, *warnings])
            env_steps = state.env_steps + metrics.pop("steps")
            metrics = {"iteration": done, "env_steps": env_steps, **metrics}
            timings = {
                "iteration": done,
                "seconds": seconds,
                "env_steps_per_second": (env_steps - state.env_steps) / seconds,
                **{f"seconds/{section}": spent for section, spent in timer.restart().items()},
            }
            run.log(metrics, timings)
            tracker.log({k: x for k, x in {**metrics, **timings}.items() if x is not None})
            show(metrics, timings)

            due = done % config.checkpoint_every == 0 or done == config.iterations
            # The mean over the last checkpoint's worth of iterations is less a matter of luck
            # than that of one meta-batch.
            known = [each for each in returns[-config.checkpoint_every :] if each is not None]
            recent = float(np.mean(known)) if known else -np.inf
            best = due and recent > state.best_return
            best_return = recent if best else state.best_return
            state = Checkpoint(done, env_steps, best_return, agent.state_dict())
            if due or stop:
                run.save(state, best=best, keep=due)
            if due:
                tracker.artifact("checkpoint", run.checkpoints / "latest.pt")
            if stop and done < config.iterations:
                raise Interrupted(run, done, stop[0])


@contextmanager
def ending(tracker: Tracker) -> Iterator[None]:
    """Let a tracker finish, however training ends."""
    try:
        yield
    finally:
        tracker.finish()


def meta_iteration(
    config: Config,
    agent: MetaAgent,
    env: Any,
    iteration: int,
    timer: Timer,
    failures: list[Failure],
) -> dict[str, Any]:
    """Sample tasks, play before and after each adaptation, and update the meta-parameters.

    Args:
        config, agent, env: what is trained, and where; `env` of all episodes of the meta-batch.
        iteration: its number.
        timer: takes the times.
        failures: takes what went wrong, where the config does not say to stop.

    Returns:
        The metrics of the iteration: `steps` taken, returns averaged over the episodes that did not
        fail (None if all did), and the diagnostics of the update, if one was made.
    """
    rng = make_rng(config.seed, Purpose.TASKS, iteration=iteration)
    tasks = config.env.sample_tasks(rng, config.num_tasks)
    phases = list(
        adaptation(
            agent,
            env,
            tasks,
            config.inner_steps,
            seed=config.seed,
            purpose=Purpose.TRAIN_EPISODES,
            iteration=iteration,
            timer=timer,
            failures=None if config.on_failure == "stop" else failures,
        )
    )
    before, after = phases[0][1], phases[-1][1]
    dropped = len(failures)
    diagnostics: dict[str, float] = {}
    if not (dropped and config.on_failure == "skip_update"):
        try:
            diagnostics = agent.update(*phases[-1], timer)
        except FloatingPointError as error:
            if config.on_failure == "stop":
                raise
            failures.extend(failures_of(error))
    first, last = before.mean_return, after.mean_return
    rates = {"before": before.success_rate, "after": after.success_rate}
    return {
        "steps": sum(episodes.num_steps for _, episodes in phases),
        "return_before": first,
        "return_after": last,
        "adaptation_gain": None if first is None or last is None else last - first,
        **{f"success_{when}": rate for when, rate in rates.items() if rate is not None},
        **(
            {}
            if config.on_failure == "stop"
            else {"dropped_episodes": dropped, "skipped_update": int(not diagnostics)}
        ),
        **diagnostics,
    }


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that an iteration is finished and saved; a second one kills.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        print("\nfinishing the iteration, then saving; once more to stop at once", flush=True)
        for again in previous:
            signal.signal(again, signal.SIG_DFL)

    try:
        previous = {
            number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread, where Python does not allow handlers
        yield came
        return
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
