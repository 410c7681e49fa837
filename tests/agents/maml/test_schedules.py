"""metarl.agents.maml.schedules: step sizes outside training."""

import pytest

from metarl.agents.maml.schedules import step_scale


@pytest.mark.parametrize(
    ("schedule", "scales"),
    [
        ("halving", [1.0, 0.5, 0.5, 0.5]),
        ("geometric", [1.0, 0.5, 0.25, 0.125]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_scale_of_each_step(schedule, scales):
    assert [step_scale(schedule, step) for step in range(4)] == scales
    assert [step_scale(schedule, step, 3) for step in range(6)] == [1.0, 1.0, *scales]
    assert [step_scale(schedule, step, 0) for step in range(4)] == scales
