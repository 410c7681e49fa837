"""The page itself, and the model card beside it."""

from __future__ import annotations

import base64
import html
import math
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from metarl.cli.flags import plain_text
from metarl.core.errors import UserError
from metarl.core.parsing import printable
from metarl.core.rng import Purpose, make_rng
from metarl.core.schema import flat
from metarl.core.statistics import (
    improvement_interval,
    interquartile_mean,
    interval,
    probability_of_improvement,
)
from metarl.evaluation.compare import evaluation_remarks
from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.protocols import forgetting, part_label
from metarl.reporting import report_figures as figures
from metarl.reporting.figures import PANELS, literal_texts
from metarl.reporting.summary import VIDEO_TYPES, Story, differences, gathered, pooled, read_stories
from metarl.runs.run import Run
from metarl.training.tracking import start_tracker

PAGE, CARD = "report.html", "model_card.md"
MAX_SCATTERS = 3  # methods whose returns are drawn against the task
MAX_EVENTS = 5  # of what went wrong in a run that are shown
MAX_VIDEO = 12 * 2**20  # bytes of a film that is taken into the page


@dataclass(frozen=True)
class Line:
    """A line of an evaluation's table: at each point mean, interval, interquartile mean, and the
    share of episodes that succeeded (None where that is unknown)."""

    name: str
    seeds: int
    cells: Sequence[tuple[float, float, float, float, float | None]]


@dataclass(frozen=True)
class Section:
    """What one evaluation, such as `paper-test`, says of all methods."""

    name: str
    about: str
    remarks: Sequence[str]
    axis: str
    points: Sequence[int]
    lines: Sequence[Line]
    improvements: Sequence[tuple[str, str, float, float, float]]
    transfers: Sequence[tuple[str, float, float, float]]
    pictures: Mapping[str, Figure]


@literal_texts()
def write_report(directories: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write a page about runs, its figures as PNG and SVG, and a model card for the first.

    Args:
        directories: the runs' folders, of one family's tasks.
        out: the folder to write, which may be there already; by default `report` in the first run.

    Returns:
        The files, the page first.

    Raises:
        UserError: if a run cannot be read, they do not go together, or `out` cannot be written.
    """
    stories = read_stories(directories)
    out = out or directories[0] / "report"
    pictures = {"learning": figures.learning_curves(stories)}
    sections = [section(stories, name) for name in evaluation_names(stories)]
    for each in sections:
        pictures |= each.pictures
    try:  # before the rest of the work
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from error
    pictures["diagnostics"] = figures.diagnostics(stories)
    drawings = {name: figures.svg(figure) for name, figure in pictures.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metarl.reporting", "templates"),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "markdown": markdown}
    config = stories[0].run.config.to_dict()
    material: dict[str, Any] = {
        "stories": stories,
        "family": stories[0].run.config.env,
        "sections": sections,
        "differences": differences(stories),
        "drawings": {name: Markup(text) for name, text in drawings.items()},
        "videos": [video(path) for story in stories for path in story.videos],
        "commands": [command for story in stories for command in commands(story)],
        "max_events": MAX_EVENTS,
        "folder": shlex.quote(printable(stories[0].name)),
        "config": {key: printable(plain_text(value)) for key, value in flat(config).items()},
    }
    page = environment.get_template("report.html").render(material)
    card = environment.get_template("model_card.md").render(material)
    try:
        # Written aside and moved, so that nothing half-written is left behind.
        with TemporaryDirectory(prefix=".report-", dir=out.parent) as folder:
            aside = Path(folder)
            (aside / PAGE).write_text(page, encoding="utf-8")
            (aside / CARD).write_text(card, encoding="utf-8")
            for name, figure in pictures.items():
                (aside / f"{name}.svg").write_text(drawings[name], encoding="utf-8")
                figure.savefig(aside / f"{name}.png", dpi=150)
            names = [PAGE, CARD, *sorted(path.name for path in aside.glob("*.[ps][nv]g"))]
            for name in names:
                shutil.move(aside / name, out / name)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from error
    paths = [out / name for name in names]
    track(stories[0].run, paths)
    return paths


def track(run: Run, files: Sequence[Path]) -> None:
    """Send the figures and the page to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="report")
    for path in files:
        if path.suffix == ".png":
            tracker.image(f"report/{path.stem}", path)
    tracker.artifact("report", files[0])
    tracker.finish()


def evaluation_names(stories: Sequence[Story]) -> list[str]:
    """List the evaluations that any of the runs has, the most usual first."""
    names = {name for story in stories for name in story.evaluations}
    return sorted(names, key=lambda name: (not name.startswith("paper"), name))


def section(stories: Sequence[Story], name: str) -> Section:
    """Gather what one evaluation says."""
    seeds = gathered(stories, name)
    scores = pooled(seeds)
    results = first_results(stories, name)
    shown = next(iter(results.values()))
    protocol = name.partition("-")[0]
    if protocol in PANELS:
        pictures = {name: PANELS[protocol](results)}
    else:
        pictures = {name: figures.adaptation_curves(scores, shown)}
        pictures[f"{name}-profile"] = figures.profiles(scores)
        few = dict(list(results.items())[:MAX_SCATTERS])
        if (scatter := figures.by_task_parameter(few)) is not None:
            pictures[f"{name}-tasks"] = scatter
    return Section(
        name=name,
        about=f"{len(shown.tasks)} {shown.split} tasks (hash {shown.task_hash}), "
        f"{shown.returns.shape[2]} episodes each",
        remarks=evaluation_remarks(results),
        axis=shown.axis,
        points=shown.points,
        lines=[line(key, scores[key], values) for key, values in seeds.items()],
        improvements=[] if protocol in PANELS else improvements(scores),
        transfers=[transfer(key, each) for key, each in results.items()]
        if protocol == "continual"
        else [],
        pictures=pictures,
    )


def transfer(name: str, result: Evaluation) -> tuple[str, float, float, float]:
    """Return name, return at the end, backward transfer and forgetting, means over sequences."""
    found = forgetting(result)
    means = (found.average, found.backward_transfer, found.forgetting)
    average, backward, forgotten = (float(each.mean()) for each in means)
    return name, average, backward, forgotten


def first_results(stories: Sequence[Story], name: str) -> dict[str, Evaluation]:
    """Return one result of each method, and part, in evaluations of one name."""
    found: dict[str, Evaluation] = {}
    for story in stories:
        for part, result in story.evaluations.get(name, {}).items():
            found.setdefault(part_label(story.method, part), result)
    return found


def line(name: str, scores: np.ndarray, seeds: Sequence[Evaluation]) -> Line:
    """Summarise the scores (S, B, P) of a method, and how often its seeds succeeded."""
    rng = make_rng(0, Purpose.BOOTSTRAP)
    rates = [result.success_rate for result in seeds if result.success_rate is not None]
    success = np.mean(rates, axis=0).tolist() if rates else [None] * len(seeds[0].points)
    cells = []
    for values, rate in zip(np.moveaxis(scores, 2, 0), success, strict=True):
        low, high = interval(values, rng)
        middle = float(interquartile_mean(values.ravel()))
        cells.append((float(values.mean()), low, high, middle, rate))
    return Line(name, len(seeds), cells)


def improvements(
    scores: Mapping[str, np.ndarray],
) -> list[tuple[str, str, float, float, float]]:
    """Return how likely each method beats each other at the last point, with an interval.

    Of pairs on equally many tasks, and only the direction that is at least as likely as not.
    """
    rng, found = make_rng(0, Purpose.BOOTSTRAP), []
    for (one, x), (other, y) in permutations(scores.items(), 2):
        if x.shape[1:] != y.shape[1:]:
            continue
        chance = float(probability_of_improvement(x[..., -1], y[..., -1]))
        if chance > 0.5 or (chance == 0.5 and one < other):
            found.append((one, other, chance, *improvement_interval(x[..., -1], y[..., -1], rng)))
    return found


def video(path: Path) -> dict[str, str]:
    """Return a film as the page holds it: name, type, and data (empty if it is too large)."""
    small = path.stat().st_size <= MAX_VIDEO
    data = base64.b64encode(path.read_bytes()).decode() if small else ""
    name = f"{path.parent.parent.name}/{path.name}"
    return {"name": name, "type": VIDEO_TYPES[path.suffix], "data": data}


def commands(story: Story) -> list[str]:
    """Return what repeats a run and its evaluations."""
    name = story.run.directory.name
    config, folder = (shlex.quote(path) for path in (f"{name}/config.yaml", f"runs/{name}"))
    lines = [f"metarl train {config} --seed {story.run.config.seed} --out {folder}"]
    for name, parts in story.evaluations.items():
        protocol, _, split = name.partition("-")
        tasks, points, episodes = next(iter(parts.values())).returns.shape
        steps = f" --steps {points - 1}" if protocol in ("paper", "ood", "robust") else ""
        lines.append(
            f"metarl evaluate {folder} --protocol {protocol} --split {split} "
            f"--tasks {tasks} --episodes {episodes}{steps}"
        )
    return lines


def markdown(value: Any) -> str:
    """Write a text so that Markdown shows it as it is, on one line, with no HTML and no link."""
    text = html.escape(printable(str(value)), quote=False)
    # Within a word an underscore means nothing.
    special = r"([\\`*{}\[\]()#+!|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
    return re.sub(special, r"\\\1", text)


def number(value: Any) -> str:
    """Write a number short."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)
