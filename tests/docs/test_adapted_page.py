"""docs/adapted.md: its code runs, and the agent runs backward."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_the_code_of_the_page(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adapted.md").read_text(), re.S)
    (tmp_path / "page.py").write_text("\n".join(code))
    names = runpy.run_path(str(tmp_path / "page.py"))
    assert len(names["adapted"].returns) == 20
    assert names["env"].unwrapped.state_vector()[0] < -20  # metres, after ten seconds
    last, _ = names["adapted"].predict(names["obs"], deterministic=True)
    for action in (names["step"].action.detach().numpy(), names["action"]):
        np.testing.assert_allclose(action[0], last, atol=1e-5)
