"""The frames of a film, drawn by several processes.

Threads would not help: MuJoCo's renderer keeps Python's lock. Process number i of n draws the
frames i, i + n, i + 2n, ... and writes their pixels to a pipe, which makes it wait for its reader.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence

from PIL import Image

from metarl.envs import RenderingUnavailable
from metarl.reporting.video.layout import Film

MIN_PICTURES = 80  # of a process: fewer are drawn sooner than it starts
UNAVAILABLE = 3  # exit code of a process that cannot draw
PROGRAM = """
import sys
sys.path[:] = {path}
from metarl.reporting.video.render_workers import serve
serve()
"""


def draw_frames(film: Film, times: Sequence[float], cores: int) -> Iterator[Image.Image]:
    """Draw the frames at these moments, in control steps, on up to this many cores.

    Raises:
        RenderingUnavailable: if the family cannot be drawn here.
        RuntimeError: if a process fails.
    """
    number = num_processes(film, len(times), cores)
    if number == 1:
        with film.scenes() as scenes:
            for time in times:
                yield film.frame(scenes, time)
        return
    with contextlib.ExitStack() as stack:
        painters = [stack.enter_context(_painter(film, times[i::number])) for i in range(number)]
        for index in range(len(times)):
            yield _read(painters[index % number], film)


def num_processes(film: Film, num_frames: int, cores: int) -> int:
    """Return how many processes are worth their start."""
    if type(film.family).__module__ == "__main__":
        return 1  # another process could not import it
    pictures = num_frames * sum(len(row) for row in film.panels)
    return max(1, min(cores, pictures // MIN_PICTURES))


@contextlib.contextmanager
def _painter(film: Film, times: Sequence[float]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that draws these frames; end it, done or not."""
    # The cores are taken by the processes, not by the threads of a software renderer.
    environment = {**os.environ, "LP_NUM_THREADS": "0"}
    command = [sys.executable, "-c", PROGRAM.format(path=repr(sys.path))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as it:
        assert it.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # what it died of is read from stderr
                it.stdin.write(pickle.dumps((film, [*times])))
                it.stdin.close()
            yield it
        finally:
            it.kill()


def _read(painter: subprocess.Popen[bytes], film: Film) -> Image.Image:
    """Read the next frame of a process."""
    assert painter.stdout is not None
    assert painter.stderr is not None
    width, height = film.layout.total
    pixels = painter.stdout.read(width * height * 3)
    if len(pixels) < width * height * 3:
        said = painter.stderr.read().decode(errors="replace").strip()
        if painter.wait() == UNAVAILABLE:
            raise RenderingUnavailable(said)
        reason = said.splitlines()[-1] if said else f"exit code {painter.returncode}"
        raise RuntimeError(f"a process that draws the film failed: {reason}")
    return Image.frombytes("RGB", (width, height), pixels)


def serve() -> None:
    """Draw the frames that standard input asks for, and write their pixels to standard output."""
    film, times = pickle.load(sys.stdin.buffer)  # noqa: S301 (from our own process)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not a picture
    try:
        with film.scenes() as scenes, out:
            for time in times:
                out.write(film.frame(scenes, time).tobytes())
                out.flush()
    except RenderingUnavailable as error:
        print(error, file=sys.stderr)
        sys.exit(UNAVAILABLE)
