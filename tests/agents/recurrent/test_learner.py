"""metarl.agents.recurrent.learner: how the sequences of a minibatch are shared out."""

from __future__ import annotations

import pytest
import torch

from metarl.agents.recurrent.learner import microbatches


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [
        (10, 400, [10]),
        (16, 400, [8, 8]),
        (32, 50, [16, 16]),
        (80, 50, [40, 40]),
        (81, 50, [27, 27, 27]),
        (40, 800, [20, 20]),
        (17, 5000, [6, 6, 5]),
    ],
)
def test_parts_are_of_similar_size_and_smaller_if_sequences_are_long(count, steps, expected):
    rows = torch.arange(count) + 3
    parts = microbatches(rows, steps)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), rows)
