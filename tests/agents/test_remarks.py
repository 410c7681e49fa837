"""A training whose step size is 0 before its end is warned of."""

from __future__ import annotations

import pytest

from metarl.config_files import make_config
from metarl.training.loop import resume, train

SMALL = {"sampling": {"num_tasks": 2, "num_episodes": 1, "adaptation_steps": 1}, "iterations": 2}
ENV = {"family": "point_nav", "horizon": 5}


def text(key: str, value: int, iterations: int) -> str:
    return (
        f"agent.{key}: {value} leaves nothing to learn in the last {iterations - value} of "
        f"{iterations} iterations, whose step size is 0; expected at least as many"
    )


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("rl2", {"update": {"lr_anneal": 3}}, []),
        ("rl2", {"update": {"lr_anneal": 2, "entropy_anneal": 1}}, [("update.lr_anneal", 2)]),
        ("varibad", {"model": {"lr_anneal": 2}}, [("model.lr_anneal", 2)]),
        ("maml", {}, []),
        ("maml", {"outer": {"update": "ppo", "lr_anneal": 2}}, [("outer.lr_anneal", 2)]),
        ("maml", {"outer": {"update": "adam", "lr_anneal": 2}}, [("outer.lr_anneal", 2)]),
        ("maml", {"outer": {"update": "ppo", "lr_anneal": 3}}, []),
    ],
)
def test_which_schedules_end_too_early(kind, values, expected):
    config = make_config({**SMALL, "env": ENV, "agent": {"kind": kind, **values}}, "mine", {})
    assert config.agent.remarks(3) == [text(*each, 3) for each in expected]


def test_a_run_that_is_extended_beyond_its_schedule_is_warned_of(tmp_path, capsys):
    agent = {"kind": "rl2", "network": {"size": 3}, "update": {"lr_anneal": 2}}
    settings = {"tracking.mode": "disabled", "threads": 1}
    train(make_config({**SMALL, "env": ENV, "agent": agent}, "mine", settings), tmp_path / "run")
    assert "leaves nothing" not in capsys.readouterr().err
    resume(tmp_path / "run", iterations=3)
    assert f"metarl: warning: {text('update.lr_anneal', 2, 3)}" in capsys.readouterr().err
