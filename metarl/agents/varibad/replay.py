"""The trials of the last iterations, from which the model of the tasks learns.

n is the number of trials, L the number of steps of the longest trial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.agents.recurrent.trials import Trials, join_episodes
from metarl.rollout.episodes import Episodes


@dataclass(frozen=True)
class Stored:
    """Some trials of one iteration.

    Attributes:
        iteration: number of the iteration.
        arrays: arrays (n, L, ...) of `FIELDS`, and `task` (n, task_dim).
        final: the observations after the last steps of the episodes, (number of these, obs_dim), in
            the order of trials and steps.
    """

    iteration: int
    arrays: dict[str, np.ndarray]
    final: np.ndarray


FIELDS = ("obs", "action", "reward", "mask", "ends")


class TrialBuffer:
    """The last trials that were added, at most `capacity`.

    What it holds, and what `sample` returns, depends on the last `capacity` trials only.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._stored: deque[Stored] = deque()

    def __len__(self) -> int:
        return sum(len(each.arrays["mask"]) for each in self._stored)

    def add(self, iteration: int, phases: Sequence[Episodes]) -> int:
        """Add the trials of an iteration whose episodes were all played.

        Args:
            iteration: its number.
            phases: the episodes, phase by phase.

        Returns:
            The number of the oldest iteration of which trials are held; that of this one if none.
        """
        trials = join_episodes(phases)
        if len(trials.mask):
            arrays = {name: getattr(trials, name) for name in (*FIELDS, "task")}
            self._stored.append(Stored(iteration, arrays, trials.last_obs[trials.ends]))
        excess = len(self) - self._capacity
        while excess > 0:
            first = self._stored.popleft()
            number = len(first.arrays["mask"])
            if number > excess:
                self._stored.appendleft(without(first, excess))
            excess -= number
        return self._stored[0].iteration if self._stored else iteration

    def sample(self, rng: np.random.Generator, number: int) -> Trials:
        """Return trials drawn without replacement, at most `number`, padded to the longest."""
        rows = rng.choice(len(self), min(number, len(self)), replace=False)
        starts = np.cumsum([0, *(len(each.arrays["mask"]) for each in self._stored)])
        found = []
        for row in rows:
            at = int(np.searchsorted(starts, row, side="right")) - 1
            found.append((self._stored[at], int(row - starts[at])))
        length = max(int(each.arrays["mask"][row].sum()) for each, row in found)

        def gathered(name: str) -> np.ndarray:
            first = found[0][0].arrays[name]
            out = np.zeros((len(found), length, *first.shape[2:]), first.dtype)
            for to, (each, row) in zip(out, found, strict=True):
                steps = each.arrays[name][row, :length]
                to[: len(steps)] = steps
            return out

        arrays = {name: gathered(name) for name in FIELDS}
        last_obs = np.zeros_like(arrays["obs"])
        for to, ends, (each, row) in zip(last_obs, arrays["ends"], found, strict=True):
            before = each.arrays["ends"][:row].sum()
            to[ends] = each.final[before : before + ends.sum()]
        task = np.stack([each.arrays["task"][row] for each, row in found])
        bootstrap = np.zeros_like(arrays["mask"])  # of no use to a model of the tasks
        return Trials(**arrays, last_obs=last_obs, bootstrap=bootstrap, task=task)


def without(stored: Stored, number: int) -> Stored:
    """Return stored trials without the first `number`."""
    ended = stored.arrays["ends"][:number].sum()
    arrays = {name: array[number:] for name, array in stored.arrays.items()}
    return Stored(stored.iteration, arrays, stored.final[ended:])
