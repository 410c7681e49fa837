"""Commands of a worker: it plays the episodes that a `Pool` assigns to it.

Commands come on stdin and answers go to stdout, one line of JSON each; arrays are in shared memory,
laid out by `views`. The worker ends with its parent.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from .episodes import EpisodeRunner
from .makers import EnvRejected, find_maker, short
from .shared_arrays import views

FOLDER = os.path.dirname(__file__)
TRACEBACK_LINES = 12
STDERR_LIMIT = 1 << 20  # bytes of a worker's messages, above which they are discarded


class Worker:
    """Carries out the commands."""

    def __init__(self) -> None:
        self.runners: dict[int, EpisodeRunner] = {}
        self.views: dict[str, np.ndarray] = {}

    def open(
        self,
        spec: Mapping[str, Any],
        path: Sequence[str],
        render: bool,
        sizes: Mapping[str, int] | None = None,
        fd: int = -1,
        index: int = 0,
        rows: Sequence[int] = (0, 1),
    ) -> dict[str, Any] | None:
        """Find the environment. Without `sizes`, also play the task `spec["trial"]` and return the
        description of the environment."""
        sys.path += [entry for entry in path if entry not in sys.path]
        maker = find_maker(spec["name"])
        self.index, self.rows = index, range(*rows)
        self.runners = {row: EpisodeRunner(maker, spec, render) for row in self.rows}
        if sizes is None:
            runner = self.runners[0]
            runner.begin(np.array(spec["trial"]))
            runner.check_spaces()
            size = runner.reset(np.array(spec["trial"]), 0).size
            found = runner.description()
            if size != found["obs"]["size"]:
                raise EnvRejected(f"observes {size} numbers, not as its observation space says")
            return found
        _, length = views(sizes)
        self.views, _ = views(sizes, mmap.mmap(fd, length))
        return None

    def each(self, rows: Iterable[int]) -> Iterator[int]:
        """Iterate over the rows of a command, reporting progress and time to the parent."""
        shared, start = self.views, time.perf_counter()
        for row in rows:
            shared["row"][self.index] = row
            yield row
            shared["calls"][self.index] += 1
        shared["seconds"][self.index] = time.perf_counter() - start

    def reset(self) -> None:
        """Begin all episodes of this worker."""
        shared = self.views
        if os.fstat(2).st_size > STDERR_LIMIT:
            os.ftruncate(2, 0)
        for row in self.each(self.rows):
            task, seed = shared["task"][row].copy(), shared["seed"][row]
            shared["obs"][row] = self.checked(self.runners[row].reset(task, seed))

    def step(self) -> None:
        """Step the active episodes of this worker."""
        shared = self.views
        outcome = ("reward", "terminated", "truncated", "success")
        for row in self.each([row for row in self.rows if shared["active"][row]]):
            obs, *values = self.runners[row].step(shared["action"][row])
            shared["obs"][row] = self.checked(obs)
            for name, value in zip(outcome, values):  # noqa: B905 (Python 3.9)
                shared[name][row] = value

    def checked(self, obs: np.ndarray) -> np.ndarray:
        """Reject an observation of another size, which NumPy might broadcast."""
        size = self.views["obs"].shape[1]
        if obs.size != size:
            raise EnvRejected(
                f"observes {obs.size} numbers, not {size} as its observation space says"
            )
        return obs

    def render(self, row: int) -> np.ndarray:
        """Return the image of an episode, (height, width, 3) uint8."""
        return self.runners[row].render()

    def close(self) -> None:
        """Close all environments."""
        for runner in self.runners.values():
            runner.close()


def traceback_tail(error: BaseException) -> list[str]:
    """Return the end of an error's traceback, without the frames of this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(FOLDER):
        trace = trace.tb_next
    if isinstance(error, ImportError) or type(error).__name__ == "DependencyNotInstalled":
        return []  # the message tells which package is missing
    frames = [each for each in traceback.extract_tb(trace) if "<frozen" not in each.filename]
    return "".join(traceback.format_list(frames)).splitlines()[-TRACEBACK_LINES:]


def serve(commands: BinaryIO, answers: BinaryIO) -> None:
    """Carry out commands until stdin is closed."""
    worker = Worker()
    for line in iter(commands.readline, b""):
        command = json.loads(line)
        name, number, image = command.pop("do"), command.pop("number"), None
        try:
            answer = {"done": getattr(worker, name)(**command)}
            if name == "render":
                image = answer["done"]
                answer["done"] = image.shape
            text = json.dumps({"number": number, **answer})
        except EnvRejected as error:
            text = json.dumps({"number": number, "refused": str(error)})
        except Exception as error:
            image, told = None, {"raised": short(error), "traceback": traceback_tail(error)}
            text = json.dumps({"number": number, **told})
        answers.write(text.encode() + b"\n")
        if image is not None:
            answers.write(image.tobytes())
        answers.flush()
    worker.close()


def watch_parent() -> None:
    """Exit when the parent has ended, even in the middle of a command."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Run a worker."""
    # Ctrl-C, a scheduler's signals and the end of a terminal reach the whole process group; only
    # the parent reacts.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=watch_parent, daemon=True).start()
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # output of environments must not mix with the answers
    serve(commands, answers)
    sys.stderr.flush()
    os._exit(0)
