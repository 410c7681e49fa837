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

from envs import WorkerError
from metarl.agents import MetaAgent, make_agent
from metarl.checkpoint import Checkpoint
from metarl.checks import UserError
from metarl.config import Config
from metarl.parallel import keep_freed_memory, single_threaded_torch
from metarl.progress import Progress
from metarl.rollout import EpisodeDiverged, adaptation
from metarl.runs import Run
from metarl.schema import flat
from metarl.stopwatch import Stopwatch
from metarl.streams import Purpose, stream
from metarl.tracking import start_tracker

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
        EpisodeDiverged, FloatingPointError: if numbers stop being finite, after saving.
        WorkerError: if an environment cannot be used, or fails (after saving).
    """
    agent = make_agent(config)
    run = Run.create(config, Path(out) if out else default_directory(config))
    return _train(run, agent, beginning(agent))


def resume(directory: str | Path) -> Run:
    """Go on with an interrupted run, as if it had never been.

    Raises:
        UserError: if there is no such run, it is finished, or its checkpoint is damaged.
        Interrupted: on SIGINT or SIGTERM, after saving.
    """
    run = Run.open(Path(directory))
    state = run.latest()
    if state is None:  # interrupted before the first checkpoint
        agent = make_agent(run.config)
        return _train(run, agent, beginning(agent))
    if state.iteration >= run.config.iterations:
        raise UserError(f"{run.directory}: finished already ({state.iteration} iterations)")
    return _train(run, make_agent(run.config, state.agent), state)


def start_or_resume(config: Config, out: str | Path) -> Run:
    """Bring the run of a config to its end, whether it has begun, is unfinished or finished.

    Raises:
        UserError: if the folder holds a run of another config.
        Interrupted: on SIGINT or SIGTERM, after saving.
    """
    directory = Path(out)
    if not directory.exists():
        return train(config, directory)
    run = Run.open(directory)
    begun, wanted = (flat(each.to_dict()) for each in (run.config, config))
    for key in sorted(wanted.keys() | begun.keys()):
        if wanted.get(key) != begun.get(key):
            raise UserError(
                f"{directory}: was begun with {key} = {begun.get(key)}, not {wanted.get(key)}; "
                "choose another folder with --out"
            )
    state = run.latest()
    finished = state is not None and state.iteration >= config.iterations
    return run if finished else resume(directory)


def default_directory(config: Config) -> Path:
    """Return where a run goes if the user does not say."""
    name = f"{config.env.name}-{config.method}-seed{config.seed}"
    # A folder in `runs`, whatever they are called.
    return Path("runs") / re.sub(r"[^\w.+=,@-]", "-", name)


def beginning(agent: MetaAgent) -> Checkpoint:
    """Return the state of a run that has not begun."""
    return Checkpoint(0, 0, -np.inf, agent.state_dict())


def _train(run: Run, agent: MetaAgent, state: Checkpoint) -> Run:
    config = run.config
    keep_freed_memory()
    run.rewind(state.iteration)
    env = config.env.make_batch(config.num_tasks * config.num_episodes, config.num_threads)
    clock = Stopwatch(agent.device)
    tracker = start_tracker(run)
    returns = [line["return_after"] for line in run.metrics()]
    with single_threaded_torch(), stop_signals() as stop, Progress(run, state.iteration) as show:
        for iteration in range(state.iteration, config.iterations):
            start = time.perf_counter()
            try:
                metrics = meta_iteration(config, agent, env, iteration, clock)
            except (EpisodeDiverged, FloatingPointError, WorkerError):
                run.save(state, best=False, keep=False)
                tracker.finish()
                raise
            seconds = time.perf_counter() - start
            returns.append(metrics["return_after"])

            done = iteration + 1
            env_steps = state.env_steps + metrics.pop("steps")
            metrics = {"iteration": done, "env_steps": env_steps, **metrics}
            timings = {
                "iteration": done,
                "seconds": seconds,
                "env_steps_per_second": (env_steps - state.env_steps) / seconds,
                **{f"seconds/{phase}": spent for phase, spent in clock.restart().items()},
            }
            run.log(metrics, timings)
            tracker.log({**metrics, **timings})
            show(metrics, timings)

            due = done % config.checkpoint_every == 0 or done == config.iterations
            # The mean over the last checkpoint's worth of iterations is less a matter of luck
            # than that of one meta-batch.
            recent = float(np.mean(returns[-config.checkpoint_every :]))
            best = due and recent > state.best_return
            best_return = recent if best else state.best_return
            state = Checkpoint(done, env_steps, best_return, agent.state_dict())
            if due or stop:
                run.save(state, best=best, keep=due)
            if due:
                tracker.artifact("checkpoint", run.checkpoints / "latest.pt")
            if stop and done < config.iterations:
                tracker.finish()
                raise Interrupted(run, done, stop[0])
    tracker.finish()
    return run


def meta_iteration(
    config: Config, agent: MetaAgent, env: Any, iteration: int, clock: Stopwatch
) -> dict[str, Any]:
    """Sample tasks, play before and after each adaptation, and update the meta-parameters.

    Returns:
        The metrics of the iteration: `steps` taken, returns averaged over episodes and tasks, and
        the diagnostics of the update.
    """
    rng = stream(config.seed, Purpose.TASKS, iteration=iteration)
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
            clock=clock,
        )
    )
    before, after = phases[0][1], phases[-1][1]
    diagnostics = agent.update(*phases[-1], clock)
    return {
        "steps": sum(episodes.num_steps for _, episodes in phases),
        "return_before": float(before.returns.mean()),
        "return_after": float(after.returns.mean()),
        "adaptation_gain": float(after.returns.mean() - before.returns.mean()),
        **{
            f"success_{when}": float(episodes.success.mean())
            for when, episodes in (("before", before), ("after", after))
            if episodes.success is not None
        },
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
