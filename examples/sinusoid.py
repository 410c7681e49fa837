"""Few-shot regression: MAML, first-order MAML, Reptile and pretraining learn to fit sinusoids.

    python examples/sinusoid.py

The experiment of Finn et al. 2017, section 5.1, with `metarl.adaptation`. A task is a sinusoid of
which K points are given. All B tasks of a meta-batch adapt at once: data are (B, points, 1), and
the parameters of task b are row b of the stacked parameters, (B, ...).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from metarl.adaptation import SGD, InnerLoop, Loss, Params, batched, leaves, parameters
from metarl.reporting.style import (
    COLOURS,
    GRID,
    TEXT,
    Drawing,
    drawing_style,
    legend_below,
    save_drawing,
    style_axes,
)

META_BATCH, META_LR = 25, 1e-3
SHOTS = 10  # K in training
STEPS = 10  # gradient steps in the evaluation
STEP_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02)  # tried on validation tasks
NUM_TASKS, VALIDATION_SEED, TEST_SEED = 1000, 1_000_001, 1_000_002  # held out


def sinusoids(num_tasks: int, num_points: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Draw tasks, and return inputs and outputs of points of them, (B, points, 1) each."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=rng)

    amplitude, phase = uniform(0.1, 5, num_tasks, 1, 1), uniform(0, math.pi, num_tasks, 1, 1)
    x = uniform(-5, 5, num_tasks, num_points, 1)
    return x, amplitude * torch.sin(x - phase)


def network() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(1, 40), relu, nn.Linear(40, 40), relu, nn.Linear(40, 1))


forward = batched(network())  # (stacked parameters, x) -> y


def error(x: Tensor, y: Tensor) -> Loss:
    """Return the mean squared errors of the tasks, (B,), as a function of stacked parameters."""
    return lambda params: (forward(params, x) - y).square().mean((1, 2))


# The meta-objectives: scalars whose gradient is the direction of the meta-update.


def maml(inner: InnerLoop, meta: Params, rng: Generator) -> Tensor:
    """Return the error on new points after a step on K points (Finn et al. 2017, equation 1)."""
    x, y = sinusoids(META_BATCH, 2 * SHOTS, rng)
    seen, new = error(x[:, :SHOTS], y[:, :SHOTS]), error(x[:, SHOTS:], y[:, SHOTS:])
    state = inner.adapt(meta, [seen], META_BATCH, differentiable=True)
    return new(inner.to_model_params(meta, state)).mean()


def reptile(inner: InnerLoop, meta: Params, rng: Generator) -> Tensor:
    """Return half the squared distance to the adapted parameters, which are constants here.

    Its gradient is Reptile's, batched (Nichol et al. 2018): minus the mean difference to them. They
    result from five steps, each on ten of a task's 50 points, as in the authors' own sine example.
    """
    x, y = sinusoids(META_BATCH, 50, rng)
    minibatches = [error(*pair) for pair in zip(x.split(10, 1), y.split(10, 1), strict=True)]
    adapted = inner.to_model_params(meta, inner.adapt(meta, minibatches, META_BATCH))
    distances = [(value - adapted[name]).square().sum() for name, value in meta.items()]
    return torch.stack(distances).sum() / (2 * META_BATCH)


def pretraining(inner: InnerLoop, meta: Params, rng: Generator) -> Tensor:
    """Return the error on all tasks without any adaptation."""
    x, y = sinusoids(META_BATCH, 2 * SHOTS, rng)
    return error(x, y)(inner.to_model_params(meta, inner.init_state(meta, META_BATCH))).mean()


METHODS = {
    "MAML": (maml, InnerLoop(SGD(0.01))),
    "first-order MAML": (maml, InnerLoop(SGD(0.01), first_order=True)),
    "Reptile": (reptile, InnerLoop(SGD(0.02))),
    "pretrained": (pretraining, InnerLoop(SGD(0.01))),
}


def train(name: str, iterations: int, seed: int) -> Params:
    """Return meta-trained parameters; all methods begin with the same ones."""
    objective, inner = METHODS[name]
    torch.manual_seed(seed)
    meta = leaves(inner.init(parameters(network())))
    optimizer = torch.optim.Adam(meta.values(), META_LR)
    rng = Generator().manual_seed(seed)
    for _ in range(iterations):
        optimizer.zero_grad()
        objective(inner, meta, rng).backward()
        optimizer.step()
    return meta


@torch.no_grad()
def evaluate(meta: Params, lr: float, shots: int, seed: int) -> Tensor:
    """Return held-out tasks' errors on 100 new points after 0 to 10 steps on K, (B, steps + 1)."""
    x, y = sinusoids(NUM_TASKS, SHOTS + 100, Generator().manual_seed(seed))
    seen, new = error(x[:, :shots], y[:, :shots]), error(x[:, SHOTS:], y[:, SHOTS:])
    inner = InnerLoop(SGD(lr))
    states = inner.trajectory(meta, [seen] * STEPS, NUM_TASKS)
    return torch.stack([new(inner.to_model_params(meta, state)) for state in states], dim=1)


def tuned_step_size(meta: Params, shots: int) -> float:
    """Return the step size with the least error on validation tasks, mean over the steps."""

    def validation_error(lr: float) -> float:
        mean = float(evaluate(meta, lr, shots, VALIDATION_SEED).mean())
        return math.inf if math.isnan(mean) else mean  # where steps are too large, some diverge

    return min(STEP_SIZES, key=validation_error)


def results_of(trained: dict[str, Params]) -> dict[str, dict]:
    """Return mean errors on test tasks and half-widths of their 95% intervals, by K and method."""
    results: dict[str, dict] = {"5": {}, "10": {}}
    for shots, by_method in results.items():
        for name, meta in trained.items():
            lr = tuned_step_size(meta, int(shots))
            errors = evaluate(meta, lr, int(shots), TEST_SEED)
            half = 1.96 * errors.std(0) / math.sqrt(NUM_TASKS)
            by_method[name] = {"lr": lr, "mean": errors.mean(0).tolist(), "half": half.tolist()}
    return results


def table(results: dict[str, dict], steps: tuple[int, ...] = (0, 1, 2, 5, 10)) -> str:
    """Return a Markdown table of the errors after some of the steps."""
    lines = [" | ".join(["| K | method | step size", *map(str, steps)]) + " |"]
    lines.append("|---" * (3 + len(steps)) + "|")
    for shots, by_method in results.items():
        for name, result in by_method.items():
            cells = [f"{result['mean'][step]:.2f} ± {result['half'][step]:.2f}" for step in steps]
            lines.append(" | ".join([f"| {shots} | {name} | {result['lr']}", *cells]) + " |")
    return "\n".join(lines)


@torch.no_grad()
@drawing_style()
def draw(results: dict[str, dict], trained: dict[str, Params], path: Path) -> None:
    """Draw one task before and after adaptation, and the errors against the steps."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    fits, curves = figure.subplots(2, 2, sharey="row")
    colours = dict(zip(METHODS, COLOURS, strict=False))
    grid, x = torch.linspace(-5, 5, 201), torch.linspace(-4.5, 4.5, SHOTS)
    rows = []
    for axes, name in zip(fits, ("MAML", "pretrained"), strict=True):
        axes.plot(grid, 4 * torch.sin(grid - 1), color=GRID, linewidth=6)
        axes.plot(x, 4 * torch.sin(x - 1), "^", color=TEXT, label="seen")
        seen = error(x.view(1, -1, 1), 4 * torch.sin(x - 1).view(1, -1, 1))
        inner = InnerLoop(SGD(results["10"][name]["lr"]))
        states = inner.trajectory(trained[name], [seen] * STEPS, num_tasks=1)
        for step, style in ((0, ":"), (1, "--"), (STEPS, "-")):
            y = forward(inner.to_model_params(trained[name], states[step]), grid.view(1, -1, 1))
            axes.plot(grid, y.flatten(), style, color=colours[name], label=f"after {step}")
            pairs = zip(grid.tolist(), y.flatten().tolist(), strict=True)
            rows += [(name, "one task", step, *pair, "") for pair in pairs]
        axes.set(title=f"{name}, one task", xlabel="x", ylabel="y")
    for axes, (shots, by_method) in zip(curves, results.items(), strict=True):
        for name, result in by_method.items():
            mean, half, look = result["mean"], result["half"], {"marker": ".", "label": name}
            axes.errorbar(range(STEPS + 1), mean, half, color=colours[name], **look)
            numbers = enumerate(zip(mean, half, strict=True))
            rows += [(name, f"K = {shots}", step, "", *each) for step, each in numbers]
        axes.set(title=f"held-out tasks, K = {shots}", xlabel="gradient steps", yscale="log")
        axes.set_yticks((0.1, 0.2, 0.5, 1, 2, 5), ("0.1", "0.2", "0.5", "1", "2", "5"))
        axes.minorticks_off()
    for axes in (*fits, *curves):
        style_axes(axes)
    for axes in fits:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4)
    legend_below(figure, curves)
    curves[0].set_ylabel("mean squared error (bar: 95% interval)")
    columns = ("method", "panel", "gradient steps", "x", "value", "half width")
    save_drawing(Drawing(figure, "Fits of one task, and errors by steps.", columns, rows), path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Few-shot regression of sinusoids.")
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sinusoid"), metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are small
    trained: dict[str, Params] = {}
    for name in METHODS:
        print(f"training {name}", flush=True)
        trained[name] = train(name, options.iterations, options.seed)
    results = results_of(trained)
    print(table(results))
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"iterations": options.iterations, "seed": options.seed, "mse": results}
    (options.out / "sinusoid.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(results, trained, options.out / "sinusoid.png")


if __name__ == "__main__":
    main()
