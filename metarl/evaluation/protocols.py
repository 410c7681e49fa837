"""Protocols: named measurements of adaptation to the tasks of a fixed set.

A protocol is a function of an agent, a task family and an `EvaluationConfig` that returns
`Results`: evaluations by the name of a part. All protocols raise ConfigError, EpisodeDiverged and
UserError as `metarl.evaluation.evaluate.evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from metarl.agents import MetaAgent, measuring_actor
from metarl.core.errors import UserError, check, check_amount, check_known
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.timer import Timer
from metarl.envs import Perturbed, TaskFamily
from metarl.evaluation.config import PERTURBATIONS, EvaluationConfig, plain_strengths
from metarl.evaluation.continual import continual, number_of_sequences
from metarl.evaluation.drift import check_drifts, drift
from metarl.evaluation.evaluate import (
    arranged,
    complete_result,
    evaluate,
    possible_adaptations,
    score,
    stack,
    without,
)
from metarl.evaluation.tasks import chosen_tasks, is_number_of_tasks
from metarl.rollout.collect import collect
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.runs.result import Evaluation, Results
from metarl.runs.result_files import RENAMED_PROTOCOLS

EXPERIENCE_LABEL = "episodes of experience"


def k_step(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure the return after 0, 1, ..., `config.steps` adaptations, each by new episodes.

    This is the evaluation of Finn et al. 2017, where the step size is halved after the first
    adaptation.
    """
    return {"": evaluate_k_step(agent, family, config)}


def few_episode(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure the return after no experience, and after each number of episodes of experience in
    `config.experience`.

    The number of episodes is comparable between all kinds of agents. An agent that remembers plays
    `config.trials` trials of each task, episode after episode, and x is the number of episodes
    before the measured one. Other agents adapt once to all episodes of experience, which are
    collected `config.trials` times for each task, but not more often than `config.episodes`. As
    many episodes are measured after each time, `config.episodes` or a few more in all.
    """
    if agent.remembers:
        return {"": evaluate_trials(agent, family, config)}
    rows = chosen_tasks(family, config.split, config.tasks)
    repeats = min(config.trials, config.episodes)
    test_episodes = -(-config.episodes // repeats)  # rounded up
    most = max(*config.experience, test_episodes)
    amounts = {"tasks": len(rows) * repeats, "episodes": most, "env.horizon": family.horizon}
    check_amount(amounts)
    repeated = np.repeat(rows, repeats, axis=0)  # (B * R, task_dim)
    keep_freed_memory()
    failures: list[Failure] = []

    def play(
        state: Any,
        num_episodes: int,
        adaptation_step: int,
        task_mask: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> Episodes:
        return collect(
            family.make_batch(len(repeated) * num_episodes, config.threads),
            measuring_actor(agent, state, deterministic),
            repeated,
            config.episode_rngs(len(repeated), num_episodes, adaptation_step),
            Timer(),
            config.on_step,
            failures=config.failure_sink(failures),
            adaptation_step=adaptation_step,
            task_mask=task_mask,
        )

    with single_threaded_math():
        state = agent.initial_state(len(repeated))
        experience = play(state, max(config.experience), 0)
        scores = []
        x = (0, *config.experience) if possible_adaptations(agent, 1) else (0,)
        for num_episodes in x:
            support = experience.first(num_episodes)
            adapted = agent.adapt(state, support) if num_episodes else state
            task_mask = support.task_mask if num_episodes else None
            # Equal random numbers for each number of episodes: differences are due to experience.
            scores.append(score(play(adapted, test_episodes, 1, task_mask, config.deterministic)))
    # A repeat counts after each number of episodes of experience or not at all, (B * R, 1).
    lost = [np.isnan(returns).all(axis=1, keepdims=True) for returns, _ in scores]
    scores = without(scores, np.any(lost, axis=0))
    result = complete_result(
        family,
        rows,
        **arranged(scores, lambda phases: stack([each.reshape(len(rows), -1) for each in phases])),
        x_label=EXPERIENCE_LABEL,
        x=x,
        failures=tuple(each.with_index(lambda row: row // repeats) for each in failures),
        **config.recorded,
    )
    return {"": result}


def evaluate_trials(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Evaluation:
    """Return the returns of the episodes of trials after `config.experience` episodes."""
    x = (0, *config.experience)
    played = replace(config, episodes=config.trials, steps=max(x))
    result = evaluate_k_step(agent, family, played)
    success = None if result.success is None else result.success[:, x]
    return replace(
        result, returns=result.returns[:, x], success=success, x=x, x_label=EXPERIENCE_LABEL
    )


def ood(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure `k_step` on tasks of the training distribution, and on tasks outside of it.

    Raises:
        UserError: if the tasks are one's own; their protocol is `k_step`.
    """
    check_ood(family, config)
    splits = {"in distribution": config.split, "out of distribution": "ood"}
    return {
        name: evaluate_k_step(agent, family, replace(config, split=split))
        for name, split in splits.items()
    }


def check_ood(family: TaskFamily, config: EvaluationConfig) -> None:
    """Check that a family has two task sets to compare.

    Raises:
        UserError: if the tasks are one's own or out of distribution, or the family has none of the
            latter.
    """
    if not is_number_of_tasks(config.tasks):
        raise UserError(
            "protocol ood: compares two task sets, so it takes no tasks of your own; expected "
            "k_step, few_episode, robust, continual or drift"
        )
    expected = "train, validation or test, with which the protocol ood compares"
    check(config.split != "ood", "split", expected, config.split)
    chosen_tasks(family, "ood", config.tasks)


def robust(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure `k_step` without perturbations, and with perturbations that are absent in training,
    one at a time: observation noise, delayed actions and weaker motors, at several strengths.

    Raises:
        UserError: as `perturbed_families`.
    """
    envs = perturbed_families(family, config.perturbations)
    return {part: evaluate_k_step(agent, env, config) for part, env in envs.items()}


def perturbed_families(
    family: TaskFamily, perturbations: Mapping[str, Sequence[float]] = PERTURBATIONS
) -> dict[str, TaskFamily]:
    """Return a family without perturbations, `nominal`, and with each that it can have, by the part
    of `robust`. Actions that are choices have no strength.

    Raises:
        UserError: if perturbations of one's own have the strength of motors all the same.
    """
    found = {"nominal": family}
    defaults = plain_strengths(perturbations) == plain_strengths(PERTURBATIONS)
    for name, strengths in perturbations.items():
        if name == "motor_strength" and isinstance(family.action_space, Discrete):
            if defaults:
                continue
            raise UserError(
                f"perturbations: motor_strength: the actions of {family.name} are choices, which "
                "have no strength"
            )
        for strength in strengths:
            value: Any = int(strength) if name == "action_delay" else strength
            found[f"{name} {value:g}"] = Perturbed(family, **{name: value})
    return found


PROTOCOLS: dict[str, Callable[[MetaAgent, TaskFamily, EvaluationConfig], Results]] = {
    protocol.__name__: protocol for protocol in (k_step, few_episode, ood, robust, continual, drift)
}
UNUSED_SETTINGS = {
    **{name: {"trials", "experience", "perturbations"} for name in PROTOCOLS},
    "few_episode": {"steps", "perturbations"},
    "robust": {"trials", "experience"},
}
"""The settings of an evaluation that have no influence on the results of a protocol."""
CHECKS: dict[str, Callable[[TaskFamily, EvaluationConfig, np.ndarray], object]] = {
    "ood": lambda family, config, rows: check_ood(family, config),
    "robust": lambda family, config, rows: perturbed_families(family, config.perturbations),
    "continual": lambda family, config, rows: number_of_sequences(rows),
    "drift": lambda family, config, rows: check_drifts(family, rows),
}
"""What each protocol checks of a family, the settings and their tasks, (B, task_dim)."""


def check_protocol(name: str) -> None:
    """Check the name of a protocol.

    Raises:
        UserError: if the name is unknown; gives the present name of a renamed protocol, or the
            nearest name.
    """
    if name in RENAMED_PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}: its name is now {RENAMED_PROTOCOLS[name]!r}")
    check_known(name, PROTOCOLS, "unknown protocol")


def check_measurable(name: str, family: TaskFamily, config: EvaluationConfig) -> None:
    """Check that a protocol can measure on a family, before anything is trained or played.

    Raises:
        UserError: as the protocol.
    """
    check_protocol(name)
    rows = chosen_tasks(family, config.split, config.tasks)
    amounts = {"tasks": len(rows), "episodes": config.episodes, "env.horizon": family.horizon}
    check_amount(amounts)
    if name in CHECKS:
        CHECKS[name](family, config, rows)


def evaluate_k_step(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Evaluation:
    """Call `evaluate` with the settings of `config`."""
    return evaluate(
        agent,
        family,
        split=config.split,
        tasks=config.tasks,
        episodes=config.episodes,
        steps=config.steps,
        seed=config.seed,
        threads=config.threads,
        on_failure=config.on_failure,
        deterministic=config.deterministic,
        on_step=config.on_step,
    )
