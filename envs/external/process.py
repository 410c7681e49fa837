"""One worker process, and what is known of how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("worker.py")
START = 60.0  # seconds, at least, to start Python and import what the environment needs
FAREWELL = 2.0  # seconds that a worker has to end by itself
LAST_WORDS = 20  # lines of stderr shown
LONGEST = 1 << 23  # bytes that an answer may have
FAILURES = ({"refused": str}, {"raised": str, "traceback": list})  # besides {"done": ...}
TALE = 0.2  # seconds for a hanging worker to write where it is


class WorkerError(RuntimeError):
    """An environment in a worker process cannot be used, failed, or was lost."""


class Lost(Exception):
    """A worker ended, hangs, or no longer makes sense; the message says how."""


class WorkerProcess:
    """Speaks with one worker.

    Attributes:
        python: the interpreter that runs it.
        timeout: seconds that one call of an environment may take.
        last_words: the end of what the lost worker wrote to stderr.
    """

    def __init__(self, python: str, timeout: float) -> None:
        self.python, self.timeout = python, timeout
        self.last_words = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._sent_commands = 0
        self._waiting = 0  # answers to come
        self._patience = timeout

    @property
    def started(self) -> bool:
        """Whether there is a process, alive or not."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def start(self, fd: int | None = None) -> None:
        """Start the process; `fd` is a file that it may use, shared memory.

        Raises:
            WorkerError: if there is no such interpreter.
        """
        self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(
                [self.python, str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=[] if fd is None else [fd],
                env=variables(self.python),
            )
        except OSError as error:
            self._stderr.close()
            raise WorkerError(
                f"python: cannot run the interpreter {self.python!r} ({error.strerror}): expected "
                "the path of a Python, or nothing for the one that runs metarl"
            ) from error
        assert self._process.stdout is not None
        self._answers = self._process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self._buffer, self._waiting = b"", 0
        self._patience = max(self.timeout, START)

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command. That the worker is gone is noticed when its answer is waited for."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._waiting += 1
        self._sent_commands += 1
        self._sent = time.monotonic()
        numbered = {**command, "number": self._sent_commands}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(numbered).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, progress: Callable[[], int] = lambda: 0) -> dict[str, Any]:
        """Wait for all answers that are due, and return the last, or the first that is bad.

        Args:
            progress: counts what the worker has done; a worker that counts on is given more time.

        Raises:
            Lost: if the worker has ended, hangs, or sent what is no answer.
        """
        answer: dict[str, Any] = {}
        while self._waiting:
            while b"\n" not in self._buffer:
                if len(self._buffer) > LONGEST:
                    raise Lost(f"sent {len(self._buffer):,} bytes without an end")
                self._read(progress)
            line, _, self._buffer = self._buffer.partition(b"\n")
            answer = parse(line, self._sent_commands - self._waiting + 1)
            self._waiting -= 1
            self._patience = self.timeout
            if "done" not in answer:
                break
        return answer

    def receive_bytes(self, count: int) -> bytes:
        """Return the bytes that follow an answer."""
        while len(self._buffer) < count:
            self._read(lambda: 0)
        content, self._buffer = self._buffer[:count], self._buffer[count:]
        return content

    def _read(self, progress: Callable[[], int]) -> None:
        since, done = self._sent, progress()
        while not self._poll.poll(1000 * min(1.0, self._patience / 4)):
            now = time.monotonic()
            if progress() != done:
                since, done = now, progress()
            elif now - since > self._patience:
                raise Lost(f"gave no answer for {self._patience:g} s")
        content = os.read(self._answers, 1 << 20)
        if not content:
            raise Lost(self._ending())
        self._buffer += content

    def _ending(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with exit status {code}"
        try:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"was killed by signal {-code}"

    def kill(self) -> None:
        """End the process at once, and keep its last words."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TALE)
            self._process.kill()
        self._clear()

    def ask_to_end(self) -> None:
        """Let the process end by itself: `bury` waits for it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def bury(self) -> None:
        """Wait until the process has ended; kill it if that takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._clear()

    def _clear(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        with self._stderr as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 10_000))
            lines = file.read().decode(errors="replace").splitlines()
        self.last_words = "\n".join(f"  {line}" for line in lines[-LAST_WORDS:])


def parse(line: bytes, number: int) -> dict[str, Any]:
    """Return the answer to the command of that number.

    Raises:
        Lost: if it is none. What an environment writes to the pipe of the answers is not taken for
            one, nor is the answer to another command.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and answer.pop("number", None) == number:
        kinds = {name: type(value) for name, value in answer.items()}
        if kinds.keys() == {"done"} or kinds in FAILURES:
            return answer
    raise Lost(f"sent what is no answer: {line[:60]!r}{'...' if len(line) > 60 else ''}")


def variables(python: str) -> dict[str, str]:
    """Return a worker's environment variables: ours, but those of our Python for ours alone."""
    kept = {"OMP_NUM_THREADS": "1", **os.environ}
    if python != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
            kept.pop(name, None)
    return kept


def import_path(python: str) -> list[str]:
    """Return where a worker looks for modules besides its own places."""
    return [os.getcwd(), *(sys.path if python == sys.executable else [])]
