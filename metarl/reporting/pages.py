"""What all HTML pages have in common: templates, the numbers and texts in them, and figures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from metarl.core.parsing import printable
from metarl.reporting.names import evaluation_text, family_text, time_text
from metarl.reporting.report_lead import format_number
from metarl.reporting.style import COLOURS, DARK_COLOURS, FORMATS, Drawing, page_svg


def environment() -> jinja2.Environment:
    """Return the templates of pages and model cards."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("metarl.reporting", "templates"),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "number": format_number,
        "time": time_text,
        "markdown": escape_markdown,
        "headings": headings,
    }
    return made


def render_page(
    template: str,
    texts: Mapping[str, str],
    figures: Mapping[str, tuple[Drawing, bytes]],
    variables: Mapping[str, Any],
) -> str:
    """Return the HTML of a page.

    Args:
        template: name of the template.
        texts: what the filter `method` shows for the label of each method on the page.
        figures: the figures by name, with their SVG files.
        variables: further variables of the template.
    """
    templates = environment()
    templates.filters |= {
        "method": lambda label: texts.get(label, label),
        "family": family_text,
        "evaluation": evaluation_text,
    }
    common = {
        "figures": {name: drawing for name, (drawing, _) in figures.items()},
        "drawings": {
            name: Markup(page_svg(svg, name, drawing.caption))
            for name, (drawing, svg) in figures.items()
        },
        "formats": FORMATS,
        "colours": COLOURS,
        "dark_colours": DARK_COLOURS,
    }
    return templates.get_template(template).render({**common, **variables}).lstrip()


def headings(content: str) -> list[tuple[str, Markup]]:
    """Return the id and the text of each heading of second order in the HTML of a page."""
    found = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', content)
    return [(name, Markup(text)) for name, text in found]


def escape_markdown(value: Any) -> str:
    """Return a text as Markdown that shows it literally, on one line, without HTML and links."""
    text = html.escape(printable(str(value)), quote=False)
    # Within a word an underscore means nothing.
    special = r"([\\`*{}\[\]()#+!|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
    return re.sub(special, r"\\\1", text)
