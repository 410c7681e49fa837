"""The page of a comparison: the returns of all families, and the aggregates over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from metarl.reporting.aggregates import Aggregates
from metarl.reporting.comparison_tables import aggregate_table, no_aggregates
from metarl.reporting.names import method_texts
from metarl.reporting.pages import render_page
from metarl.reporting.report_sections import Section
from metarl.reporting.style import drawing_style, figure_bytes
from metarl.runs.atomic_io import write_atomically

PAGE = "comparison.html"


@drawing_style()
def write_page(
    out: Path,
    sections: Mapping[str, Section],
    reports: Mapping[str, Path],
    aggregates: Aggregates | None,
    missing: Sequence[str],
) -> Path:
    """Write the page of a comparison, and return its path.

    Args:
        out: the folder of the comparison.
        sections: the evaluation of each family, by its name.
        reports: the page of each family's runs, in `out`.
        aggregates: the aggregates over families; None where there are none.
        missing: a line on each run that failed, whose results are not there.
    """
    drawings = aggregates.drawings if aggregates else {}
    figures = {
        name: (drawing, figure_bytes(drawing, "svg", name)) for name, drawing in drawings.items()
    }
    methods = dict.fromkeys(row.name for section in sections.values() for row in section.rows)
    variables = {
        "sections": sections,
        "methods": list(methods),
        "reports": {name: page.relative_to(out).as_posix() for name, page in reports.items()},
        "aggregates": aggregates,
        "aggregate_rows": aggregate_table(aggregates) if aggregates else [],
        "no_aggregates": no_aggregates(sections),
        "missing": missing,
    }
    page = render_page(PAGE, method_texts(methods), figures, variables)
    write_atomically(out / PAGE, page.encode())
    return out / PAGE
