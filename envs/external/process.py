"""One worker process: commands, answers, and the reason why it ended."""

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

PROGRAM = Path(__file__).parent / "worker" / "__main__.py"
START_TIMEOUT = 60.0  # minimum, s, for starting Python and importing the environment's packages
EXIT_TIMEOUT = 2.0  # s, for a worker to exit by itself
STDERR_TAIL_LINES = 20  # lines of stderr shown
MAX_ANSWER_BYTES = 1 << 23
FAILURE_TYPES = ({"refused": str}, {"raised": str, "traceback": list})  # besides {"done": ...}
TRACEBACK_WAIT = 0.2  # s, for a hanging worker to write its traceback


class WorkerError(RuntimeError):
    """An environment in a worker process cannot be used, failed, or was lost."""


class EnvironmentRefused(WorkerError):
    """The environment that a config names does not exist, or is none that a task can be set in."""


class WorkerLost(Exception):
    """A worker has ended, hangs, or sent an invalid answer; the message says which."""


class WorkerProcess:
    """Sends commands to one worker process and receives its answers.

    Attributes:
        python: the interpreter that runs it.
        timeout: seconds that one call of an environment may take.
        stderr_tail: the last lines that the last process wrote to stderr, once it has ended.
    """

    def __init__(self, python: str, timeout: float) -> None:
        self.python, self.timeout = python, timeout
        self.stderr_tail = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._sent_commands = 0
        self._num_pending = 0  # answers not received yet
        self._answer_timeout = timeout

    @property
    def started(self) -> bool:
        """Whether there is a process, alive or not."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, fd: int | None = None) -> None:
        """Start the process, which inherits the file descriptor `fd` of the shared memory.

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
                env=worker_environ(self.python),
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
        self._buffer, self._num_pending = b"", 0
        self._answer_timeout = max(self.timeout, START_TIMEOUT)

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command. If the worker has ended, `receive` raises the error."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._num_pending += 1
        self._sent_commands += 1
        numbered = {**command, "number": self._sent_commands}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(numbered).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, progress: Callable[[], int] = lambda: 0) -> dict[str, Any]:
        """Wait for all pending answers; return the last, or the first that reports a failure.

        Args:
            progress: returns a count of the worker's calls; while it grows, the time-out restarts.

        Raises:
            WorkerLost: if the worker has ended, hangs, or sent an invalid answer.
        """
        answer: dict[str, Any] = {}
        while self._num_pending:
            while b"\n" not in self._buffer:
                if len(self._buffer) > MAX_ANSWER_BYTES:
                    raise WorkerLost(f"sent {len(self._buffer):,} bytes without an end")
                self._read(progress)
            line, _, self._buffer = self._buffer.partition(b"\n")
            answer = parse(line, self._sent_commands - self._num_pending + 1)
            self._num_pending -= 1
            self._answer_timeout = self.timeout
            if "done" not in answer:
                break
        return answer

    def receive_bytes(self, count: int) -> bytes:
        """Return the `count` bytes that follow an answer.

        Raises:
            WorkerLost: if the worker has ended or hangs.
        """
        while len(self._buffer) < count:
            self._read(lambda: 0)
        content, self._buffer = self._buffer[:count], self._buffer[count:]
        return content

    def _read(self, progress: Callable[[], int]) -> None:
        since, done = time.monotonic(), progress()
        while not self._poll.poll(1000 * min(1.0, self._answer_timeout / 4)):
            now = time.monotonic()
            if progress() != done:
                since, done = now, progress()
            elif now - since > self._answer_timeout:
                raise WorkerLost(f"gave no answer for {self._answer_timeout:g} s")
        content = os.read(self._answers, 1 << 20)
        if not content:
            raise WorkerLost(self._exit_reason())
        self._buffer += content

    def _exit_reason(self) -> str:
        """Return how a process ended whose output is closed."""
        assert self._process is not None
        try:
            code = self._process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with exit status {code}"
        try:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"was killed by signal {-code}"

    def kill(self) -> None:
        """Kill the process; a hanging one first writes its traceback to stderr."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TRACEBACK_WAIT)
            self._process.kill()
        self._clear()

    def request_exit(self) -> None:
        """Close the process's stdin, upon which it exits; `wait_closed` waits for it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def wait_closed(self) -> None:
        """Wait until the process has exited; kill it after EXIT_TIMEOUT."""
        if self._process is None:
            return
        try:
            self._process.wait(EXIT_TIMEOUT)
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
        self.stderr_tail = "\n".join(f"  {line}" for line in lines[-STDERR_TAIL_LINES:])


def parse(line: bytes, number: int) -> dict[str, Any]:
    """Return the answer to command `number` that a line holds.

    Raises:
        WorkerLost: if the line is no answer (an environment may write into the pipe), or the answer
            to another command.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and answer.pop("number", None) == number:
        kinds = {name: type(value) for name, value in answer.items()}
        if kinds.keys() == {"done"} or kinds in FAILURE_TYPES:
            return answer
    raise WorkerLost(f"sent what is no answer: {line[:60]!r}{'...' if len(line) > 60 else ''}")


def worker_environ(python: str) -> dict[str, str]:
    """Return a worker's environment variables.

    They are those of this process, for another interpreter without the variables that configure
    this one.
    """
    environ = {"OMP_NUM_THREADS": "1", **os.environ}
    if python != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
            environ.pop(name, None)
    return environ


def import_path(python: str) -> list[str]:
    """Return folders that a worker adds to its import path."""
    return [os.getcwd(), *(sys.path if python == sys.executable else [])]
