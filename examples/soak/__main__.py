"""Train small configs again and again with injected faults, and compare with runs without faults.

    python -m examples.soak --minutes 60 --json soak.json

Training processes are killed at random moments and before chosen operations on files, asked to
stop, or denied the disk; worker processes are killed; between two processes of a run the last
checkpoint or the last line of the metrics is cut short. Each finished run must equal the run
without faults bit for bit. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from examples.soak.trainer import fingerprint, start
from metarl.core.errors import UserError
from metarl.runs.atomic_io import write_atomically
from metarl.runs.run import encode
from metarl.training.signals import NOTICE

SMALL = {
    "iterations": 20,
    "num_tasks": 2,
    "num_episodes": 3,
    "checkpoint_every": 3,
    "threads": 1,
    "tracking.mode": "disabled",
    "agent.policy.hidden": [4],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "point_nav/maml_trpo": {"env.horizon": 8},
    "point_nav/promp": {"env.horizon": 8},
    "cartpole/maml_trpo": {"env.horizon": 10, "env.workers": 2},
}
FAULTS = ("kill", "kill at a file", "terminate", "full disk", "kill a worker")
HARMS = ("cut the checkpoint short", "tear the metrics")
MIN_FILE_SIZE = 2048  # bytes: enough for the errors on stderr
MAX_LIVES = 40  # after so many a run is left alone, so that it comes to its end
HANGING = 120.0  # seconds


@dataclass
class Tally:
    """What happened.

    Attributes:
        runs: that were harmed and came to their end.
        lives: processes that trained them.
        faults: by kind, those that struck.
        endings: of the processes, by exit code (negative: the signal that killed it).
        failures: what should not have happened.
    """

    seed: int
    minutes: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Soak, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="default 60; one round at least"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--only", choices=list(CONFIGS), help="one config instead of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    args = parser.parse_args()
    names = [args.only] if args.only else list(CONFIGS)
    rng, tally, began = random.Random(args.seed), Tally(args.seed), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="metarl-soak-"))
    for seed in range(sys.maxsize):
        for name in names:
            soak(name, seed, folder, rng, tally)
            tally.minutes = (time.monotonic() - began) / 60
            if args.json:
                write_atomically(args.json, encode(vars(tally)))
        if tally.minutes >= args.minutes:
            break
    print(f"{sum(tally.runs.values())} runs of {tally.lives} lives in {tally.minutes:.1f} min")
    for title, counts in (("faults", tally.faults), ("exit codes", tally.endings)):
        print(f"{title}: {', '.join(f'{key} {count}' for key, count in sorted(counts.items()))}")
    print(*tally.failures, sep="\n", end="\n" * bool(tally.failures))
    print(f"{len(tally.failures)} failures" + f"; see {folder}" * bool(tally.failures))
    if not tally.failures:
        shutil.rmtree(folder)
    return 1 if tally.failures else 0


def soak(name: str, seed: int, folder: Path, rng: random.Random, tally: Tally) -> None:
    """Train a config twice, once unharmed, and compare."""
    label = f"{name.replace('/', '-')}-{seed}"
    directory, twin, errors = (folder / f"{label}{end}" for end in ("", "-twin", ".err"))
    settings = {**SMALL, **CONFIGS[name], "seed": seed}
    flags = [f"--{key}={value}" for key, value in settings.items()]
    failures = len(tally.failures)

    def start_trainer(out: Path, die_at: int = 0) -> ForkServerProcess:
        return start(["train", name, *flags, "--continue", f"--out={out}"], out, errors, die_at)

    began = time.monotonic()
    finish(start_trainer(twin), errors, {0}, f"{label}: the twin", tally)
    max_wait = (time.monotonic() - began) / 3
    for _ in range(MAX_LIVES):
        tally.lives += 1
        if harmed(start_trainer, directory, errors, max_wait, rng, tally) == 0:
            break
        if rng.random() < 0.3:
            harm(directory, rng, tally)
    else:
        finish(start_trainer(directory), errors, {0}, f"{label}: left alone", tally)
    try:
        if fingerprint(directory) != fingerprint(twin):
            tally.failures.append(f"{label}: differs from its twin")
    except UserError as error:
        tally.failures.append(f"{label}: {error}")
    tally.runs[name] += 1
    if len(tally.failures) == failures:
        for path in (directory, twin):
            shutil.rmtree(path)


def harmed(
    start_trainer: Callable[..., ForkServerProcess],
    directory: Path,
    errors: Path,
    max_wait: float,
    rng: random.Random,
    tally: Tally,
) -> int | None:
    """Live once, with a fault at a random moment, and return the exit code."""
    fault = rng.choice(FAULTS)
    die_at = rng.randint(1, 80) if fault == "kill at a file" else 0
    process = start_trainer(directory, die_at)
    process.join(rng.uniform(0, max_wait))
    if fault == "kill a worker":
        if kill_worker(process.pid, rng):
            tally.faults[fault] += 1
        process.join(rng.uniform(0, max_wait))
        fault = "kill"
    if process.is_alive() and not die_at:
        tally.faults[fault] += 1
        strike(fault, process.pid, rng)
    expected = {
        "kill": {-signal.SIGKILL},
        "kill at a file": {-signal.SIGKILL},
        # Before training has begun it ends at once, as any process does.
        "terminate": {128 + signal.SIGTERM, -signal.SIGTERM},
        "full disk": {1, 2},  # 2 where not even the folder can be made
    }[fault]
    code = finish(process, errors, {0, *expected}, f"{directory.name}: {fault}", tally)
    tally.faults[fault] += bool(die_at and code)
    return code


def strike(fault: str, pid: int | None, rng: random.Random) -> None:
    """Harm a process that lives, or has just ended."""
    assert pid is not None
    try:
        if fault == "full disk":
            max_size = rng.randint(MIN_FILE_SIZE, 4 * MIN_FILE_SIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_size, max_size))
        else:
            os.kill(pid, signal.SIGTERM if fault == "terminate" else signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_worker(pid: int | None, rng: random.Random) -> bool:
    """Kill one of the processes that a trainer has started, if there is one."""
    try:
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if workers:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(workers)


def harm(directory: Path, rng: random.Random, tally: Tally) -> None:
    """Damage what a process has left behind, once there is a checkpoint to go back to."""
    if not list((directory / "checkpoints").glob("iteration-*.pt")):
        return
    harm = rng.choice(HARMS)
    path = directory / ("metrics.jsonl" if harm == "tear the metrics" else "checkpoints/latest.pt")
    content = path.read_bytes() if path.exists() else b""
    lines = content.splitlines(keepends=True)[: SMALL["checkpoint_every"]]
    needed = len(b"".join(lines)) if path.suffix == ".jsonl" else 0
    if needed < len(content):
        os.truncate(path, rng.randrange(needed, len(content)))
        tally.faults[harm] += 1


def finish(
    process: ForkServerProcess, errors: Path, expected: set[int], what: str, tally: Tally
) -> int | None:
    """Wait for the end of a process, and note it if it is not one of those expected."""
    process.join(HANGING)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    tally.endings[str(code)] += 1
    said = errors.read_text() if errors.exists() else ""
    usual = ("metarl: warning: ", NOTICE)
    told = [line for line in said.splitlines() if line and not line.startswith(usual)]
    clean = all(line.startswith("metarl: error: ") for line in told) and len(told) == (
        code in (1, 2)
    )
    if code not in expected or not clean:
        tally.failures.append(f"{what}: exit code {code}, stderr {said!r}")
    return code


if __name__ == "__main__":
    sys.exit(main())
