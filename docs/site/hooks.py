"""What the site adds to the pages of `docs`, which stay readable in the repository.

- `README.md`, `CONTRIBUTING.md` and `CHANGELOG.md` are pages too, and the first is the home page.
- Links to files of the repository that are not on the site lead to the public repository.
- Equations, `$...$` and `$$...$$`, become drawings: the reader's browser fetches nothing.
- In a table, code of more than 40 characters, such as a message, may be broken into lines. In a
  narrow window a name may be broken after each dot, and cells of more than 60 characters keep a
  readable width.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import TextPath
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository's root, and their names on the site."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")
SIZE = 19  # of the letters of an equation, in its own units
UNIT = 16  # units of a drawing that are one em of the page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and the videos."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    for video in sorted((ROOT / "videos").glob("*.gif")):
        name = f"videos/{video.name}"
        files.append(File.generated(config, name, abs_src_path=str(video)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to the repository lead to the site's page or, if there is none, to the public
    repository. A link to nothing stays, and fails the build."""
    root_files = {name: source for source, name in PAGES.items()}
    name = page.file.src_uri
    folder = "" if name in root_files else str(PurePosixPath("docs", name).parent)

    def replaced(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match[1].partition("#")
        target = os.path.normpath(os.path.join(folder, path))
        on_site = PAGES.get(target, target.removeprefix("docs/"))
        if on_site in files.src_uris and not files.src_uris[on_site].inclusion.is_excluded():
            path = os.path.relpath(on_site, PurePosixPath(name).parent)
        elif (ROOT / target).exists():
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            path = f"{config.extra['repository']}/{kind}/main/{target}"
        return f"{path}{hash_sign}{anchor}"

    return LINK.sub(replaced, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the equations, and mark what may be broken in tables, and what is long."""
    content = re.sub("<code>([^<]{41,})</code>", r'<code class="long">\1</code>', content)
    content = re.sub(r"<td>(.*?)</td>", marked_cell, content, flags=re.S)
    inline = r'<span class="arithmatex">\\\((.*?)\\\)</span>'
    content = re.sub(inline, drawn, content, flags=re.S)
    return re.sub(
        r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>',
        lambda match: f'<div class="equation" tabindex="0">{drawn(match)}</div>',
        content,
        flags=re.S,
    )


def marked_cell(match: re.Match[str]) -> str:
    """Return a cell of a table with possible breaks in dotted names, marked if it is long."""
    text = html.unescape(re.sub("<[^>]*>", "", match[1]))
    cell = re.sub(r"(?<=<code>)[a-z_]\w*(?:\.\w+)+(?=</code>)", broken_name, match[1])
    return f'<td class="prose">{cell}</td>' if len(text) > 60 else f"<td>{cell}</td>"


def broken_name(match: re.Match[str]) -> str:
    """Return a dotted name that may be broken after each dot."""
    return match[0].replace(".", ".<wbr>")


def drawn(match: re.Match[str]) -> str:
    """Return an equation of LaTeX as an SVG in the colour of the text, on its base line."""
    latex = " ".join(html.unescape(match[1]).split())
    font = FontProperties(size=SIZE, math_fontfamily="cm")
    parsed: Any = MathTextParser("path").parse(f"${latex}$", 72, font)
    width, depth, height = (value + 1 for value in (parsed.width, parsed.depth, parsed.height))
    outline = TextPath((0, 0), f"${latex}$", prop=font)
    commands, codes = [], {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    for points, code in outline.iter_segments(curves=True, simplify=False):
        numbers = [] if code == 79 else (points.reshape(-1, 2) * [1, -1]).ravel()
        commands.append(codes[int(code)] + " ".join(f"{number:.2f}" for number in numbers))
    return (
        f'<svg class="math" role="img" aria-label="{html.escape(latex)}" '
        f'viewBox="0 {-height:.2f} {width:.2f} {height + depth:.2f}" '
        f'style="width:{width / UNIT:.2f}em;height:{(height + depth) / UNIT:.2f}em;'
        f'vertical-align:{-depth / UNIT:.2f}em">'
        f'<path fill="currentColor" d="{"".join(commands)}"/></svg>'
    )
