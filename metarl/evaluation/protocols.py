"""Protocols: named ways to measure how an agent adapts to tasks that it has not seen.

Each takes an agent, a family and the same `Setting`, and returns `Parts`: evaluations by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Discrete

from metarl.agents.base import MetaAgent
from metarl.core.errors import MAX_ADAPTATIONS, UserError, check, check_amount, check_known
from metarl.core.parallel import keep_freed_memory, single_threaded_torch
from metarl.core.rng import MAX_SEED, Purpose
from metarl.core.timer import Timer
from metarl.envs import Perturbed, TaskFamily
from metarl.evaluation.evaluate import (
    SCHEDULES,
    Evaluation,
    check_complete,
    chosen_tasks,
    evaluate,
    step_scales,
)
from metarl.rollout.collect import collect, episode_rngs
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure, OnFailure

EXPERIENCE = (1, 2, 3, 5, 10, 20)
"""Numbers of episodes after which `few_episode` looks."""
REPEATS = 5
"""How often `few_episode` gathers experience of a task anew."""
STRENGTHS: dict[str, tuple[Any, ...]] = {
    "observation_noise": (0.05, 0.1, 0.2, 0.4),
    "action_delay": (1, 2, 4),
    "motor_strength": (0.8, 0.6, 0.4),
}
"""What `robust` changes, one thing at a time: fields of `metarl.envs.Perturbed`."""
SEQUENCE = 5
"""How many tasks `continual` meets one after another."""


@dataclass(frozen=True)
class Setting:
    """What an evaluation is asked for.

    Attributes:
        split: the task set.
        tasks: how many of its tasks.
        episodes: per task and adaptation step.
        steps: adaptation steps.
        schedule: of their sizes, `halving`, `geometric` or `constant`.
        seed: of the episodes.
        threads: for the physics; no influence on the results.
        on_failure: `stop` where an episode fails, or leave it out.
    """

    split: str = "test"
    tasks: int = 40
    episodes: int = 20
    steps: int = 3
    schedule: str = "halving"
    seed: int = 0
    threads: int = 1
    on_failure: OnFailure = "stop"

    def __post_init__(self) -> None:
        check(self.episodes >= 1, "episodes", "at least 1", self.episodes)
        check(self.steps >= 0, "steps", "at least 0", self.steps)
        check(self.steps <= MAX_ADAPTATIONS, "steps", f"at most {MAX_ADAPTATIONS}", self.steps)
        check_amount(self.tasks * self.episodes, 1)
        check(0 <= self.seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", self.seed)
        check_known(self.schedule, SCHEDULES, "unknown schedule")

    @property
    def scales(self) -> list[float]:
        """The factor on each adaptation step."""
        return step_scales(self.schedule, self.steps)

    def noted(self, failures: list[Failure]) -> list[Failure] | None:
        """Return where failures are noted: in the list, or nowhere if the first is to stop."""
        return None if self.on_failure == "stop" else failures


Parts: TypeAlias = dict[str, Evaluation]


def part_label(method: str, part: str) -> str:
    """Name a part of a method's result."""
    return f"{method}, {part}" if part else method


def paper(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Parts:
    """A number of gradient steps, each from fresh episodes, the step halved after the first: the
    MAML paper's."""
    return {"": by_steps(agent, family, setting)}


def few_episode(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Parts:
    """One adaptation from 1, 2, 3, ... episodes of experience, so that methods of every kind stand
    on one axis. Experience is gathered several times anew for each task."""
    rows = chosen_tasks(family, setting.split, setting.tasks)
    repeats = min(REPEATS, setting.episodes)
    played = -(-setting.episodes // repeats)  # rounded up
    repeated = np.repeat(rows, repeats, axis=0)  # (B * R, task_dim)
    keep_freed_memory()
    failures: list[Failure] = []

    def play(state: Any, number: int, phase: int, alive: np.ndarray | None = None) -> Episodes:
        return collect(
            family.make_batch(len(repeated) * number, setting.threads),
            agent.actor(state),
            repeated,
            streams(setting, len(repeated), number, phase),
            Timer(),
            failures=setting.noted(failures),
            phase=phase,
            alive=alive,
        )

    with single_threaded_torch():
        state = agent.initial_state(len(repeated))
        experience = play(state, max(EXPERIENCE), 0)
        returns = []
        for number in (0, *EXPERIENCE):
            seen = experience.first(number)
            adapted = agent.adapt(state, seen) if number else state
            alive = seen.alive if number else None
            # The same streams for each number of episodes: differences are due to the experience.
            after = play(adapted, played, 1, alive)
            returns.append(after.returns.reshape(len(rows), -1))
    result = Evaluation(
        family=family.name,
        split=setting.split,
        task_hash=family.task_hash(rows),
        tasks=rows,
        returns=np.stack(returns, axis=1),
        step_scales=(1.0,),
        seed=setting.seed,
        axis="episodes of experience",
        points=(0, *EXPERIENCE),
        failures=tuple(failures),
    )
    check_complete(result)
    return {"": result}


def ood(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Parts:
    """`paper` on tasks like the trained ones and on tasks out of distribution."""
    splits = {"in distribution": setting.split, "out of distribution": "ood"}
    return {
        name: by_steps(agent, family, replace(setting, split=split))
        for name, split in splits.items()
    }


def robust(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Parts:
    """`paper` under conditions that were not trained for: noisy sensors, late actions, weaker
    motors, each at several strengths."""
    parts = {"usual": by_steps(agent, family, setting)}
    for name, strengths in STRENGTHS.items():
        if name == "motor_strength" and isinstance(family.action_space, Discrete):
            continue
        for strength in strengths:
            worse = Perturbed(family, **{name: strength})
            parts[f"{name} {strength:g}"] = by_steps(agent, worse, setting)
    return parts


def continual(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Parts:
    """Tasks met one after another, adapting to each from the meta-parameters or going on from the
    last task's: after each, the return on every task of the sequence."""
    rows = chosen_tasks(family, setting.split, setting.tasks)
    number = len(rows) // SEQUENCE
    check(number >= 1, "tasks", f"at least {SEQUENCE}, one sequence", setting.tasks)
    sequences = rows[: number * SEQUENCE].reshape(number, SEQUENCE, -1)
    keep_freed_memory()
    env = family.make_batch(number * setting.episodes, setting.threads)

    def play(
        state: Any, place: int, phase: int, alive: np.ndarray, failures: list[Failure]
    ) -> Episodes:
        return collect(
            env,
            agent.actor(state),
            sequences[:, place],
            streams(setting, number, setting.episodes, phase),
            Timer(),
            failures=setting.noted(failures),
            phase=phase,
            alive=alive,
        )

    def meet(go_on: bool) -> Evaluation:
        """Return the returns of every task, before and after each has been met."""
        state, alive = agent.initial_state(number), np.ones(number, bool)
        looks, failures = [], []
        for met in range(SEQUENCE + 1):
            if met and not go_on:
                state, alive = agent.initial_state(number), np.ones(number, bool)
            for step, scale in enumerate(setting.scales if met else ()):
                phase = 1 + (met - 1) * setting.steps + step
                episodes = play(state, met - 1, phase, alive, failures)
                state = agent.adapt(state, episodes, scale)
                alive = alive & episodes.alive
            places = (play(state, place, 0, alive, failures) for place in range(SEQUENCE))
            looks.append([episodes.returns for episodes in places])
        # (met, place, S, E) -> (S, place, met, E) -> (S * place, met, E)
        returns = np.transpose(looks, (2, 1, 0, 3)).reshape(number * SEQUENCE, SEQUENCE + 1, -1)
        result = Evaluation(
            family=family.name,
            split=setting.split,
            task_hash=family.task_hash(sequences.reshape(number * SEQUENCE, -1)),
            tasks=sequences.reshape(number * SEQUENCE, -1),
            returns=returns,
            step_scales=tuple(setting.scales),
            seed=setting.seed,
            axis="tasks met",
            points=tuple(range(SEQUENCE + 1)),
            failures=tuple(failures),
        )
        check_complete(result, SEQUENCE)
        return result

    with single_threaded_torch():
        return {"from the meta-parameters": meet(False), "going on": meet(True)}


PROTOCOLS: dict[str, Callable[[MetaAgent, TaskFamily, Setting], Parts]] = {
    protocol.__name__: protocol for protocol in (paper, few_episode, ood, robust, continual)
}


def by_steps(agent: MetaAgent, family: TaskFamily, setting: Setting) -> Evaluation:
    """Evaluate step by step, as the setting says."""
    return evaluate(
        agent,
        family,
        split=setting.split,
        tasks=setting.tasks,
        episodes=setting.episodes,
        steps=setting.steps,
        scales=setting.scales,
        seed=setting.seed,
        threads=setting.threads,
        on_failure=setting.on_failure,
    )


def streams(
    setting: Setting, num_tasks: int, num_episodes: int, phase: int
) -> Sequence[np.random.Generator]:
    """Return the random streams of the episodes of one phase."""
    use = Purpose.EVALUATION_EPISODES
    return episode_rngs(setting.seed, use, num_tasks, num_episodes, phase=phase)


@dataclass(frozen=True)
class Forgetting:
    """What going through sequences of tasks did to the tasks met before (Lopez-Paz and Ranzato
    2017), from the returns R[s, i, j] on task j after the i first tasks of sequence s were met.

    Attributes:
        matrix: mean of R over sequences, (L + 1, L).
        average: of the returns on all tasks at the end, by sequence, (S,).
        backward_transfer: by how much they are above those when the task had just been met, over
            all tasks but the last, (S,). Negative is forgetting.
        forgetting: by how much they are below the best that came before, (S,).
    """

    matrix: np.ndarray
    average: np.ndarray
    backward_transfer: np.ndarray
    forgetting: np.ndarray


def forgetting(result: Evaluation) -> Forgetting:
    """Compute it from a part of `continual`, over the sequences of which nothing was left out.

    Raises:
        UserError: if there is none.
    """
    length = len(result.points) - 1
    # (S * L, L + 1) -> R (S, L + 1, L)
    matrix = np.swapaxes(result.by_task.reshape(-1, length, length + 1), 1, 2)
    matrix = matrix[np.isfinite(matrix).all(axis=(1, 2))]
    if not len(matrix):
        raise UserError(f"{result.family}: no sequence of tasks is left that was played to the end")
    met, last = matrix[:, 1:], matrix[:, -1]  # (S, L, L), (S, L)
    just_met = np.diagonal(met, axis1=1, axis2=2)  # (S, L)
    # The best on a task from when it was met until the end, the end left out.
    best = np.stack([met[:, j:-1, j].max(axis=1) for j in range(length - 1)], axis=1)
    return Forgetting(
        matrix=matrix.mean(axis=0),
        average=last.mean(axis=1),
        backward_transfer=(last - just_met)[:, :-1].mean(axis=1),
        forgetting=(best - last[:, :-1]).mean(axis=1),
    )
