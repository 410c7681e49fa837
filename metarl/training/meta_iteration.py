"""One meta-iteration: sample tasks, collect episodes and adapt in turn, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metarl.agents import MetaAgent, Rollout
from metarl.agents.base import Metrics
from metarl.agents.optional import record
from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import Config
from metarl.core.errors import UserError, shown
from metarl.core.parsing import is_number
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.episodes import Episodes, known_success, mean_return, success_rate
from metarl.rollout.failures import Failure, failures_of
from metarl.rollout.sampler import Sampler
from metarl.rollout.sampling import SamplingConfig
from metarl.rollout.task_sampler import TaskSampler

RESERVED = {
    *("iteration", "steps", "env_steps", "warnings", "dropped_episodes", "skipped_update"),
    *(f"return_{when}" for when in ("before", "after", "revisited", "worst")),
    *(f"success_{when}" for when in ("before", "after", "revisited")),
    "adaptation_gain",
}
"""Names of the training's own metrics, beside those that begin with "validation/"."""


def meta_iteration(
    config: Config,
    agent: MetaAgent,
    env: BatchEnv | Sampler,
    iteration: int,
    timer: Timer,
    failures: list[Failure],
    recorder: Callable[[int, Sequence[Episodes]], None] | None = None,
    task_sampler: TaskSampler | None = None,
) -> dict[str, Any]:
    """Sample tasks, alternate collection and adaptation, and update the meta-parameters.

    Args:
        config: the config of the run.
        agent: the agent, whose meta-parameters are updated.
        env: a batch environment of all episodes of the meta-batch, or a sampler of them.
        iteration: number of the iteration, from 0.
        timer: measures the sections of the iteration.
        failures: list to which failures are appended, unless `on_failure` is `stop`.
        recorder: called before the update with the number of the iteration, from 1, and its
            episodes phase by phase; None gives them to the agent only, by
            `metarl.agents.optional.record`.
        task_sampler: draws and weighs the tasks; None for a new one.

    Returns:
        The metrics: number of environment `steps`; returns averaged over the episodes that did not
        fail (None if all failed); and the diagnostics of the update, if it was made.

    Raises:
        EpisodeDiverged, FloatingPointError: if a number is not finite and `on_failure` is `stop`.
        UserError: as `plain_diagnostics`.
    """
    stops = config.on_failure == "stop"
    rng = make_rng(config.seed, Purpose.TASKS, iteration=iteration)
    task_sampler = task_sampler or TaskSampler(config.sampling, config.env)
    tasks, task_ids = task_sampler.sample(rng)
    rollouts = list(
        adaptation_rollouts(
            agent,
            env,
            tasks,
            config.sampling.adaptation_steps,
            phases=config.sampling.phases,
            seed=config.seed,
            purpose=Purpose.TRAIN_EPISODES,
            iteration=iteration,
            training=True,
            task_ids=task_ids,
            timer=timer,
            failures=None if stops else failures,
        )
    )
    phases = [episodes for _, episodes in rollouts]
    if recorder is None:
        record(agent, iteration + 1, phases)
    else:
        recorder(iteration + 1, phases)
    risk = weigh_tasks(task_sampler, rollouts)
    num_dropped = len(failures)
    metrics = {**return_metrics(config.sampling, phases), **risk}
    diagnostics: Metrics = {}
    updated = False
    if not (num_dropped and config.on_failure == "skip_update"):
        rng = make_rng(config.seed, Purpose.UPDATE, iteration=iteration)
        try:
            diagnostics = agent.update(rollouts, rng, timer)
            updated = True
        except FloatingPointError as error:
            if stops:
                raise
            failures.extend(failures_of(error))
    diagnostics = plain_diagnostics(diagnostics, config.agent.kind)
    skipped = {"dropped_episodes": num_dropped, "skipped_update": int(not updated)}
    return {
        "steps": sum(episodes.num_steps for episodes in phases),
        **metrics,
        **({} if stops else skipped),
        **diagnostics,
    }


def plain_diagnostics(diagnostics: Any, kind: str) -> Metrics:
    """Return the diagnostics of an update by an agent of a kind, as Python's numbers.

    Raises:
        UserError: if they are not finite numbers by name, or one has the name of a metric of the
            training.
    """
    if not isinstance(diagnostics, Mapping):
        raise UserError(f"{kind}: update returned {shown(diagnostics)}; expected numbers by name")
    scalars = {
        name: value.item() if getattr(value, "ndim", None) == 0 else value  # of NumPy or torch
        for name, value in diagnostics.items()
    }
    for name, value in scalars.items():
        if not is_number(value):
            found = f"{kind}: update returned {name}: {shown(value)}"
            raise UserError(f"{found}; expected a finite number")
        if name in RESERVED or name.startswith("validation/"):
            raise UserError(f"{kind}: update returned {name}, which is a metric of the training")
    return scalars


def return_metrics(sampling: SamplingConfig, phases: Sequence[Episodes]) -> dict[str, Any]:
    """Return the mean returns, and the success rates if there are any, before and after adaptation.

    Of sequences of tasks, these are means over the first and the last phase of every task while it
    is met; `return_revisited` is the mean return on the earlier tasks after the last one.
    """
    if (success := known_success([each.success for each in phases])) is not None:
        pairs = zip(phases, success, strict=True)
        phases = [replace(each, success=known) for each, known in pairs]
    period, met = sampling.adaptation_steps + 1, len(sampling.phases) - (sampling.sequence - 1)
    groups = {
        "before": phases[:met:period],
        "after": phases[period - 1 : met : period],
        "revisited": phases[met:],
    }
    groups = {name: group for name, group in groups.items() if group}
    found = {f"return_{name}": mean_return(group) for name, group in groups.items()}
    before, after = found["return_before"], found["return_after"]
    found["adaptation_gain"] = None if before is None or after is None else after - before
    rates = {f"success_{name}": success_rate(group) for name, group in groups.items()}
    return found | {name: rate for name, rate in rates.items() if rate is not None}


def weigh_tasks(task_sampler: TaskSampler, rollouts: list[Rollout]) -> dict[str, float]:
    """Give the last rollout the weights of its tasks, if they have any; and return the mean return
    after adaptation in the worst share of tasks."""
    state, episodes = rollouts[-1]
    known, returns = episodes.task_mask, episodes.task_returns
    weights = task_sampler.weigh(returns)
    if weights is None:
        return {}
    rollouts[-1] = Rollout(state, replace(episodes, task_weight=weights))
    return {"return_worst": float((weights * returns)[known].mean())} if known.any() else {}
