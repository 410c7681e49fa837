"""Frames rendered by several processes."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs import RendererFailed, RenderingUnavailable, make_family
from metarl.reporting.video import render_workers
from metarl.reporting.video.adaptation import play
from metarl.reporting.video.files import frame_times
from metarl.reporting.video.layout import AdaptationVideo, Layout
from metarl.reporting.video.render_workers import num_processes, render_frames

TASKS = {"point_nav": [[0.3, -0.4], [0.1, 0.1]], "half_cheetah_vel": [[1.5], [0.5]]}


@pytest.fixture
def make_video(make_agent):
    def make(name: str) -> AdaptationVideo:
        family, tasks = make_family(name, horizon=5), np.array(TASKS[name])
        panels = play(make_agent(family), family, tasks, 1, 0, 2)
        return AdaptationVideo(family, tasks, panels, Layout.around((96, 72), 2, 2))

    return make


def draw(video: AdaptationVideo, cores: int) -> list[np.ndarray]:
    try:
        return [np.asarray(frame) for frame in render_frames(video, frame_times(video, 30), cores)]
    except RenderingUnavailable as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")


@pytest.mark.parametrize("name", TASKS)
def test_several_processes_draw_what_one_draws(make_video, name, monkeypatch):
    video = make_video(name)
    alone = draw(video, 1)
    monkeypatch.setattr(render_workers, "MIN_PICTURES", 1)
    assert num_processes(video, len(alone), 2) == 2
    together = draw(video, 2)
    assert len(alone) == len(together) == 9
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(alone[0], alone[-1])


def test_few_pictures_are_not_worth_a_process(make_video):
    video = make_video("point_nav")  # 2 x 2 panels
    assert num_processes(video, 39, 8) == 1
    assert num_processes(video, 40, 8) == 2
    assert num_processes(video, 600, 8) == 8


def test_a_failing_process_is_told_with_its_reason(make_video, monkeypatch):
    """There are no panels for one of the tasks."""
    video = make_video("point_nav")
    tasks = np.concatenate([video.tasks, video.tasks])
    broken = AdaptationVideo(video.family, tasks, video.panels, video.layout)
    monkeypatch.setattr(render_workers, "MIN_PICTURES", 1)
    with pytest.raises(RuntimeError, match="a process that renders the video failed: ValueError"):
        list(render_frames(broken, [0, 1, 2, 3], 2))


@pytest.mark.parametrize("cores", [1, 2])
def test_a_failing_renderer_is_told_with_its_error_and_place(make_video, monkeypatch, cores):
    """The renderer of this family fails with tasks of one number, also in a process of its own."""
    video = make_video("point_nav")
    broken = AdaptationVideo(video.family, video.tasks[:, :1], video.panels, video.layout)
    monkeypatch.setattr(render_workers, "MIN_PICTURES", 1)
    expected = r"the renderer of point_nav raised IndexError: .* \(point.py, line \d+, in \w+\)$"
    with pytest.raises(RendererFailed, match=f"^{expected}"):
        list(render_frames(broken, [0, 1, 2, 3], cores))


def test_a_machine_that_cannot_render_is_told_as_such(make_video, monkeypatch):
    video = make_video("half_cheetah_vel")
    monkeypatch.setattr(render_workers, "MIN_PICTURES", 1)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RenderingUnavailable, match="cannot render: no OpenGL context"):
        list(render_frames(video, [0, 1, 2, 3], 2))
