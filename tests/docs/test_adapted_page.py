"""docs/adapted.md: its code runs, and the agent runs backward."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_code_of_the_page(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adapted.md").read_text(), re.S)
    (tmp_path / "page.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "page.py"))
    assert len(names["adapted"].returns) == 20
    assert names["env"].unwrapped.state_vector()[0] < -20  # metres, after ten seconds
