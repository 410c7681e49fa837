"""Frames drawn by several processes."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs import RenderingUnavailable, make_family
from metarl.reporting.video import render_workers as frames
from metarl.reporting.video.adaptation import frame_times, play
from metarl.reporting.video.layout import Film, Layout
from metarl.reporting.video.render_workers import draw_frames, num_processes

TASKS = {"point_nav": [[0.3, -0.4], [0.1, 0.1]], "half_cheetah_vel": [[1.5], [0.5]]}


@pytest.fixture
def make_film(make_agent):
    def make(name: str) -> Film:
        family, tasks = make_family(name, horizon=5), np.array(TASKS[name])
        panels = play(make_agent(family), family, tasks, 1, 0, 2)
        return Film(family, tasks, panels, Layout.around((96, 72), 2, 2))

    return make


def draw(film: Film, cores: int) -> list[np.ndarray]:
    try:
        return [np.asarray(frame) for frame in draw_frames(film, frame_times(film, 30), cores)]
    except RenderingUnavailable as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")


@pytest.mark.parametrize("name", TASKS)
def test_several_processes_draw_what_one_draws(make_film, name, monkeypatch):
    film = make_film(name)
    alone = draw(film, 1)
    monkeypatch.setattr(frames, "MIN_PICTURES", 1)
    assert num_processes(film, len(alone), 2) == 2
    together = draw(film, 2)
    assert len(alone) == len(together) == 9
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(alone[0], alone[-1])


def test_few_pictures_are_not_worth_a_process(make_film):
    film = make_film("point_nav")  # 2 x 2 panels
    assert num_processes(film, 39, 8) == 1
    assert num_processes(film, 40, 8) == 2
    assert num_processes(film, 600, 8) == 8


def test_a_failing_process_is_told_with_its_reason(make_film, monkeypatch):
    """This family cannot be drawn with tasks of one number."""
    film = make_film("point_nav")
    broken = Film(film.family, film.tasks[:, :1], film.panels, film.layout)
    monkeypatch.setattr(frames, "MIN_PICTURES", 1)
    with pytest.raises(RuntimeError, match="a process that draws the film failed: IndexError"):
        list(draw_frames(broken, [0, 1, 2, 3], 2))


def test_a_machine_that_cannot_render_is_told_as_such(make_film, monkeypatch):
    film = make_film("half_cheetah_vel")
    monkeypatch.setattr(frames, "MIN_PICTURES", 1)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RenderingUnavailable, match="cannot render: no OpenGL context"):
        list(draw_frames(film, [0, 1, 2, 3], 2))
