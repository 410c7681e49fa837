"""docs/pretrained.md: the returns are those of the cards."""

from __future__ import annotations

import re
from pathlib import Path

from metarl.reporting.hub import card_results
from metarl.runs.pretrained import pretrained_names

PAGE = (Path(__file__).parents[2] / "docs" / "pretrained.md").read_text()


def test_the_table():
    rows = re.findall(r"^\| `(pretrained/\w+)` \|.*\| (.*) \|$", PAGE, re.M)
    assert {name for name, _ in rows} == pretrained_names().keys()
    for name, returns in rows:
        means = card_results((pretrained_names()[name] / "README.md").read_text())
        shown = [float(number) for number in returns.split(", ")]
        assert all(abs(a - b) < 0.06 for a, b in zip(shown, means, strict=True))
