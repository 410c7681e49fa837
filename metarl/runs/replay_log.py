"""The replay log of a run: the episodes that an agent learns from again in later iterations.

It has one file for each iteration, which is never changed. What an agent keeps is a function of
these files, so a checkpoint needs no copy of it, and a run that was killed goes on bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarl.rollout.episodes import Episodes
from metarl.runs.atomic_io import wrap_os_errors
from metarl.runs.packed import DamagedFile, number_in, pack, unpack

FORMAT = 1
LEFT_OUT = ("memory",)  # arrays of episodes that only `adapt` needs


@dataclass(frozen=True)
class ReplayLog:
    """The files of a replay log.

    Attributes:
        directory: their folder, which may not exist yet.
    """

    directory: Path

    def iterations(self) -> list[int]:
        """Return the numbers of the iterations with a file, in order."""
        numbers = map(number_in, self.directory.glob("iteration-*.pt"))
        return sorted(number for number in numbers if number >= 0)

    def append(self, iteration: int, oldest: int, phases: Sequence[Episodes]) -> None:
        """Write the file of an iteration.

        Args:
            iteration: its number.
            oldest: the number of the oldest iteration of which the agent then keeps something.
            phases: its episodes before, between and after the adaptations. The memory of actors is
                left out.

        Raises:
            StorageError: if it cannot be written.
        """
        with wrap_os_errors(self.directory):
            self.directory.mkdir(exist_ok=True)
        arrays = {
            str(number): {
                name: torch.from_numpy(array)
                for name, array in episodes.arrays.items()
                if name not in LEFT_OUT
            }
            for number, episodes in enumerate(phases)
        }
        content = {"iteration": iteration, "oldest": oldest, "phases": arrays}
        pack(self._file(iteration), {"format": FORMAT, **content})

    def load(self, iteration: int) -> list[Episodes]:
        """Return the episodes of an iteration.

        Raises:
            DamagedFile: if its file is missing or damaged.
            UserError: if it has a newer format.
        """
        path, content = self._file(iteration), self._content(iteration)
        try:
            if content["iteration"] != iteration:
                raise ValueError(f"it is of iteration {content['iteration']}")
            phases = [content["phases"][str(number)] for number in range(len(content["phases"]))]
            return [
                Episodes(**{name: tensor.numpy() for name, tensor in arrays.items()})
                for arrays in phases
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFile(f"{path}: not episodes of metarl ({error})") from error

    def oldest_kept(self, last: int | None = None) -> int | None:
        """Return the oldest iteration of which the agent kept something after the last one with an
        undamaged file; None if there is no file.

        Files of earlier versions do not say it: it is then the oldest one with a file.

        Args:
            last: the last iteration that counts; by default all do.

        Raises:
            UserError: if a file has a newer format.
        """
        numbers = [each for each in self.iterations() if last is None or each <= last]
        for number in reversed(numbers):
            with contextlib.suppress(DamagedFile):
                oldest = self._content(number).get("oldest")
                known = isinstance(oldest, int) and 1 <= oldest <= number
                return oldest if known else numbers[0]
        return numbers[0] if numbers else None

    def rewind(self, iteration: int) -> None:
        """Delete the files of iterations after `iteration`."""
        self._delete([number for number in self.iterations() if number > iteration])

    def trim(self, oldest: int) -> None:
        """Delete the files of iterations before `oldest`."""
        self._delete([number for number in self.iterations() if number < oldest])

    def _delete(self, iterations: Sequence[int]) -> None:
        for path in map(self._file, iterations):
            with wrap_os_errors(path):
                path.unlink(missing_ok=True)

    def _content(self, iteration: int) -> dict[str, Any]:
        return unpack(self._file(iteration), "file of episodes", (FORMAT, FORMAT))

    def _file(self, iteration: int) -> Path:
        return self.directory / f"iteration-{iteration:06d}.pt"
