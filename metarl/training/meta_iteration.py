"""One meta-iteration: sample tasks, collect episodes and adapt in turn, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metarl.agents import MetaAgent
from metarl.agents.base import record
from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import Config
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure, failures_of
from metarl.rollout.sampler import Sampler
from metarl.rollout.sampling import sample_meta_batch


def meta_iteration(
    config: Config,
    agent: MetaAgent,
    env: BatchEnv | Sampler,
    iteration: int,
    timer: Timer,
    failures: list[Failure],
    recorder: Callable[[int, Sequence[Episodes]], None] | None = None,
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
            `metarl.agents.base.record`.

    Returns:
        The metrics: number of environment `steps`; returns averaged over the episodes that did not
        fail (None if all failed); and the diagnostics of the update, if it was made.

    Raises:
        EpisodeDiverged, FloatingPointError: if a number is not finite and `on_failure` is `stop`.
    """
    stops = config.on_failure == "stop"
    rng = make_rng(config.seed, Purpose.TASKS, iteration=iteration)
    tasks, task_ids = sample_meta_batch(config.sampling, config.env, rng)
    rollouts = list(
        adaptation_rollouts(
            agent,
            env,
            tasks,
            config.sampling.adaptation_steps,
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
    num_dropped = len(failures)
    diagnostics: dict[str, float] = {}
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
    first, last = rollouts[0].episodes, rollouts[-1].episodes
    before, after = first.mean_return, last.mean_return
    rates = {"before": first.success_rate, "after": last.success_rate}
    skipped = {"dropped_episodes": num_dropped, "skipped_update": int(not updated)}
    return {
        "steps": sum(episodes.num_steps for _, episodes in rollouts),
        "return_before": before,
        "return_after": after,
        "adaptation_gain": None if before is None or after is None else after - before,
        **{f"success_{when}": rate for when, rate in rates.items() if rate is not None},
        **({} if stops else skipped),
        **diagnostics,
    }
