"""Frames of a video, rendered by several processes.

Threads would not help: MuJoCo's renderer holds Python's global interpreter lock. Process i of n
renders the frames i, i + n, i + 2n, ... and writes their pixels to a pipe, which blocks it until
they are read.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence

from PIL import Image

from metarl.envs import RendererFailed, RenderingUnavailable
from metarl.reporting.video.layout import AdaptationVideo

MIN_PICTURES = 80  # of a process: fewer take less time than its start
UNAVAILABLE = 3  # exit code of a process that cannot render
FAILED = 4  # exit code of a process whose renderer fails
PROGRAM = """
import sys
sys.path[:] = {path}
from metarl.reporting.video.render_workers import serve
serve()
"""


def render_frames(
    video: AdaptationVideo, times: Sequence[float], cores: int
) -> Iterator[Image.Image]:
    """Yield the frames at given times, in control steps, rendered on up to `cores` cores.

    Raises:
        RenderingUnavailable: if the family cannot be rendered here.
        RendererFailed: if its renderer raises another error.
        RuntimeError: if a process fails.
    """
    count = num_processes(video, len(times), cores)
    if count == 1:
        with video.renderers() as renderers:
            for time in times:
                yield video.frame(renderers, time)
        return
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_render_worker(video, times[i::count])) for i in range(count)
        ]
        for index in range(len(times)):
            yield _read(workers[index % count], video)


def num_processes(video: AdaptationVideo, num_frames: int, cores: int) -> int:
    """Return the number of processes for which rendering is fastest, at most `cores`."""
    if type(video.family).__module__ == "__main__":
        return 1  # another process could not import it
    pictures = num_frames * sum(len(row) for row in video.panels)
    return max(1, min(cores, pictures // MIN_PICTURES))


@contextlib.contextmanager
def _render_worker(
    video: AdaptationVideo, times: Sequence[float]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that renders frames; it is killed at the end of the block."""
    # The processes use all cores, so a software renderer must not start threads.
    environment = {**os.environ, "LP_NUM_THREADS": "0"}
    command = [sys.executable, "-c", PROGRAM.format(path=repr(sys.path))]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    ) as process:
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # the reason of its end is read from stderr
                process.stdin.write(pickle.dumps((video, [*times])))
                process.stdin.close()
            yield process
        finally:
            process.kill()


def _read(worker: subprocess.Popen[bytes], video: AdaptationVideo) -> Image.Image:
    """Return the next frame of a process."""
    assert worker.stdout is not None
    assert worker.stderr is not None
    width, height = video.layout.total
    pixels = worker.stdout.read(width * height * 3)
    if len(pixels) < width * height * 3:
        stderr = worker.stderr.read().decode(errors="replace").strip()
        if worker.wait() == UNAVAILABLE:
            raise RenderingUnavailable(stderr)
        if worker.returncode == FAILED:
            raise RendererFailed(stderr.splitlines()[-1])
        reason = stderr.splitlines()[-1] if stderr else f"exit code {worker.returncode}"
        raise RuntimeError(f"a process that renders the video failed: {reason}")
    return Image.frombytes("RGB", (width, height), pixels)


def serve() -> None:
    """Render the frames requested on standard input; write their pixels to standard output."""
    video, times = pickle.load(sys.stdin.buffer)  # noqa: S301 (from our own process)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # The output of libraries must not mix with pixels.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with video.renderers() as renderers, out:
            for time in times:
                out.write(video.frame(renderers, time).tobytes())
                out.flush()
    except RenderingUnavailable as error:
        print(error, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    except RendererFailed as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
