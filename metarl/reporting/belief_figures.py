"""The figures of what an agent believes about its tasks.

B is the number of tasks, L the number of steps of a trial that took place, d the size of the latent
variable, k the number of numbers of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.agents.optional import Beliefs, has_beliefs
from metarl.core.errors import UserError
from metarl.envs import WorkerError
from metarl.evaluation.beliefs import (
    Reading,
    TrialBeliefs,
    first_tasks,
    fit_reading,
    trial_beliefs,
)
from metarl.reporting.groups import group_runs
from metarl.reporting.names import method_texts, task_texts
from metarl.reporting.style import (
    COLOURS,
    REFERENCE,
    TEXT,
    Drawing,
    legend_below,
    style_axes,
    title_above,
)
from metarl.reporting.summary import RunSummary
from metarl.rollout.failures import EpisodeDiverged

TEST_TASKS = 40
"""Number of test tasks whose trials are played, at most."""
TRIALS = 4
"""Number of tasks whose trials are drawn."""
LATENTS = 6
"""Numbers of the latent variable that are drawn, those that tell most about the tasks."""
NUMBERS = 6
"""Numbers of a task that are drawn, those that the beliefs tell most about."""
MARGIN = 0.5
"""Share of the range of tasks by which an axis goes beyond it, at most."""
BAND = 1.96
"""Half width of the central 95% of a normal distribution, standard deviations."""


def belief_figures(summaries: Sequence[RunSummary]) -> tuple[dict[str, Drawing], list[str]]:
    """Play trials with the first run of each method whose agent has beliefs, and draw the beliefs.

    Returns:
        The figures by name; and why there is none for a method, one line each.
    """
    figures: dict[str, Drawing] = {}
    notes = []
    groups = group_runs(summaries)
    names = method_texts(groups)
    for method, runs in groups.items():
        run = runs[0].run
        config = run.config.replace(device="cpu")
        family, adaptations = config.env, config.sampling.adaptation_steps
        try:
            # To normalise observations, a new agent would play a meta-batch first.
            plain = config.agent.replace(normalize_observations=False)
            if not has_beliefs(config.replace(agent=plain).make_agent()):
                continue
            agent = config.make_agent(run.load().agent)
            tasks = first_tasks(family, "test", TEST_TASKS)
            reading = fit_reading(agent, family, adaptations)
            found = trial_beliefs(agent, family, tasks, adaptations)
        except (UserError, EpisodeDiverged, WorkerError) as error:
            notes.append(f"{method}: {error}")
            continue
        name = "beliefs" if not figures else f"beliefs-{len(figures) // 2 + 1}"
        title = f"{names[method]}, seed {config.seed}"
        figures[name] = beliefs_over_steps(found, reading, family.name)
        figures[f"{name}-embeddings"] = embeddings(found, family.name)
        for drawing in (figures[name], figures[f"{name}-embeddings"]):
            title_above(drawing.figure, title)
    return figures, notes


def beliefs_over_steps(found: TrialBeliefs, reading: Reading, family: str = "") -> Drawing:
    """Draw the beliefs over the steps of the first trials, with bands of 95%: over the latent
    variable, and below, as they are read, over the numbers of the task.

    Dashed lines are the ends of episodes, dotted ones the task itself.
    """
    shown = min(TRIALS, len(found.tasks))
    numbers = drawn_numbers(found)
    size, tasks = len(numbers), found.tasks[:, numbers]
    figure = Figure(figsize=(2.4 * shown + 1, 1.9 * (1 + size) + 0.4), layout="constrained")
    all_axes = figure.subplots(1 + size, shown, squeeze=False, sharex="col", sharey="row")
    informative = np.argsort(-found.last.mean.std(0), kind="stable")[:LATENTS]
    task_mean, covariance = reading.only(numbers)(found.beliefs)
    task_std = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    texts, rows = number_texts(found, numbers, family), []
    for trial, axes in enumerate(all_axes.T):
        mask = found.mask[trial]
        ends = np.cumsum(mask.sum(-1))
        for number, colour in zip(sorted(informative), COLOURS, strict=False):
            mean, std = (value[trial][mask][:, number] for value in found.beliefs)
            rows += draw_band(axes[0], mean, std, colour, f"latent {number + 1}", trial)
        for number, row in enumerate(axes[1:]):
            mean, std = (value[trial][mask][:, number] for value in (task_mean, task_std))
            rows += draw_band(row, mean, std, REFERENCE, f"belief about {texts[number]}", trial)
            row.lines[-1].set_label("belief about the task")
            row.axhline(
                tasks[trial, number], color=TEXT, linestyle=":", linewidth=1.2, label="task"
            )
        for row in axes:
            for end in ends[:-1]:
                row.axvline(end, color=REFERENCE, linestyle="--", linewidth=0.8)
            style_axes(row)
        whole = size == found.tasks.shape[1]
        values = ", ".join(f"{number:.2g}" for number in tasks[trial])
        axes[0].set_title(f"task {values}" if whole else f"task {trial + 1}")
        axes[-1].set_xlabel("step of the trial")
    for row, label in zip(all_axes[:, 0], ["latent variable", *texts], strict=True):
        row.set_ylabel(label)
    cut = [
        text
        for axes, text, values in zip(
            all_axes[1:, 0], texts, found.tasks[:, numbers].T, strict=True
        )
        if limit_to_tasks(axes, values)
    ]
    legend_below(figure, list(all_axes[:, 0]))
    note = f" Cut off beyond the range of the tasks: {', '.join(cut)}." if cut else ""
    caption = (
        "What the agent believes over the steps of a trial, with the central 95% of the belief as "
        "band: the latent variable, and the numbers of the task as they are read from it. Dotted: "
        f"the task; dashed: the end of an episode.{left_out(found, numbers)}{note}"
    )
    return Drawing(figure, caption, ("trial", "quantity", "step", "mean", "low", "high"), rows)


def limit_to_tasks(axes: Axes, values: np.ndarray) -> bool:
    """Limit the y axis to the range of a number of tasks, (B,), with a margin, so that a wide
    belief does not squash the tasks; return whether anything is cut off."""
    low, high = values.min(), values.max()
    margin = MARGIN * (high - low)
    bottom, top = axes.get_ylim()
    limits = max(bottom, low - margin), min(top, high + margin)
    if margin > 0:
        axes.set_ylim(*limits)
    return bool(margin > 0 and limits != (bottom, top))


def drawn_numbers(found: TrialBeliefs) -> np.ndarray:
    """Return the indices of the numbers of a task that are drawn: all, or those of whose variance
    the beliefs at the ends of trials explain the largest share."""
    size = found.tasks.shape[1]
    if size <= NUMBERS:
        return np.arange(size)
    variance = found.tasks.var(0)
    told = Reading.fit(found.last, found.tasks)(found.last)[0].var(0)
    order = np.argsort(-told / np.maximum(variance, 1e-12), kind="stable")
    return np.sort(order[:NUMBERS])


def number_texts(found: TrialBeliefs, numbers: np.ndarray, family: str) -> list[str]:
    """Return the names of some of the numbers of a task."""
    texts = task_texts(family, found.tasks)
    return [texts[number] for number in numbers]


def left_out(found: TrialBeliefs, numbers: np.ndarray) -> str:
    """Return a sentence for a caption if not all numbers of a task are drawn."""
    drawn, size = len(numbers), found.tasks.shape[1]
    if drawn == size:
        return ""
    return (
        f" Drawn are the {drawn} of the {size} numbers of a task that the beliefs tell most about."
    )


def draw_band(
    axes: Axes, mean: np.ndarray, std: np.ndarray, colour: str, label: str, trial: int
) -> list[tuple]:
    """Draw a mean, (L,), with the central 95% of the normal distribution of this mean and a
    standard deviation, (L,), as band; return the plotted numbers."""
    steps = np.arange(1, len(mean) + 1)
    low, high = mean - BAND * std, mean + BAND * std
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps, mean, color=colour, linewidth=1.3, label=label)
    return [(trial + 1, label, *each) for each in zip(steps, mean, low, high, strict=True)]


def embeddings(found: TrialBeliefs, family: str = "") -> Drawing:
    """Draw the means of the beliefs at the ends of trials in their two principal components, once
    for each number of the task, which is the colour."""
    numbers = drawn_numbers(found)
    size, tasks = len(numbers), found.tasks[:, numbers]
    points, share = principal_components(found.last)
    texts = number_texts(found, numbers, family)
    figure = Figure(figsize=(4 * size + 0.5, 3.4), layout="constrained")
    for number, axes in enumerate(figure.subplots(1, size, squeeze=False)[0]):
        marks = axes.scatter(
            *points.T,
            c=tasks[:, number],
            cmap="viridis",
            s=20,
            edgecolors=REFERENCE,
            linewidths=0.5,
        )
        figure.colorbar(marks, ax=axes, label=texts[number])
        axes.set_xlabel(f"component 1 ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"component 2 ({share[1]:.0%})")
        style_axes(axes)
    caption = (
        "Means of the beliefs at the ends of the trials, one for each test task, in their two "
        f"principal components, coloured by the task.{left_out(found, numbers)}"
    )
    rows = [(*task, *point) for task, point in zip(tasks, points, strict=True)]
    return Drawing(figure, caption, (*texts, "component 1", "component 2"), rows)


def principal_components(found: Beliefs) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of beliefs, (B, d), in their first two principal components, (B, 2), and the
    shares of these in the variance, (2,). Each component's largest weight is positive."""
    centred = found.mean - found.mean.mean(0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(directions).argmax(1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    points, share = np.zeros((len(centred), 2)), np.zeros(2)
    count = min(2, len(directions))
    points[:, :count] = centred @ (signs[:, None] * directions)[:count].T
    share[:count] = spread[:count] ** 2 / max(np.square(spread).sum(), 1e-300)
    return points, share
