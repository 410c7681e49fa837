"""Files of videos: MP4 and GIF."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from metarl.core.errors import UserError, check
from metarl.core.parsing import error_summary
from metarl.reporting.video.layout import AdaptationVideo

LAST_FRAME_SECONDS = 1.5  # for which the last frame is shown
GIF_COLOURS = 64


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file is moved to `path` if the block ends without an error."""
    check(not path.is_dir(), "out", "a file", f"the folder {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".video-", dir=path.parent)
    except OSError as error:
        raise UserError(f"out: cannot write {path}: {error_summary(error)}") from error
    with folder:
        partial_file = Path(folder.name) / path.name
        yield partial_file
        partial_file.replace(path)


def frame_times(video: AdaptationVideo, fps: float) -> list[float]:
    """Return the times of the frames in control steps: at the rate `fps`, and the end."""
    stride = video.family.frames_per_second / fps
    return [
        *(i * stride for i in range(math.ceil(video.num_steps / stride - 1e-6))),
        video.num_steps,
    ]


def save_mp4(video: AdaptationVideo, frames: Iterable[Image.Image], path: Path, fps: float) -> int:
    """Write an MP4 in H.264, playable in browsers; return the number of frames.

    Raises:
        OSError: if ffmpeg cannot write the file; with the last line of its output.
    """
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*video.layout.total)]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"]
    source += ["-r", str(fps), "-i", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", *source, *target, str(path)]
    pixels, held, written = b"", round(LAST_FRAME_SECONDS * fps), 0
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ffmpeg has ended
            for frame in frames:
                pixels = frame.tobytes()
                process.stdin.write(pixels)
                written += 1
            process.stdin.writelines([pixels] * held)
        said = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode:
        line = said.splitlines()[-1] if said else f"exit code {process.returncode}"
        raise OSError(f"ffmpeg: {line.rpartition('] ')[2]}")
    return written + held


def save_gif(video: AdaptationVideo, frames: Iterable[Image.Image], path: Path, fps: float) -> int:
    """Write a GIF; return the number of frames."""
    with video.renderers() as renderers:
        sample = [
            video.frame(renderers, time) for time in (0, video.num_steps // 2, video.num_steps)
        ]
    palette = Image.fromarray(np.vstack([np.asarray(frame) for frame in sample]))
    palette = palette.quantize(GIF_COLOURS)
    images = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    # Durations are in hundredths of a second; rounding errors do not accumulate.
    seconds = [time / video.family.frames_per_second for time in frame_times(video, fps)]
    times = [round(100 * second) for second in [*seconds, seconds[-1] + LAST_FRAME_SECONDS]]
    duration = [10 * (end - start) for start, end in pairwise(times)]
    next(images).save(path, save_all=True, append_images=images, duration=duration, loop=0)
    return len(duration)
