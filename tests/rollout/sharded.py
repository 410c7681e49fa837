"""A sampler that plays its shards in this process, as other machines do."""

from __future__ import annotations

import copy

from metarl.rollout.sampler import Sampler
from metarl.rollout.shards import Shard, bounds, merge, part_of, play_shard


class Sharded(Sampler):
    def __init__(self, family, num_episodes, num_shards):
        self.family, self.num_episodes, self.num_shards = family, num_episodes, num_shards

    def close(self):
        pass

    def collect(self, actor, tasks, rngs, timer, *, failures, task_mask, task_ids):
        results = []
        for start, stop in bounds(len(tasks), self.num_shards):
            part = part_of(actor, start, stop)
            shard = Shard(start, stop, tasks, task_mask, rngs, failures is not None)
            env = self.family.make_batch(shard.num_episodes)
            results.append(play_shard(env, copy.deepcopy(part), shard))
        return merge(results, tasks, task_ids, failures)
