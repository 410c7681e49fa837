"""The style of all figures, and the files of a figure: PNG, PDF, SVG and the plotted numbers."""

from __future__ import annotations

import contextlib
import html
import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from metarl.core.csv_text import csv_content
from metarl.core.errors import UserError
from metarl.evaluation.result_file import FIGURE_FORMATS
from metarl.runs.atomic_io import write_atomically

COLOURS = ("#1558e0", "#d1741a", "#12a47c", "#9e1f97", "#5c2e0a", "#26263a")
"""Colours of methods. Each pair can be told apart with deuteranopia or protanopia, and each has a
contrast of at least 3 to white."""
DARK_COLOURS = ("#5a9ffd", "#cf6d10", "#35e0a0", "#b85f88", "#f2e24a", "#dfeaf5")
"""The same colours on a dark page."""
LINES = ("-", (0, (7, 1.5, 1.5, 1.5)))
"""Line styles of the first six methods and of the next six: with these no style repeats within
twelve. Dashed lines are of agents that cannot adapt, dotted ones of returns before adaptation."""
PART_LINES = ((0, (3, 1.5)), (0, (7, 1.5, 1.5, 1.5, 1.5, 1.5)))
"""The same for further parts of their results, whose markers are empty."""
MARKERS = "os^Dvp<>XhP*"
FEW_ENTRIES = 4
"""Entries of a legend that may have a line each; more are in two columns at least."""
TEXT, GRID, REFERENCE = "#1d2430", "#d9dde3", "#6f7682"
"""Colours of texts and axes, of the grid, and of what methods are compared with."""
PALETTE = {TEXT: "text", GRID: "line", REFERENCE: "muted"} | {
    colour: f"series-{number}" for number, colour in enumerate(COLOURS)
}
"""Names of the colours on a page, whose style sheet has a light and a dark value of each."""
SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar sign begins no formula
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # texts stay texts, in SVG as in PDF
    "pdf.fonttype": 42,
}
FORMATS = FIGURE_FORMATS
NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
"""Metadata by which the same figure gives the same bytes."""


class LineStyle(NamedTuple):
    """The look of a method in all figures of a set. Of a further part of its results the markers
    are not filled."""

    colour: str
    line: Any
    marker: str
    filled: bool = True


@dataclass(frozen=True)
class Drawing:
    """A figure and its content as text and numbers.

    Attributes:
        figure: the figure.
        caption: a sentence on what is drawn, its lines and bands.
        columns: names of the columns of the plotted numbers.
        rows: the plotted numbers, each row with a value of each column.
    """

    figure: Figure
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def is_wide(self) -> bool:
        """Whether the figure is too wide for a column of a page."""
        return self.figure.get_figwidth() > 7


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """Draw in the common style; texts are drawn as they are, an unknown character as a box."""
    with rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def method_style(number: int) -> LineStyle:
    """Return the style of the method of this number, from 0; equal styles are twelve apart."""
    line = LINES[number // len(COLOURS) % len(LINES)]
    return LineStyle(COLOURS[number % len(COLOURS)], line, MARKERS[number % len(MARKERS)])


def method_styles(methods: Iterable[str]) -> dict[str, LineStyle]:
    """Return the style of each method, by its place among all methods of a set of figures."""
    return {method: method_style(number) for number, method in enumerate(methods)}


def part_style(number: int) -> LineStyle:
    """Return the style of a further part of the results of the method of this number."""
    line = PART_LINES[number // len(COLOURS) % len(PART_LINES)]
    return method_style(number)._replace(line=line, filled=False)


def style_axes(axes: Axes) -> None:
    """Apply the common style: grid, and two spines."""
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(
    figure: Figure, axes: Sequence[Axes], extra: Mapping[str, Artist] | None = None
) -> None:
    """Put one legend for all axes, and further entries, below a figure, which becomes higher."""
    entries: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    entries |= extra or {}
    points = figure.get_figwidth() * 72
    least = 2 if len(entries) > FEW_ENTRIES else 1  # columns
    texts = [textwrap.fill(text, int((points / least - 46) / 5.2)) for text in entries]
    longest = max((len(line) for text in texts for line in text.split("\n")), default=0)
    columns = max(1, min(len(texts), int(points / (5.2 * longest + 42))))
    rows = -(-len(texts) // columns)
    further = max((text.count("\n") for text in texts), default=0)  # lines
    figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.15 * further)
    figure.legend(entries.values(), texts, loc="outside lower center", ncols=columns)


def limit_axis(axes: Axes, typical: np.ndarray, drawn: np.ndarray) -> str:
    """Set the limits of the y axis, so that single values far away do not squash the others.

    The axis shows all typical values, and of the others those that are no farther away from these
    than these are spread.

    Args:
        axes: the axes.
        typical: values that one run alone cannot move, such as medians over seeds, any shape.
        drawn: all values that are drawn, such as bounds of intervals, any shape.

    Returns:
        How far the values go that are cut off; '' if none is.
    """
    typical, drawn = (values[np.isfinite(values)] for values in (typical, drawn))
    if not np.ptp(typical if typical.size else 0) > 0:
        return ""
    bottom, top, note = shown_range(typical, np.concatenate([typical, drawn]))
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)
    return note


def shown_range(typical: np.ndarray, drawn: np.ndarray) -> tuple[float, float, str]:
    """Return the ends of an axis, and how far the values go that are cut off, as `limit_axis`.

    Args:
        typical: values of which two at least differ, all finite, any shape.
        drawn: all values, the typical ones too, all finite, any shape.
    """
    low, high = typical.min(), typical.max()
    spread = high - low
    bottom, top = max(drawn.min(), low - spread), min(drawn.max(), high + spread)
    ends = [f"down to {drawn.min():.4g}"] * bool(drawn.min() < bottom)
    ends += [f"up to {drawn.max():.4g}"] * bool(drawn.max() > top)
    return bottom, top, f"cut off: {', '.join(ends)}" if ends else ""


def title_above(figure: Figure, text: str) -> None:
    """Write a title above a figure, on as many lines as its width needs; it becomes higher by the
    further ones."""
    text = textwrap.fill(text, int(figure.get_figwidth() * 72 / 6))  # points of a letter, mean
    figure.set_figheight(figure.get_figheight() + 0.17 * text.count("\n"))
    figure.suptitle(text, fontsize=10)


def note_above(axes: Axes, text: str) -> None:
    """Write a note above the right end of axes."""
    axes.set_title(text, loc="right", fontsize=8, color=REFERENCE)


def figure_bytes(drawing: Drawing, ending: str, name: str = "") -> bytes:
    """Return a file of a figure.

    Args:
        drawing: the figure.
        ending: one of `FORMATS`.
        name: name of the figure, which makes the ids in an SVG its own.

    Raises:
        UserError: if its numbers are too far apart, or too close together, to be drawn.
    """
    if ending == "csv":
        return csv_content([drawing.columns, *(map(csv_value, row) for row in drawing.rows)])
    content = io.BytesIO()
    with drawing_style(), rc_context({"svg.hashsalt": f"metarl {name}"}):
        try:
            arrange(drawing.figure)
            drawing.figure.savefig(content, format=ending, dpi=200, metadata=NO_DATES[ending])
        except np.linalg.LinAlgError as error:
            raise UserError(f"the results hold numbers that no axis can show ({error})") from error
    return content.getvalue()


def arrange(figure: Figure) -> None:
    """Carry out the layout of a figure once, not anew for each of its files."""
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.execute(figure)
        figure.set_layout_engine(None)  # with "none", a placeholder, savefig draws twice


def csv_value(value: Any) -> Any:
    """Return a number with seven digits, more than a figure shows; other values as they are."""
    return f"{value:.7g}" if isinstance(value, float) else value


def save_drawing(drawing: Drawing, path: Path) -> list[Path]:
    """Write the files of a figure, each atomically, and return them: `FORMATS` in this order.

    Args:
        drawing: the figure.
        path: the path of any of the files; the others are beside it.

    Raises:
        StorageError: if a file cannot be written.
        UserError: as `figure_bytes`.
    """
    files = {path.with_name(f"{path.stem}.{ending}"): ending for ending in FORMATS}
    contents = {file: figure_bytes(drawing, end, path.stem) for file, end in files.items()}
    for file, content in contents.items():
        write_atomically(file, content)
    return list(files)


def page_svg(svg: bytes, name: str, text: str) -> str:
    """Return an SVG file as an element of a page, whose colours follow those of the page.

    Args:
        svg: the content of the file.
        name: name of the figure, unique on the page, by which all ids in the element begin.
        text: the alternative text.
    """
    whole = svg.decode()
    element = re.sub(r"<[^>]*>", lambda tag: page_tag(tag[0], name), whole[whole.index("<svg") :])
    points = element.partition('width="')[2].partition("pt")[0]
    width = float(points) / 10  # texts of one size
    head = f'<svg role="img" aria-label="{html.escape(text)}" style="max-width: {width:.1f}rem"'
    return element.replace("<svg", head, 1)


def page_tag(tag: str, name: str) -> str:
    """Return a tag of an SVG for a page: with ids of its own, the page's colours, and no white
    background."""
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = tag.replace('style="fill: #ffffff"', 'style="fill: none"')
    for colour, variable in PALETTE.items():
        tag = tag.replace(f": {colour}", f": var(--{variable})")
    return tag
