"""docs/python.md: its code runs."""

from __future__ import annotations

import numpy as np

from tests.docs.commands import blocks


def test_the_code_of_the_page(monkeypatch, tmp_path, capsys):
    """All Python blocks of the page, one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict = {}
    for code in blocks("docs/python.md", "python"):
        exec(compile(code, "docs/python.md", "exec"), names)  # noqa: S102 (it is the test)
    assert names["run"].load().iteration == len(names["run"].metrics()) == 6
    assert "stopped by a callback after iteration 2;" in capsys.readouterr().out
    curves = np.loadtxt("curves.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(curves[:, 1], curves[:, 2:].mean(axis=1))
    shortest = min(names["histories"], key=lambda each: each["env_steps"][-1])
    assert curves[-1, 0] == shortest["env_steps"][-1]
    assert shortest["return_after"][-1] in curves[-1, 2:]
    assert curves.shape == (50, 5)
