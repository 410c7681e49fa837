"""examples/sinusoid.py: its pieces are right, and it shows what the papers show."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from metarl.adaptation import SGD, InnerLoop, leaves, parameters

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def sinusoid(monkeypatch):
    """The example, with few held-out tasks and step sizes."""
    monkeypatch.syspath_prepend(ROOT)
    from examples import sinusoid

    monkeypatch.setattr(sinusoid, "NUM_TASKS", 100)
    monkeypatch.setattr(sinusoid, "STEP_SIZES", (0.005, 0.01))
    return sinusoid


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(sinusoid):
    """Meta-parameters, and a network that has them."""
    torch.manual_seed(0)
    network = sinusoid.network()
    return network, leaves(parameters(network))


def test_tasks_are_those_of_the_paper(sinusoid):
    """Amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]; and they fill these ranges.

    y = a sin x + b cos x with a = amplitude cos(phase) and b = -amplitude sin(phase).
    """
    x, y = (value.double() for value in sinusoid.sinusoids(2000, 20, generator()))
    assert x.shape == y.shape == (2000, 20, 1)
    solution = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], 2), y).solution[:, :, 0]
    a, b = solution.T
    amplitude, phase = torch.hypot(a, b), torch.atan2(-b, a)
    for value, low, high in ((x, -5, 5), (amplitude, 0.1, 5), (phase, 0, math.pi)):
        slack = 0.01 * (high - low)
        assert low - slack <= value.min() <= low + slack
        assert high - slack <= value.max() <= high + slack
        assert value.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    again = sinusoid.sinusoids(2000, 20, generator())
    other = sinusoid.sinusoids(2000, 20, generator(1))
    assert torch.equal(again[0].double(), x)
    assert not torch.equal(other[0].double(), x)


def test_maml_is_the_error_after_a_step_on_other_points(sinusoid):
    network, meta = start(sinusoid)
    loss = sinusoid.maml(InnerLoop(SGD(0.01)), meta, generator())
    x, y = sinusoid.sinusoids(25, 20, generator())
    expected = []
    for b in range(25):
        task = copy.deepcopy(network)
        (task(x[b, :10]) - y[b, :10]).square().mean().backward()
        torch.optim.SGD(task.parameters(), 0.01).step()
        expected.append((task(x[b, 10:]) - y[b, 10:]).square().mean().item())
    assert loss.item() == pytest.approx(sum(expected) / 25, rel=1e-5)


def test_reptiles_gradient_is_minus_the_mean_way(sinusoid):
    """Against torch's own SGD, task by task (Nichol et al. 2018, algorithm 2)."""
    network, meta = start(sinusoid)
    sinusoid.reptile(InnerLoop(SGD(0.02)), meta, generator()).backward()
    x, y = sinusoid.sinusoids(25, 50, generator())
    ways = {name: torch.zeros_like(value) for name, value in meta.items()}
    for b in range(25):
        task = copy.deepcopy(network)
        optimizer = torch.optim.SGD(task.parameters(), 0.02)
        for points in torch.arange(50).split(10):
            optimizer.zero_grad()
            (task(x[b, points]) - y[b, points]).square().mean().backward()
            optimizer.step()
        for name, value in task.named_parameters():
            ways[name] += (value.detach() - meta[name].detach()) / 25
    for name, way in ways.items():
        torch.testing.assert_close(meta[name].grad, -way, rtol=1e-4, atol=1e-6)


def test_pretraining_is_the_error_on_all_tasks(sinusoid):
    network, meta = start(sinusoid)
    loss = sinusoid.pretraining(InnerLoop(SGD(0.01)), meta, generator())
    x, y = sinusoid.sinusoids(25, 20, generator())
    expected = (network(x) - y).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_held_out_tasks_are_not_the_training_ones(sinusoid):
    """Nor are validation tasks test tasks, whatever the seed of the training is."""
    first = [
        sinusoid.sinusoids(3, 2, generator(seed))[0]
        for seed in (0, 1, 2, sinusoid.VALIDATION_SEED, sinusoid.TEST_SEED)
    ]
    assert len({float(x[0, 0, 0]) for x in first}) == 5


def test_maml_learns_to_adapt_and_pretraining_does_not(sinusoid, monkeypatch):
    """Soon, with a larger step size of Adam than the example's."""
    monkeypatch.setattr(sinusoid, "META_LR", 1e-2)
    maml, pretrained = (
        sinusoid.evaluate(sinusoid.train(name, 200, seed=0), 0.01, 10, sinusoid.TEST_SEED).mean(0)
        for name in ("MAML", "pretrained")
    )
    assert maml[1] < 0.7 * pretrained[1]
    assert maml[1] < 0.6 * maml[0]
    assert maml[10] < maml[1]


@pytest.mark.parametrize("name", ["MAML", "Reptile"])
def test_training_is_deterministic(sinusoid, name):
    one, two, other = (sinusoid.train(name, 3, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[key], value) for key, value in two.items())
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_the_example_runs(sinusoid, tmp_path, monkeypatch, capsys):
    words = ["sinusoid", "--iterations", "2", "--seed", "3", "--out", str(tmp_path / "new")]
    monkeypatch.setattr("sys.argv", words)
    sinusoid.main()
    record = json.loads((tmp_path / "new/sinusoid.json").read_text())
    assert (record["iterations"], record["seed"]) == (2, 3)
    assert set(record["mse"]) == {"5", "10"}
    assert set(record["mse"]["5"]) == set(sinusoid.METHODS)
    assert len(record["mse"]["5"]["Reptile"]["mean"]) == 11
    assert sinusoid.table(record["mse"]) in capsys.readouterr().out
    assert (tmp_path / "new/sinusoid.png").read_bytes().startswith(b"\x89PNG")


def test_library_md_shows_the_results_of_its_figure(sinusoid):
    """The table of the page is that of docs/results/sinusoid.json."""
    record = json.loads((ROOT / "docs/results/sinusoid.json").read_text())
    assert sinusoid.table(record["mse"]) in (ROOT / "docs/library.md").read_text()
    assert_published_shape(record["mse"])


def assert_published_shape(results):
    """Finn et al. 2017, figure 3; Nichol et al. 2018 for Reptile. On K = 10 and K = 5 points."""
    for by_method in results.values():
        mean = {name: result["mean"] for name, result in by_method.items()}
        assert mean["MAML"][1] < mean["MAML"][0] / 3, "a sharp drop at the first step"
        assert mean["MAML"][10] < 0.6 * mean["MAML"][1], "and on, beyond the one step trained for"
        assert mean["pretrained"][1] > 0.75 * mean["pretrained"][0], "pretraining hardly improves"
        assert mean["pretrained"][10] > 4 * mean["MAML"][10]
        assert mean["first-order MAML"][10] < 2 * mean["MAML"][10], "nearly as good"
        assert mean["Reptile"][10] < 1.6 * mean["MAML"][10], "comparable after enough steps"


@pytest.mark.slow
def test_the_published_shape_at_default_settings(sinusoid, monkeypatch):
    monkeypatch.undo()  # all held-out tasks
    results = sinusoid.results_of(
        {name: sinusoid.train(name, 10_000, seed=1) for name in sinusoid.METHODS}
    )
    assert_published_shape(results)
