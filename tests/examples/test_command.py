"""examples/command.py: what the scripts have in common."""

from __future__ import annotations

import pytest

from examples.command import run_script, seeds_by_method
from metarl.core.errors import StorageError, UserError
from tests.evaluation.tiny_runs import KINDS, POINT, train_tiny


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (StorageError, 1)])
def test_an_error_is_one_line(error, code, capsys):
    def main() -> None:
        raise error("runs/none: there is no such run")

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == code
    assert capsys.readouterr().err == "metarl: error: runs/none: there is no such run\n"


def test_the_code_of_a_script_is_kept():
    with pytest.raises(SystemExit) as end:
        run_script(lambda: 1)
    assert end.value.code == 1


def test_runs_are_seeds_of_their_methods(tmp_path):
    """A seed that is there twice is refused, and so is another family."""
    settings = KINDS["maml"]
    runs = train_tiny(
        {
            "first": settings,
            "second": {**settings, "seed": 1},
            "other": {**settings, "method": "other"},
            "shorter": {**settings, "env": {**POINT, "horizon": 4}},
        },
        tmp_path,
    )
    folders = {name: run.directory for name, run in runs.items()}
    found = seeds_by_method([folders["first"], folders["second"], folders["other"]])
    method = runs["first"].config.method
    assert {name: [run.config.seed for run in seeds] for name, seeds in found.items()} == {
        method: [0, 1],
        "other": [0],
    }
    with pytest.raises(UserError, match=f"{method} has seed 0 already, in "):
        seeds_by_method([folders["first"], folders["first"]])
    with pytest.raises(UserError, match=r"expected a run on point_nav.*, got one on point_nav.*"):
        seeds_by_method([folders["first"], folders["shorter"]])
