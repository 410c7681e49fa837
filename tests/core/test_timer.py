"""metarl.core.timer: seconds by section."""

import pytest
import torch

from metarl.core import timer as module
from metarl.core.timer import Timer


def test_the_seconds_of_a_section_add_up_until_the_restart(monkeypatch):
    times = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0, 30.0, 34.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    timer = Timer()
    for section in ("policy", "reset", "policy"):
        with timer(section):
            pass
    assert timer.restart() == {"policy": 3.0, "reset": 0.5}
    with timer("reset"):
        pass
    assert timer.restart() == {"reset": 4.0}


@pytest.mark.parametrize("name", ["cuda:1", "cpu", None])
def test_a_section_ends_when_its_own_gpu_is_done(name, monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = name and torch.device(name)
    with Timer(device)("policy gradient"):
        pass
    assert waited == ([device] if name == "cuda:1" else [])
