"""Episodes of earlier iterations, for agents that learn from them again."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.agents import MetaAgent
from metarl.agents.optional import keeps_episodes, record
from metarl.core.errors import warn
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.runs.packed import DamagedFile
from metarl.runs.run import Run


class Recorder:
    """Gives the episodes of each iteration to the agent, and to the run's replay log if the agent
    keeps any."""

    def __init__(self, run: Run, agent: MetaAgent) -> None:
        self._log, self._agent, self._run = run.replay, agent, run
        self._oldest: int | None = None  # of which the agent keeps something
        self._trimmed: int | None = None  # the same, at the checkpoint before

    def __call__(self, iteration: int, phases: Sequence[Episodes]) -> None:
        """Record the episodes of an iteration, before, between and after the adaptations.

        Raises:
            StorageError: if the log cannot be written.
        """
        self._oldest = record(self._agent, iteration, phases)
        if self._oldest is not None:
            self._log.append(iteration, self._oldest, phases)

    def restore(self, iteration: int) -> None:
        """Give the agent of a checkpoint the episodes that it kept. A file that is missing or
        damaged is left out with a warning, also in `failures.jsonl`; one warning says that there
        is no file at all.

        Args:
            iteration: the number of iterations of the checkpoint.
        """
        self._log.rewind(iteration)
        if not (iteration and keeps_episodes(self._agent)):
            return
        oldest = self._log.oldest_kept()
        if oldest is None:
            self._lose(iteration, f"{self._log.directory}: there is no file of episodes")
            return
        for number in range(oldest, iteration + 1):
            try:
                self._oldest = record(self._agent, number, self._log.load(number))
            except DamagedFile as error:
                self._lose(iteration, str(error))
        every = self._run.config.checkpoint_every
        if kept := iteration // every * every:
            self._trimmed = self._log.oldest_kept(kept)

    def _lose(self, iteration: int, problem: str) -> None:
        """Warn that the agent of a checkpoint does not get all episodes that it kept."""
        lost = Failure(
            "warning",
            f"{problem}; training goes on without these episodes, so its results are no longer bit "
            "for bit those of an uninterrupted run",
        )
        warn(str(lost))
        if all(each["reason"] != lost.reason for each in self._run.failures()):  # of a resumption
            self._run.record(iteration, [lost])

    def trim(self) -> None:
        """Delete what no later resumption needs; called after each checkpoint that is kept. What
        the checkpoint before needs is kept too, in case that the last one is damaged."""
        if self._trimmed is not None:
            self._log.trim(self._trimmed)
        self._trimmed = self._oldest
