"""The checkpoints in the folder of a run: which one counts, and what it takes for it to count."""

from __future__ import annotations

import errno
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

from metarl.config import Config
from metarl.core.errors import UserError, shown, warn
from metarl.runs import checkpoint
from metarl.runs.atomic_io import check_writable, sync, wrap_os_errors
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.logs import RunLogs
from metarl.runs.package import WEIGHTS, read_weights
from metarl.runs.packed import DamagedFile, number_in

LATEST = "latest.pt"
INITIAL = "iteration-000000.pt"
"""The checkpoint of a warm start, before the first iteration."""
AVERAGED = 0.25  # fraction of the kept checkpoints, the most recent ones, in `average`


@dataclass(frozen=True)
class RunCheckpoints(RunLogs):
    """The checkpoints and logs in a run's folder, whose agreement decides where a run goes on.

    Attributes:
        directory: the run's folder.
        config: its resolved config.
    """

    config: Config = field(repr=False)

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def packaged(self) -> bool:
        """Whether the folder is a package: weights without logs; see `metarl.runs.package`."""
        return (self.directory / WEIGHTS).is_file() and not self.checkpoints.exists()

    def latest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint; None before the first checkpoint.

        This is `latest.pt`. If it is missing or damaged, a warning names the checkpoint that
        replaces it.

        Raises:
            UserError: if all checkpoints are damaged, or one has a newer format.
        """
        found = self._newest(sys.maxsize)
        return found[1] if found else None

    def resumable(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint whose iterations are all in the logs of metrics
        and timings; None before the first checkpoint. Nothing is written.

        After a power cut, the logs may be shorter than the iterations of a checkpoint.

        Where there is none, a warning says how many iterations of the logs are lost.

        Raises:
            UserError: if there are checkpoints, but none is usable; or if the logs imply that
                checkpoints are missing.
        """
        found = self._resumable()
        return found and found[1]

    def restore_latest(self) -> Checkpoint | None:
        """Copy the checkpoint of `resumable` to `latest.pt`, and return it.

        Raises:
            UserError: as `resumable`.
            StorageError: if `latest.pt` cannot be written.
        """
        found = self._resumable()
        if found is not None and found[0].name != LATEST:
            checkpoint.save(self.checkpoints / LATEST, found[1])
        return found and found[1]

    def _resumable(self) -> tuple[Path, Checkpoint] | None:
        played = len(self.metrics())
        found = self._newest(min(played, len(self.timings())))
        if not played or self._has_begun():
            return found
        missing = f"{self.checkpoints}: no checkpoint, but {self.metrics_file.name} has"
        # After more iterations than this, a checkpoint must have been written.
        if played > self.config.checkpoint_every:
            raise UserError(
                f"{missing} {played} iterations; bring them back, or begin anew with --out"
            )
        warn(f"{missing} iterations; training begins again (iterations lost: {played})")
        return found

    def _newest(self, recorded: int) -> tuple[Path, Checkpoint] | None:
        """Return file and content of the newest undamaged checkpoint of at most `recorded`
        iterations; None before the first checkpoint."""
        latest = self.checkpoints / LATEST
        kept = self._kept()
        if not kept and not latest.exists():
            return None
        # Before the first checkpoint of a run that was warm started, `latest` is not missing.
        problems, reached = [], 0
        for path in [latest] * self._has_begun() + kept[::-1]:
            try:
                state = checkpoint.load(path)
            except DamagedFile as error:
                problems.append(str(error))
                continue
            if state.iteration > recorded:
                problems.append(
                    f"{path}: of iteration {state.iteration}, but {self.metrics_file.name} or "
                    f"{self.timings_file.name} has only {recorded} whole lines"
                )
                reached = max(reached, state.iteration)
                continue
            if problems:
                lost = max(reached, len(self.metrics())) - state.iteration
                warn(f"{'; '.join(problems)}; {path} is used instead (iterations lost: {lost})")
            return path, state
        raise UserError(f"{'; '.join(problems)}; there is no other checkpoint to go by")

    def _has_begun(self) -> bool:
        """Return whether there is a checkpoint after an iteration, which may be damaged."""
        return (self.checkpoints / LATEST).exists() or any(map(number_in, self._kept()))

    def _kept(self) -> list[Path]:
        """Return the files of the checkpoints that training keeps, in the order of iterations."""
        return sorted(self.checkpoints.glob("iteration-*.pt"), key=number_in)

    def _averaged(self) -> list[Path]:
        """Return the files of the checkpoints of which `average` is the mean.

        Where a run of fewer iterations ended before it was extended, it left a checkpoint that the
        same run without a break has not: it does not count.
        """
        kept = [path for path in self._kept() if number_in(path)]
        every = self.config.checkpoint_every
        due = [path for path in kept if number_in(path) % every == 0 or path == kept[-1]]
        return due[-math.ceil(AVERAGED * len(due)) :]

    def load(self, name: str | int = "latest") -> Checkpoint:
        """Return a checkpoint by name.

        Args:
            name: `latest`, `best`, the number of an iteration, or `average`: the mean of the last
                quarter of the kept checkpoints. The `best` of a run that was extended may be one of
                where it ended before, which the same run without a break would not have.

        Raises:
            UserError: if the checkpoint is missing or damaged, or the agent has nothing to average.
        """
        name = str(name)
        if self.packaged:
            only = f"{self.directory}: has one set of weights; expected the checkpoint latest"
            if name != "latest":
                raise UserError(f"{only}, got {shown(name)}")
            return read_weights(self.directory / WEIGHTS, self.config)
        if name == "latest" and (state := self.latest()) is not None:
            return state
        if name == "average" and (kept := self._averaged()):
            states, agent = [checkpoint.load(path) for path in kept], self.config.agent
            if not any(map(agent.may_average, states[-1].agent)):
                raise UserError(
                    f"average: the agent's kind {agent.kind} lets no tensor be averaged "
                    "(AgentConfig.may_average); expected another checkpoint"
                )
            return checkpoint.average(states, agent.may_average)
        stem = f"iteration-{int(name):06d}" if name.isdecimal() and len(name) < 20 else name
        known = [file.stem for file in sorted(self.checkpoints.glob("*.pt"))]
        path = self.checkpoints / f"{stem}.pt"
        if stem not in known:
            reason = f"{path}: there is no such checkpoint"
            if not stem or Path(stem).name != stem:  # a file elsewhere, which may exist
                where = self.checkpoints
                reason = f"{where}: expected the name of a checkpoint, got {shown(name)}"
            # As they are given: numbers for those of iterations.
            given = [stem.removeprefix("iteration-").lstrip("0") or "0" for stem in known]
            raise UserError(f"{reason} (there are: {', '.join(given) or 'none yet'})")
        return checkpoint.load(path)

    def make_checkpoint_folder(self) -> None:
        """Create the folder of the checkpoints if it is missing.

        Raises:
            StorageError: if it cannot be created, or no file can be written in it.
        """
        with wrap_os_errors(self.checkpoints):
            self.checkpoints.mkdir(exist_ok=True)
        for path in self.checkpoints.glob("*.pt"):
            with wrap_os_errors(path):
                if not path.is_file():
                    raise FileExistsError(errno.EEXIST, "it is there and not a file")
        check_writable(self.checkpoints)

    def save(self, state: Checkpoint, *, best: bool, keep: bool) -> None:
        """Write the checkpoint `latest`.

        Args:
            state: the checkpoint.
            best: whether to write it as `best` too.
            keep: whether to write a copy, named by the iteration, that is kept.

        Raises:
            StorageError: if a file cannot be written; the previous `latest` is then undamaged.
        """
        # The log entries of all iterations must be on the disk before their checkpoint.
        for path in (self.metrics_file, self.timings_file):
            sync(path)
        # `latest` is last, since a resumed run starts from it. `best` is first: without `latest`, a
        # resumed run starts from the kept copy and would not write `best` again.
        names = ["best"] * best + [f"iteration-{state.iteration:06d}"] * keep + ["latest"]
        for name in names:
            checkpoint.save(self.checkpoints / f"{name}.pt", state)
