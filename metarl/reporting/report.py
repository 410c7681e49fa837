"""The report: one HTML page about runs, its figures, and a model card."""

from __future__ import annotations

import base64
import html
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from metarl.core.errors import UserError
from metarl.core.parsing import format_value, printable
from metarl.reporting.belief_figures import belief_figures
from metarl.reporting.commands import commands, shell_path
from metarl.reporting.figures import literal_texts
from metarl.reporting.pooling import config_differences
from metarl.reporting.report_figures import diagnostics, learning_curves, svg
from metarl.reporting.report_sections import Section, evaluation_names, make_section
from metarl.reporting.summary import VIDEO_TYPES, RunSummary, read_summaries
from metarl.runs.run import Run
from metarl.training.tracking import start_tracker

PAGE, MODEL_CARD = "report.html", "model_card.md"
MAX_EVENTS = 5
"""Number of failures of a run that are shown."""
MAX_VIDEO_BYTES = 12 * 2**20
"""Size of a video that is embedded in the page."""


@literal_texts()
def write_report(directories: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write a page about runs, its figures as PNG and SVG, and a model card of the first run.

    Args:
        directories: the runs' folders, of one task family.
        out: the folder to write, which may exist; by default `report` in the first run's folder.

    Returns:
        The files, the page first, then the model card.

    Raises:
        UserError: if a run cannot be read, the runs do not go together, or `out` cannot be written.
    """
    summaries = read_summaries(directories)
    out = out or directories[0] / "report"
    figures = {"learning": learning_curves(summaries)}
    sections = [make_section(summaries, name) for name in evaluation_names(summaries)]
    for section in sections:
        figures |= section.figures
    try:  # before the rest of the work
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from error
    belief_drawings, notes = belief_figures(summaries)
    figures |= {**belief_drawings, "diagnostics": diagnostics(summaries)}
    drawings = {name: svg(figure) for name, figure in figures.items()}
    beliefs = {"figures": list(belief_drawings), "notes": notes}
    page, model_card = render(summaries, sections, beliefs, drawings)
    try:
        paths = write_files(out, page, model_card, figures, drawings)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from error
    track_report(summaries[0].run, paths)
    return paths


def render(
    summaries: Sequence[RunSummary],
    sections: Sequence[Section],
    beliefs: Mapping[str, Sequence[str]],
    drawings: Mapping[str, str],
) -> tuple[str, str]:
    """Return the HTML of the page, and the Markdown of the model card.

    Args:
        summaries: the runs.
        sections: their evaluations.
        beliefs: names of the figures of beliefs, and notes on them.
        drawings: the figures as SVG, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metarl.reporting", "templates"),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": format_number, "markdown": escape_markdown}
    config = summaries[0].values
    variables: dict[str, Any] = {
        "summaries": summaries,
        "family": summaries[0].run.config.env,
        "sections": sections,
        "beliefs": beliefs,
        "differences": config_differences(summaries),
        "drawings": {name: Markup(text) for name, text in drawings.items()},
        "videos": [embed_video(path) for summary in summaries for path in summary.videos],
        "commands": [line for summary in summaries for line in commands(summary)],
        "max_events": MAX_EVENTS,
        "folder": shell_path(summaries[0].run.directory),
        "config": {key: printable(format_value(value)) for key, value in config.items()},
    }
    page = environment.get_template(PAGE).render(variables)
    return page, environment.get_template(MODEL_CARD).render(variables)


def write_files(
    out: Path,
    page: str,
    model_card: str,
    figures: Mapping[str, Figure],
    drawings: Mapping[str, str],
) -> list[Path]:
    """Write all files of a report into a folder, and return them, the page first.

    They are written into a temporary folder and moved, so that no partial file is left behind.

    Raises:
        OSError: if a file cannot be written.
    """
    with TemporaryDirectory(prefix=".report-", dir=out.parent) as folder:
        temporary = Path(folder)
        (temporary / PAGE).write_text(page, encoding="utf-8")
        (temporary / MODEL_CARD).write_text(model_card, encoding="utf-8")
        for name, figure in figures.items():
            (temporary / f"{name}.svg").write_text(drawings[name], encoding="utf-8")
            figure.savefig(temporary / f"{name}.png", dpi=150)
        pictures = sorted(path.name for path in temporary.glob("*.[ps][nv]g"))
        names = [PAGE, MODEL_CARD, *pictures]
        for name in names:
            shutil.move(temporary / name, out / name)
    return [out / name for name in names]


def track_report(run: Run, files: Sequence[Path]) -> None:
    """Send the figures and the page to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="report")
    for path in files:
        if path.suffix == ".png":
            tracker.image(f"report/{path.stem}", path)
    tracker.artifact("report", files[0])
    tracker.finish()


def embed_video(path: Path) -> dict[str, str]:
    """Return the name, the type and the base64 data of a video; no data if it is too large."""
    small = path.stat().st_size <= MAX_VIDEO_BYTES
    data = base64.b64encode(path.read_bytes()).decode() if small else ""
    name = f"{path.parent.parent.name}/{path.name}"
    return {"name": name, "type": VIDEO_TYPES[path.suffix], "data": data}


def escape_markdown(value: Any) -> str:
    """Return a text as Markdown that shows it literally, on one line, without HTML and links."""
    text = html.escape(printable(str(value)), quote=False)
    # Within a word an underscore means nothing.
    special = r"([\\`*{}\[\]()#+!|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
    return re.sub(special, r"\\\1", text)


def format_number(value: Any) -> str:
    """Return a number with about three digits, an integer with all, other values as text."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)
