"""The report: one HTML page about runs, its figures, and a model card."""

from __future__ import annotations

import base64
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metarl.core.errors import UserError, warn
from metarl.core.parsing import format_value, printable, shell_path
from metarl.reporting.belief_figures import belief_figures
from metarl.reporting.commands import commands
from metarl.reporting.hub import front_matter
from metarl.reporting.names import method_texts
from metarl.reporting.pages import environment, render_page
from metarl.reporting.pooling import config_differences, method_order
from metarl.reporting.report_lead import lead, title
from metarl.reporting.report_sections import Section, make_section
from metarl.reporting.style import FORMATS, drawing_style, figure_bytes, method_styles
from metarl.reporting.summary import VIDEO_TYPES, RunSummary, evaluation_names, read_summaries
from metarl.reporting.training_figures import diagnostics, learning_curves
from metarl.runs.atomic_io import make_output_folder, wrap_os_errors
from metarl.runs.run import Run
from metarl.training.tracking import start_tracker

PAGE, MODEL_CARD = "report.html", "model_card.md"
MAX_EVENTS = 5
"""Number of failures of a run that are shown."""
MAX_VIDEO_BYTES = 12 * 2**20
"""Size of a video that is embedded in the page."""


def write_report(directories: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write the report of runs of one task family, as `report_page`.

    Args:
        directories: the runs' folders.
        out: the folder to write, which may exist; by default `report` in the first run's folder.

    Raises:
        UserError: if a run cannot be read; and as `report_page`.
        StorageError: as `report_page`.
    """
    return report_page(read_summaries(directories), out or directories[0] / "report")


@drawing_style()
def report_page(
    summaries: Sequence[RunSummary],
    out: Path,
    order: Sequence[str] = (),
    required: str | None = None,
) -> list[Path]:
    """Write a page about runs, its figures (`metarl.reporting.style.FORMATS`), and a model card of
    the first run.

    Args:
        summaries: the runs, of one task family.
        out: the folder to write, which may exist.
        order: all methods of a set of reports, in the order of their colours; by default those of
            the runs.
        required: the name of the evaluation without which there is no report; one that cannot be
            put together is left out otherwise, with a warning. By default all are required.

    Returns:
        The files, the page first, then the model card.

    Raises:
        UserError: if the runs do not go together, or `out` cannot be written.
        StorageError: if a file cannot be written in it later.
    """
    order = order or method_order(summaries)
    styles = method_styles(order)
    figures = {
        "learning": learning_curves(summaries, styles),
        "learning-hours": learning_curves(summaries, styles, hours=True),
    }
    sections = make_sections(summaries, order, required)
    for section in sections:
        figures |= section.figures
    make_output_folder(out)  # before the rest of the work
    belief_drawings, notes = belief_figures(summaries)
    figures |= {**belief_drawings, "diagnostics": diagnostics(summaries, styles)}
    files = {
        f"{name}.{ending}": figure_bytes(drawing, ending, name)
        for name, drawing in figures.items()
        for ending in FORMATS
    }
    card = card_variables(summaries, sections)
    methods = [summary.method for summary in summaries]
    labels = dict.fromkeys([*methods, *(row.name for each in sections for row in each.rows)])
    texts = method_texts(labels)
    variables: dict[str, Any] = {
        **card,
        "beliefs": {"figures": list(belief_drawings), "notes": notes},
        "title": title([texts[method] for method in dict.fromkeys(methods)]),
        "lead": lead(summaries, sections, texts),
        "differences": config_differences(summaries),
        "videos": [embed_video(path) for summary in summaries for path in summary.videos],
        "commands": [line for summary in summaries for line in commands(summary)],
        "max_events": MAX_EVENTS,
    }
    drawn = {name: (drawing, files[f"{name}.svg"]) for name, drawing in figures.items()}
    page = render_page(PAGE, texts, drawn, variables)
    model_card = environment().get_template(MODEL_CARD).render(card)
    # Paths may have bytes that are no text.
    pages = {PAGE: page.encode(errors="replace"), MODEL_CARD: model_card.encode(errors="replace")}
    with wrap_os_errors(out):
        paths = write_files(out, pages | dict(sorted(files.items())))
    track_report(summaries[0].run, paths)
    return paths


def make_sections(
    summaries: Sequence[RunSummary], order: Sequence[str], required: str | None
) -> list[Section]:
    """Return the section of each evaluation; see `write_report`."""
    sections = []
    for name in evaluation_names(summaries):
        try:
            sections.append(make_section(summaries, name, order))
        except UserError as error:
            if required in (None, name):
                raise
            warn(f"left out of the report: {error}")
    return sections


def card_variables(summaries: Sequence[RunSummary], sections: Sequence[Section]) -> dict[str, Any]:
    """Return the variables of the model card of the first run."""
    first = summaries[0]
    return {
        "summaries": summaries,
        "family": first.run.config.env,
        "sections": sections,
        "folder": shell_path(first.run.directory),
        "config": {key: printable(format_value(value)) for key, value in first.values.items()},
        "front_matter": front_matter(first, first.name),
        "name": first.name,
        "packaged": False,
    }


def write_files(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write the files of a report into a folder, and return them in the given order.

    They are written into a temporary folder and moved, so that no partial file is left behind.

    Raises:
        OSError: if a file cannot be written.
    """
    with TemporaryDirectory(prefix=".report-", dir=out) as folder:
        temporary = Path(folder)
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        for name in contents:
            shutil.move(temporary / name, out / name)
    return [out / name for name in contents]


def track_report(run: Run, files: Sequence[Path]) -> None:
    """Send the figures and the page to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="report")
    for path in files:
        if path.suffix == ".png":
            tracker.image(f"report/{path.stem}", path)
    tracker.artifact("report", files[0])
    tracker.finish()


def embed_video(path: Path) -> dict[str, Any]:
    """Return a video for the page: its name, type, base64 data (none if it is too large), and ratio
    of height to width."""
    name = f"{path.parent.parent.name}/{path.name}"
    found = {"name": name, "type": VIDEO_TYPES[path.suffix], "data": "", "ratio": 0.5625}
    if path.stat().st_size > MAX_VIDEO_BYTES:
        return found
    content = path.read_bytes()
    found["data"] = base64.b64encode(content).decode()
    # The box `tkhd` of an MP4 ends in width and height, as 16.16 fixed-point numbers.
    place = content.find(b"tkhd") - 4
    if place >= 0:
        end = place + int.from_bytes(content[place : place + 4], "big")
        width, height = struct.unpack(">II", content[end - 8 : end].rjust(8, b"\0"))
        if width and height:
            found["ratio"] = round(height / width, 4)
    return found
