from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from metarl.core.errors import StorageError, UserError
from metarl.envs import RenderingUnavailable, TaskError, make_family
from metarl.envs.point import PointRenderer
from metarl.reporting.video import adaptation as video
from metarl.reporting.video import files
from metarl.reporting.video.adaptation import VideoInfo, adaptation_video
from metarl.reporting.video.belief_inset import TaskBelief
from metarl.reporting.video.files import LAST_FRAME_SECONDS
from metarl.reporting.video.layout import AdaptationVideo, Layout, Panel
from metarl.rollout.episodes import Episodes

GOALS = {"point_nav": [0.3, -0.4], "half_cheetah_dir": [-1.0]}


@pytest.fixture
def make_video(make_agent, tmp_path):
    """Returns a function that makes a video of a small agent and returns its `VideoInfo`."""

    def make(
        name: str = "point_nav", out: str = "a.mp4", horizon: int = 6, **settings
    ) -> VideoInfo:
        family = make_family(name, horizon=horizon)
        small = {"steps": 1, "episodes": 2, "width": 161, "height": 121, **settings}
        agent, task = make_agent(family), GOALS[name]
        try:
            return adaptation_video(agent, family, task, out=tmp_path / out, **small)
        except RenderingUnavailable as error:
            pytest.skip(f"MuJoCo cannot draw here: {error}")

    return make


def decode(path: Path) -> tuple[np.ndarray, str]:
    """Read a video: its frames, (frames, height, width, 3), and what ffmpeg says of it."""
    command = [get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    said = done.stderr.decode().partition("Output #0")[0]
    width, height = map(int, re.findall(r" (\d+)x(\d+)[, ]", said)[0])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), said


@pytest.mark.parametrize("name", GOALS)
def test_mp4_has_every_step_and_plays_in_browsers(make_video, name):
    info = make_video(name, "a.mp4")
    frames, said = decode(info.path)
    assert re.search(r"Video: h264 .* yuv420p.* 20 fps", said)
    assert info.fps == 20
    assert len(frames) == info.num_frames == 7 + LAST_FRAME_SECONDS * 20
    assert info.speed.startswith("7 frames of")
    assert frames.shape[1:3] == (info.height, info.width)
    assert info.width % 2 == info.height % 2 == 0
    assert info.width >= 2 * 161
    assert len(info.mean_returns) == 2
    # The index comes first, so that playing can begin before all is loaded.
    data = info.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", GOALS)
def test_gif_plays_at_the_right_speed(make_video, name):
    info = make_video(name, "a.gif")
    with Image.open(info.path) as image:
        times = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
        assert image.size == (info.width, info.height)
        assert image.info["loop"] == 0
    assert times == [50] * 6 + [LAST_FRAME_SECONDS * 1000]
    assert info.num_frames == 7
    assert info.fps == 20


@pytest.mark.parametrize(("fps", "number"), [(5, 4), (7.5, 6), (20, 12), (50, 29)])
def test_more_or_fewer_frames_take_the_same_time(make_video, fps, number):
    """11 control steps at 20 a second, in a GIF that counts in hundredths of a second."""
    info = make_video(out="a.gif", horizon=11, fps=fps)
    with Image.open(info.path) as image:
        times = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
    assert len(times) == info.num_frames == number
    assert sum(times) == pytest.approx(1000 * (11 / 20 + LAST_FRAME_SECONDS), abs=10)
    assert info.fps == fps


def test_sixty_frames_a_second_show_what_is_between_two_steps(make_video):
    usual, smooth = (make_video("half_cheetah_dir", f"{fps}.mp4", fps=fps) for fps in (20, 60))
    assert smooth.num_frames == 3 * 6 + 1 + LAST_FRAME_SECONDS * 60
    few, many = (decode(info.path)[0].astype(int) for info in (usual, smooth))
    moved = np.abs(np.diff(many[:19], axis=0)).mean(axis=(1, 2, 3))
    assert (moved > 0).all()  # no frame is a copy of the one before
    # Every third is one of the usual, up to the codec's losses.
    assert np.abs(many[:19:3] - few[:7]).mean() < 3


@pytest.mark.parametrize(("steps", "columns", "rows"), [(0, 1, 1), (3, 4, 1), (4, 3, 2), (8, 3, 3)])
def test_panels_are_wrapped_into_rows(make_video, steps, columns, rows):
    info = make_video(steps=steps, horizon=1)
    assert info.width // 160 == columns
    assert info.height // 160 == rows


@pytest.mark.parametrize(
    ("name", "out"), [("point_nav", "a.mp4"), ("point_nav", "a.gif"), ("half_cheetah_dir", "a.gif")]
)
def test_same_seed_same_file(make_video, name, out):
    first, second = (make_video(name, f"{i}{out}", horizon=3, seed=5).path for i in range(2))
    assert np.array_equal(decode(first)[0], decode(second)[0])


def test_other_seed_other_episodes(make_video):
    first, second = (make_video(out=f"{seed}.gif", horizon=3, seed=seed) for seed in range(2))
    assert not np.array_equal(decode(first.path)[0], decode(second.path)[0])


def test_an_ended_episode_stays_and_says_so():
    family, tasks = make_family("point_nav", horizon=5), np.array([[0.1, 0.1]])
    path = np.array([[0.0, 0.0], [0.1, 0.1]])
    ended, unmarked = (Panel(path, np.zeros(1), end, 0.0) for end in (True, False))
    going = Panel(np.zeros((6, 2)), np.zeros(5), False, 0.0)
    layout = Layout.around((200, 150), 1, 2)

    def pictures(*panels: Panel) -> list[np.ndarray]:
        content = AdaptationVideo(family, tasks, [[*panels]], layout)
        assert content.num_steps == 5
        with content.renderers() as renderers:
            return [
                np.asarray(content.frame(renderers, t).crop((0, 0, 200, 200))) for t in range(6)
            ]

    shown = pictures(ended, going)
    assert (shown[5][:-4] == shown[1][:-4]).all()  # all but the strip of progress
    assert not np.array_equal(shown[1], pictures(unmarked, going)[1])


def test_what_is_shown_is_the_first_episode(make_agent, monkeypatch):
    """Its observations are the positions; the phases follow from adapting as in evaluation."""
    family = make_family("point_nav", horizon=6)
    seen: list[Episodes] = []

    def spy(*args, **kwargs):
        for rollout in adaptation(*args, **kwargs):
            seen.append(rollout.episodes)
            yield rollout

    adaptation = video.adaptation_rollouts
    monkeypatch.setattr(video, "adaptation_rollouts", spy)
    tasks = np.array([[0.3, -0.4], [0.1, 0.2]])
    rows = video.play(make_agent(family), family, tasks, 2, 0, 3)
    assert [len(row) for row in rows] == [3, 3]
    for task, row in enumerate(rows):
        for panel, episodes in zip(row, seen, strict=True):
            expected = [*episodes.obs[task, 0], episodes.last_obs[task, 0]]
            assert panel.states == pytest.approx(np.array(expected), abs=1e-6)
            assert np.array_equal(panel.reward, episodes.reward[task, 0])
            assert panel.mean_return == episodes.returns[task].mean()


@pytest.mark.parametrize("out", ["a.avi", "a", "a.MP4.txt"])
def test_refuses_other_formats_before_any_work(make_video, tmp_path, out):
    with pytest.raises(UserError, match=r"out: expected a file ending in \.mp4 or \.gif"):
        make_video(out=out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": -1},
        {"episodes": 0},
        {"deterministic": "no"},
        {"width": 10},
        {"height": 5000},
        {"fps": 0},
        {"fps": 0, "preset": "talk"},
        {"fps": 1e-9},
        {"fps": 500},
        {"fps": "20"},
        {"cores": 0},
        {"seed": -1},
        {"steps": 1.5},
    ],
)
def test_refuses_settings_out_of_range(make_video, tmp_path, settings):
    with pytest.raises(UserError, match=f"^{next(iter(settings))}"):
        make_video(**settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["a.mp4", "a.gif"])
def test_refuses_frames_larger_than_the_format_has_before_any_work(
    make_video, tmp_path, monkeypatch, out
):
    monkeypatch.setattr(video, "play", None)
    with pytest.raises(UserError, match=r"out: expected fewer .* pixels a side, got \(1938, "):
        make_video(out=out, steps=1000, width=480, height=360)
    assert not list(tmp_path.iterdir())


def test_refuses_a_task_of_another_kind(make_agent, tmp_path):
    family = make_family("point_nav")
    with pytest.raises(TaskError):
        adaptation_video(make_agent(family), family, [3.0, 0.0], steps=1, out=tmp_path / "a.mp4")


def test_refuses_a_folder_that_cannot_be_written_before_any_work(make_video, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "play", None)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out: cannot write"):
        make_video(out="file/a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=r"out: expected a file, got .*the folder"):
        make_video(out="folder.mp4")


def test_makes_the_folder(make_video):
    assert make_video(out="new/folder/a.gif").path.is_file()


@pytest.mark.parametrize("out", ["a.mp4", "a.gif"])
def test_a_failure_leaves_the_old_file_and_nothing_else(make_video, tmp_path, monkeypatch, out):
    (tmp_path / out).write_text("the old one")
    draw = PointRenderer.draw

    def fail(self, states: np.ndarray, task: np.ndarray, time: float) -> np.ndarray:
        if time == 3:
            raise RuntimeError("out of paint")
        return draw(self, states, task, time)

    monkeypatch.setattr(PointRenderer, "draw", fail)
    with pytest.raises(RuntimeError, match="out of paint"):
        make_video(out=out)
    assert [path.name for path in tmp_path.iterdir()] == [out]
    assert (tmp_path / out).read_text() == "the old one"


def test_a_failing_encoder_is_not_overlooked(make_video, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(StorageError, match=r"a\.mp4: cannot be written \(ffmpeg: exit code 1\)"):
        make_video()
    assert not list(tmp_path.iterdir())


def test_episodes_are_played_on_one_thread_as_in_an_evaluation(make_agent, tmp_path):
    """The rounding of matrix products may depend on their number."""
    threads = []

    def count(env):
        blas = [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]
        threads.append({torch.get_num_threads(), *blas})

    family = make_family("point_nav", horizon=4)
    settings = {"steps": 1, "episodes": 2, "width": 160, "height": 120, "on_step": count}
    with threadpool_limits(2, user_api="blas"):
        adaptation_video(make_agent(family), family, [0.3, 0.4], out=tmp_path / "a.gif", **settings)
    assert threads == [{1}] * 10


def test_several_tasks_are_rows_of_a_grid(make_agent, tmp_path):
    """A row is what a video of the task alone would show, but for its episodes' random numbers."""
    family, tasks = make_family("point_nav", horizon=4), [[0.3, -0.4], [-0.2, 0.5], [0.0, 0.1]]
    settings = {"steps": 1, "episodes": 2, "width": 160, "height": 120}
    agent, out = make_agent(family), tmp_path / "a.gif"
    info = adaptation_video(agent, family, tasks, out=out, **settings)
    alone = adaptation_video(agent, family, tasks[:1], out=tmp_path / "b.gif", **settings)
    assert info.width == alone.width
    assert info.height > 2.9 * alone.height - 10
    with Image.open(info.path) as grid, Image.open(alone.path) as row:
        top, same = (np.asarray(each.convert("RGB"))[:150].astype(int) for each in (grid, row))
        assert np.abs(top - same).mean() < 2  # up to the palette
    assert len(info.mean_returns) == 2


@pytest.mark.parametrize(
    ("panels", "shape"), [((1, 2), (2, 1)), ((1, 4), (2, 2)), ((1, 5), (3, 2)), ((4, 4), (4, 4))]
)
@pytest.mark.parametrize("insets", [False, True])
def test_a_talk_is_filled_well(panels, shape, insets):
    """Within 1920 x 1080: as large as the captions allow, not too flat and not too high."""
    layout = Layout.within((1920, 1080), *panels, insets)
    width, height = layout.picture
    assert (layout.columns, layout.rows) == shape
    assert layout.total == (1920, 1080)
    assert 4 / 3 - 0.01 <= width / height <= 2
    needed = layout.needed
    assert max(needed[0] / 1920, needed[1] / 1080) > 0.95
    assert needed[0] <= 1920
    assert needed[1] <= 1080
    for index in range(layout.columns * layout.rows):
        left, top = layout.corner(index)
        assert left >= 0
        assert top >= 0
        assert left + width <= 1920
        assert top + height + layout.text <= 1080


def test_an_inset_leaves_the_picture_as_it_is():
    """Goal and agent are never under the belief: it is below the picture."""
    family, task = make_family("point_nav", horizon=5), np.array([[0.4, -0.4]])
    belief = TaskBelief(np.zeros((5, 2)), np.tile(np.eye(2), (5, 1, 1)), -np.ones(2), np.ones(2))
    frames = []
    for shown in (None, belief):
        panel = Panel(np.zeros((6, 2)), np.zeros(5), False, 0.0, shown)
        layout = Layout.around((200, 150), 1, 1, insets=shown is not None)
        video = AdaptationVideo(family, task, [[panel]], layout)
        with video.renderers() as renderers:
            frames.append(np.asarray(video.frame(renderers, 5.0)))
    picture = 150 + round(1.35 * layout.line)
    assert np.array_equal(*(frame[:picture] for frame in frames))
    assert frames[1].shape[0] == frames[0].shape[0] + layout.line


def test_presets(make_video):
    talk = make_video(out="a.mp4", preset="talk", horizon=2)
    assert (talk.width, talk.height, talk.fps) == (1920, 1080, 60)
    assert decode(talk.path)[0].shape[1:3] == (1080, 1920)
    small = make_video(out="a.gif", preset="readme")
    assert small.width == 720
    assert small.fps == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "tlak"}, r"preset: unknown 'tlak' \(nearest: talk\): expected one of readme"),
        ({"preset": "talk", "out": "a.gif"}, r"out: expected a file ending in \.mp4, got .*a\.gif"),
        ({"preset": "talk", "steps": 400}, "steps: 1 x 401 panels are too many"),
    ],
)
def test_refuses_presets_that_do_not_fit(make_video, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        make_video(**settings)
    assert not list(tmp_path.iterdir())


def test_says_the_returns_and_the_speed(make_video):
    info = make_video(out="a.gif", horizon=2)
    before, after = info.mean_returns
    returns = f"before adaptation {before:.1f}, after 1 adaptation {after:.1f}"
    assert str(info) == f"{info.path} (mean return {returns})"
    assert re.fullmatch(
        rf"3 frames of {info.width} x {info.height} in [0-9.]+ s: [0-9.]+ frames/s by 1 process",
        info.speed,
    )
