"""Errors of a family's own code, told on one line."""

import pytest

from metarl.envs.contract import run_check
from metarl.envs.errors import located
from metarl.envs.point import PointNav
from metarl.envs.rendering import RendererFailed, RenderingUnavailable, drawing

INSTALLED = """
def fail():
    raise ValueError("no GPU\\nno display")

def caught():
    try:
        fail()
    except ValueError as error:
        return error
"""


def test_an_error_is_told_with_its_place_in_an_installed_package_too():
    """There every frame is one of an installed package."""
    names = {}
    exec(compile(INSTALLED, "/lib/site-packages/robots/draw.py", "exec"), names)  # noqa: S102
    assert located(names["caught"]()) == "ValueError: no GPU (draw.py, line 3, in fail)"


def test_the_place_is_the_innermost_outside_installed_packages():
    names = {}
    exec(compile(INSTALLED, "/lib/site-packages/robots/draw.py", "exec"), names)  # noqa: S102
    with pytest.raises(ValueError, match="no GPU") as caught:
        names["fail"]()
    assert "(test_errors.py, line " in located(caught.value)


def test_an_error_of_another_process_is_told_with_its_place_there():
    told = 'walk.py:Walk raised KeyError: x\n  File "/home/me/walk.py", line 7, in step\n  y = x'
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(told)
    assert located(caught.value) == (
        "RuntimeError: walk.py:Walk raised KeyError: x (walk.py, line 7, in step)"
    )


def test_what_a_renderer_raises_is_one_line_with_its_cause():
    with pytest.raises(RendererFailed) as caught, drawing("walker"):
        raise ZeroDivisionError("by zero\nreally")
    assert str(caught.value).startswith(
        "the renderer of walker raised ZeroDivisionError: by zero (test_errors.py, line "
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(RenderingUnavailable, match=r"^set MUJOCO_GL$"), drawing("walker"):
        raise RenderingUnavailable("set MUJOCO_GL")


@pytest.mark.parametrize("method", ["__init__", "draw", "close"])
def test_check_env_tells_of_a_renderer_that_fails_wherever_it_does(monkeypatch, method):
    def fail(*_, **__):
        raise KeyError("geom\nnone")

    monkeypatch.setattr(f"metarl.envs.point.PointRenderer.{method}", fail)
    check = run_check("pictures", PointNav())
    assert check.outcome == "FAIL"
    assert check.reason.startswith("raised KeyError: 'geom\\nnone' (test_errors.py, line ")
    assert "\n" not in check.reason
