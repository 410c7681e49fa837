"""The actor of Ray that plays episodes."""

from __future__ import annotations

import copy
import os
import socket
from dataclasses import dataclass

from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.envs import BatchEnv, TaskFamily
from metarl.rollout.collect import Actor
from metarl.rollout.shards import Shard, ShardResult, play_shard


@dataclass(frozen=True)
class Surroundings:
    """What environments of the user's find in a process: its folder, and its threads.

    Attributes:
        directory: the current folder.
        threads: the value of OMP_NUM_THREADS; None if it is not set.
    """

    directory: str
    threads: str | None

    @classmethod
    def here(cls) -> Surroundings:
        return cls(os.getcwd(), os.environ.get("OMP_NUM_THREADS"))

    def adopt(self) -> None:
        """Make them those of this process."""
        if os.path.isdir(self.directory):
            os.chdir(self.directory)
        # Ray sets it to the CPUs of an actor; worker processes of environments would inherit that,
        # and round otherwise.
        os.environ.pop("OMP_NUM_THREADS", None)
        if self.threads is not None:
            os.environ["OMP_NUM_THREADS"] = self.threads


class RolloutWorker:
    """Plays shards of batches of episodes. It keeps nothing that a result depends on, so that a
    lost worker's successor plays the same episodes."""

    def __init__(self, family: TaskFamily, num_threads: int, surroundings: Surroundings) -> None:
        surroundings.adopt()
        keep_freed_memory()
        self._family, self._num_threads = family, num_threads
        self._envs: dict[int, BatchEnv] = {}

    def place(self) -> str:
        """Return the process and the machine of the worker."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def play(self, actor: Actor, shard: Shard) -> ShardResult:
        """Play a shard; see `play_shard`."""
        count = shard.num_episodes
        if count not in self._envs:
            self._envs[count] = self._family.make_batch(count, self._num_threads)
        with single_threaded_math():
            # A copy, since arrays that Ray shares between processes are read-only.
            return play_shard(self._envs[count], copy.deepcopy(actor), shard)
