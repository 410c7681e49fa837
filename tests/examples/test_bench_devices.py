"""examples/bench_devices.py, and the page that it writes to."""

import types
from pathlib import Path

import pytest
import torch

from examples import bench_devices
from metarl.reporting.benchmark import Bench

PAGE = Path(__file__).parents[2] / "docs/performance.md"
SECTIONS = {"physics": 2.0, "policy inference": 0.5, "other sampling": 0.5, "policy gradient": 1.0}


def timed(device):
    """Four seconds, of which the learner takes one and the physics limit two."""
    return Bench(1e4, 1e4, 4.0, 2.0, SECTIONS, 0, 20_000, device, "Haswell")


def test_the_share_of_the_learner_by_hand():
    lines = [*bench_devices.table([("a/b", timed("cpu"))])]
    assert lines[2] == "| `a/b` | cpu | 4.00 | 2.00 | 25% |"
    assert {line.count("|") for line in lines} == {6}


@pytest.fixture
def with_gpu(monkeypatch):
    gpu = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "Card 9")
    monkeypatch.setattr(bench_devices, "torch", types.SimpleNamespace(cuda=gpu, __version__="2"))

    def times(configs, devices, _):
        return [(name, timed(device)) for name in configs for device in devices]

    monkeypatch.setattr(bench_devices, "measured", times)


def test_the_table_replaces_the_one_in_the_page(with_gpu, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    for configs in (["a/b", "c/d"], ["a/b"]):
        bench_devices.main([*configs, "--write", str(page)])
    before, after = bench_devices.text_around(PAGE.read_text())
    written = page.read_text()
    assert written.startswith(before)
    assert written.endswith(after)
    lines = written[len(before) : -len(after)].strip().splitlines()
    assert "one Card 9" in lines[0]
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        ["| `a/b`", "cpu"],
        ["| `a/b`", "cuda"],
    ]


def test_a_page_without_the_comments_is_refused_before_anything_is_measured(with_gpu, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n")
    with pytest.raises(SystemExit, match="--write: expected a page with <!-- bench_devices -->"):
        bench_devices.main(["a/b", "--write", str(page)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_page_stays_as_it_is(tmp_path, capsys):
    bench_devices.main(["--write", "docs/performance.md"])
    assert capsys.readouterr().out == "no NVIDIA GPU: docs/performance.md stays as it is\n"


def test_a_config_is_measured_on_the_cpu():
    ((name, found),) = bench_devices.measured(["point_nav/pearl"], ["cpu"], 1)
    assert (name, found.device) == ("point_nav/pearl", "cpu")
    assert set(bench_devices.SAMPLING) <= found.sections.keys()
