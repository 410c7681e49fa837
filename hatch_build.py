"""The long description of the package: README.md with absolute links, as package indices need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = with_absolute_links(readme, metadata["urls"]["Homepage"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def with_absolute_links(text: str, repository: str) -> str:
    """Return Markdown whose links and images lead to the main branch of a repository on GitHub."""

    def absolute(match: re.Match[str]) -> str:
        image, label, path = match.groups()
        return f"{image}[{label}]({repository}/{'raw' if image else 'blob'}/main/{path})"

    return LINK.sub(absolute, text)
