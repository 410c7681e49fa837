from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from envs import RenderingUnavailable, TaskError, make_family
from envs.point import PointScene
from metarl import video
from metarl.checks import UserError
from metarl.episodes import Episodes
from metarl.video import HOLD, Film, Panel, VideoInfo, adaptation_video

GOALS = {"point_nav": [0.3, -0.4], "half_cheetah_dir": [-1.0]}


@pytest.fixture
def film(make_agent, tmp_path):
    """Films a small agent in small panels, and returns what was written."""

    def film(
        name: str = "point_nav", out: str = "a.mp4", horizon: int = 6, **settings
    ) -> VideoInfo:
        family = make_family(name, horizon=horizon)
        small = {"steps": 1, "num_episodes": 2, "width": 161, "height": 121, **settings}
        agent, task = make_agent(family), GOALS[name]
        try:
            return adaptation_video(agent, family, task, out=tmp_path / out, **small)
        except RenderingUnavailable as error:
            pytest.skip(f"MuJoCo cannot draw here: {error}")

    return film


def decode(path: Path) -> tuple[np.ndarray, str]:
    """Read a video: its frames, (frames, height, width, 3), and what ffmpeg says of it."""
    command = [get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    said = done.stderr.decode().partition("Output #0")[0]
    width, height = map(int, re.findall(r" (\d+)x(\d+)[, ]", said)[0])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), said


@pytest.mark.parametrize("name", GOALS)
def test_mp4_has_every_step_and_plays_in_browsers(film, name):
    info = film(name, "a.mp4")
    frames, said = decode(info.path)
    assert re.search(r"Video: h264 .* yuv420p.* 20 fps", said)
    assert info.fps == 20
    assert len(frames) == info.num_frames == 7 + HOLD * 20
    assert frames.shape[1:3] == (info.height, info.width)
    assert info.width % 2 == info.height % 2 == 0
    assert info.width >= 2 * 161
    assert len(info.mean_returns) == 2
    # The index comes first, so that playing can begin before all is loaded.
    data = info.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", GOALS)
def test_gif_plays_at_the_right_speed(film, name):
    info = film(name, "a.gif")
    with Image.open(info.path) as image:
        times = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
        assert image.size == (info.width, info.height)
        assert image.info["loop"] == 0
    assert times == [50] * 6 + [HOLD * 1000]
    assert info.num_frames == 7
    assert info.fps == 20


@pytest.mark.parametrize("fps", [30, 50, 100])
def test_a_quick_gif_leaves_steps_out_and_keeps_its_duration(film, fps):
    info = film(out="a.gif", horizon=11, fps=fps)
    with Image.open(info.path) as image:
        times = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
    assert min(times) >= 10
    assert sum(times) == pytest.approx(1000 * (11 / fps + HOLD), abs=10)
    assert info.fps <= 20


@pytest.mark.parametrize(("steps", "columns", "rows"), [(0, 1, 1), (3, 4, 1), (4, 3, 2), (8, 3, 3)])
def test_panels_are_wrapped_into_rows(film, steps, columns, rows):
    info = film(steps=steps, horizon=1)
    assert info.width // 160 == columns
    assert info.height // 160 == rows


@pytest.mark.parametrize(
    ("name", "out"), [("point_nav", "a.mp4"), ("point_nav", "a.gif"), ("half_cheetah_dir", "a.gif")]
)
def test_same_seed_same_file(film, name, out):
    first, second = (film(name, f"{i}{out}", horizon=3, seed=5).path for i in range(2))
    assert np.array_equal(decode(first)[0], decode(second)[0])


def test_other_seed_other_episodes(film):
    first, second = (film(out=f"{seed}.gif", horizon=3, seed=seed) for seed in range(2))
    assert not np.array_equal(decode(first.path)[0], decode(second.path)[0])


def test_an_ended_episode_stays_and_says_so():
    family, task = make_family("point_nav", horizon=5), np.array([0.1, 0.1])
    path = np.array([[0.0, 0.0], [0.1, 0.1]])
    ended = Panel(path, np.zeros(1), True, 0.0)
    going = Panel(np.zeros((6, 2)), np.zeros(5), False, 0.0)
    scene = family.make_scene(200, 150)
    film = Film(family, task, scene, [ended, going], (200, 150))
    assert film.num_frames == 6
    pictures = [np.asarray(film.frame(step).crop((0, 0, 200, 200))) for step in range(6)]
    assert (pictures[5][:-4] == pictures[1][:-4]).all()  # all but the strip of progress
    unmarked = Film(family, task, scene, [Panel(path, np.zeros(1), False, 0.0), going], (200, 150))
    assert not np.array_equal(pictures[1], np.asarray(unmarked.frame(1).crop((0, 0, 200, 200))))


def test_what_is_shown_is_the_first_episode(make_agent, monkeypatch):
    """Its observations are the positions; the phases follow from adapting as in evaluation."""
    family = make_family("point_nav", horizon=6)
    seen: list[Episodes] = []

    def spy(*args, **kwargs):
        for state, episodes in adaptation(*args, **kwargs):
            seen.append(episodes)
            yield state, episodes

    adaptation = video.adaptation
    monkeypatch.setattr(video, "adaptation", spy)
    panels = video.play(make_agent(family), family, np.array([0.3, -0.4]), 2, 0, 3)
    assert len(panels) == len(seen) == 3
    for panel, episodes in zip(panels, seen, strict=True):
        expected = [*episodes.obs[0, 0], episodes.last_obs[0, 0]]
        assert panel.states == pytest.approx(np.array(expected), abs=1e-6)
        assert np.array_equal(panel.reward, episodes.reward[0, 0])
        assert panel.mean_return == episodes.returns.mean()


@pytest.mark.parametrize("out", ["a.avi", "a", "a.MP4.txt"])
def test_refuses_other_formats_before_any_work(film, tmp_path, out):
    with pytest.raises(UserError, match=r"out: expected a file ending in \.mp4 or \.gif"):
        film(out=out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings", [{"steps": -1}, {"num_episodes": 0}, {"width": 10}, {"fps": 0}, {"seed": -1}]
)
def test_refuses_settings_out_of_range(film, tmp_path, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        film(**settings)
    assert not list(tmp_path.iterdir())


def test_refuses_a_task_of_another_kind(make_agent, tmp_path):
    family = make_family("point_nav")
    with pytest.raises(TaskError):
        adaptation_video(make_agent(family), family, [3.0, 0.0], steps=1, out=tmp_path / "a.mp4")


def test_refuses_a_folder_that_cannot_be_written_before_any_work(film, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "play", None)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out: cannot write"):
        film(out="file/a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=r"out: expected a file, got .*the folder"):
        film(out="folder.mp4")


def test_makes_the_folder(film):
    assert film(out="new/folder/a.gif").path.is_file()


@pytest.mark.parametrize("out", ["a.mp4", "a.gif"])
def test_a_failure_leaves_the_old_file_and_nothing_else(film, tmp_path, monkeypatch, out):
    (tmp_path / out).write_text("the old one")
    draw = PointScene.draw

    def fail(self, states: np.ndarray, task: np.ndarray) -> np.ndarray:
        if len(states) == 4:
            raise RuntimeError("out of paint")
        return draw(self, states, task)

    monkeypatch.setattr(PointScene, "draw", fail)
    with pytest.raises(RuntimeError, match="out of paint"):
        film(out=out)
    assert [path.name for path in tmp_path.iterdir()] == [out]
    assert (tmp_path / out).read_text() == "the old one"


def test_a_failing_encoder_is_not_overlooked(film, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises((RuntimeError, BrokenPipeError)):
        film()
    assert not list(tmp_path.iterdir())


def test_says_the_returns(film):
    info = film(out="a.gif", horizon=2)
    before, after = info.mean_returns
    returns = f"before adaptation {before:.1f}, after 1 step {after:.1f}"
    assert str(info) == f"{info.path} (mean return {returns})"
