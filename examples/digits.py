"""Few-shot classification: MAML, ANIL, Reptile and a prototypical network learn to learn digits.

    python examples/digits.py

The images are scikit-learn's handwritten digits, 8 x 8 pixels, which come with its package (`pip
install scikit-learn`). Each seed draws five digits for meta-training; rotations by 90, 180 and 270
degrees are further classes (Santoro et al. 2016, section 4.1). A task is to tell five classes apart
by K images of each. Tests are of the other five digits, upright, and then learn these rotated, one
rotation after another: how much of the first task is forgotten?

All B tasks of a meta-batch adapt at once: data are (B, images, 64), and the parameters of task b
are row b of the stacked parameters, (B, ...).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from metarl.adaptation import SGD, Head, InnerLoop, Loss, Params, batched, leaves, parameters
from metarl.core.statistics import mean_interval
from metarl.runs.atomic_io import make_output_folder, write_atomically

WAYS, QUERIES = 5, 10  # classes of a task, and new images of each class
META_BATCH, META_LR = 16, 2e-3
TRAIN_STEPS, TEST_STEPS, TEST_TASKS = 3, 10, 400
PROTOTYPES = "prototypical network"


def all_images() -> Tensor:
    """Return the images by rotation and digit, (4, 10, images, 64), with values in [-1, 1]."""
    digits: Any = load_digits()
    number = np.bincount(digits.target).min()
    by_digit = [digits.images[digits.target == digit][:number] for digit in range(10)]
    upright = torch.tensor(np.stack(by_digit), dtype=torch.float32) / 8 - 1
    return torch.stack([upright.rot90(turns, (2, 3)) for turns in range(4)]).flatten(3)


def split(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the images of five digits for training, and those of the other five for tests."""
    order = torch.randperm(10, generator=Generator().manual_seed(seed))
    return images[:, order[:5]], images[:, order[5:]]


def draw_tasks(
    classes: Tensor, num_tasks: int, shots: int, rng: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw tasks from classes (C, images, 64), with the classes of each task in random order.

    Returns:
        K images of each class, (B, 5 K, 64), with their labels, (B, 5 K); and new images of these
        classes with their labels.
    """
    chosen = torch.rand(num_tasks, len(classes), generator=rng).argsort(1)[:, :WAYS]
    order = torch.rand(num_tasks, WAYS, classes.shape[1], generator=rng).argsort(2)
    x = classes[chosen[..., None], order[..., : shots + QUERIES]]  # (B, 5, K + 10, 64)
    y = torch.arange(WAYS)[:, None].expand(x.shape[:-1])
    parts = (x[:, :, :shots], y[:, :, :shots], x[:, :, shots:], y[:, :, shots:])
    seen_x, seen_y, new_x, new_y = (part.flatten(1, 2) for part in parts)
    return seen_x, seen_y, new_x, new_y


def network() -> nn.Sequential:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(64, 64), relu, nn.Linear(64, 64), relu, nn.Linear(64, WAYS))


classify = batched(network())  # (stacked parameters, x) -> logits
embed = batched(network()[:3])  # the same without the last layer


def error(x: Tensor, y: Tensor) -> Loss:
    """Return the cross-entropies of the tasks, (B,), as a function of stacked parameters."""
    return lambda params: cross_entropy(
        classify(params, x).transpose(1, 2), y, reduction="none"
    ).mean(1)


def prototype_logits(params: Params, seen_x: Tensor, seen_y: Tensor, x: Tensor) -> Tensor:
    """Return minus the squared distances to the prototypes, which are the mean embeddings of the
    classes, (B, images, 5) (Snell et al. 2017, equations 1 and 2)."""
    belongs = one_hot(seen_y, WAYS).float()  # (B, 5 K, 5)
    prototypes = belongs.mT @ embed(params, seen_x) / belongs.sum(1)[..., None]
    return -torch.cdist(embed(params, x), prototypes).square()


# The meta-objectives: scalars whose gradient is the direction of the meta-update.


def maml(inner: InnerLoop, meta: Params, classes: Tensor, shots: int, rng: Generator) -> Tensor:
    """Return the error on new images after the steps (Finn et al. 2017, equation 1)."""
    seen_x, seen_y, x, y = draw_tasks(classes, META_BATCH, shots, rng)
    steps = [error(seen_x, seen_y)] * TRAIN_STEPS
    state = inner.adapt(meta, steps, META_BATCH, differentiable=True)
    return error(x, y)(inner.to_model_params(meta, state)).mean()


def reptile(inner: InnerLoop, meta: Params, classes: Tensor, shots: int, rng: Generator) -> Tensor:
    """Return half the squared distance to the adapted parameters, which are constants here: its
    gradient is Reptile's (Nichol et al. 2018). It adapts to seen and new images alike."""
    seen_x, seen_y, x, y = draw_tasks(classes, META_BATCH, shots, rng)
    steps = [error(seen_x, seen_y), error(x, y)] * TRAIN_STEPS
    adapted = inner.to_model_params(meta, inner.adapt(meta, steps, META_BATCH))
    distances = [(value - adapted[name]).square().sum() for name, value in meta.items()]
    return torch.stack(distances).sum() / (2 * META_BATCH)


def prototypical(
    inner: InnerLoop, meta: Params, classes: Tensor, shots: int, rng: Generator
) -> Tensor:
    """Return the error of the nearest prototype, without any adaptation (Snell et al. 2017)."""
    seen_x, seen_y, x, y = draw_tasks(classes, META_BATCH, shots, rng)
    params = inner.to_model_params(meta, inner.init_state(meta, META_BATCH))
    return cross_entropy(prototype_logits(params, seen_x, seen_y, x).transpose(1, 2), y)


METHODS = {
    "MAML": (maml, InnerLoop(SGD(0.4))),
    "ANIL": (maml, InnerLoop(SGD(1.0), Head(["4.weight", "4.bias"]))),
    "Reptile": (reptile, InnerLoop(SGD(0.1))),
    PROTOTYPES: (prototypical, InnerLoop(SGD(0.0))),
}


def train(name: str, classes: Tensor, shots: int, iterations: int, seed: int) -> Params:
    """Return meta-trained parameters."""
    objective, inner = METHODS[name]
    torch.manual_seed(seed)
    meta = leaves(inner.init(parameters(network()[:3] if name == PROTOTYPES else network())))
    optimizer, rng = torch.optim.Adam(meta.values(), META_LR), Generator().manual_seed(seed)
    for _ in range(iterations):
        optimizer.zero_grad()
        objective(inner, meta, classes, shots, rng).backward()
        optimizer.step()
    return meta


@torch.no_grad()
def accuracies(name: str, meta: Params, stages: list[Tensor], shots: int, seed: int) -> np.ndarray:
    """Learn one task after another, each by ten gradient steps from the parameters after the last.

    Args:
        stages: the classes of the first task, the second, ..., (5, images, 64) each.

    Returns:
        The accuracy on the task of column j after learning that of row i, (L, L). A prototypical
        network remembers the prototypes of all tasks, so that nothing changes what it has learned.
    """
    _, inner = METHODS[name]
    rng = Generator().manual_seed(seed)
    tasks = [draw_tasks(classes, TEST_TASKS, shots, rng) for classes in stages]
    state = inner.init_state(meta, TEST_TASKS)
    found = np.zeros((len(tasks), len(tasks)))
    for row, (seen_x, seen_y, _, _) in enumerate(tasks):
        for _ in range(0 if name == PROTOTYPES else TEST_STEPS):
            state = inner.step(meta, state, error(seen_x, seen_y))
        params = inner.to_model_params(meta, state)
        for column, (own_x, own_y, x, y) in enumerate(tasks):
            if name == PROTOTYPES:
                logits = prototype_logits(params, own_x, own_y, x)
            else:
                logits = classify(params, x)
            found[row, column] = (logits.argmax(-1) == y).float().mean()
    return found


def table(results: dict[str, list]) -> list[str]:
    """Return a Markdown table of accuracies on the first of four tasks, by K and method."""
    lines = [
        "| K, method | after the task | after all four tasks | forgotten |",
        "|---|---|---|---|",
    ]
    for name, matrices in results.items():
        first, last = np.array(matrices)[:, 0, 0], np.array(matrices)[:, -1, 0]
        lines.append(f"| {name} | {cell(first)} | {cell(last)} | {cell(first - last)} |")
    return lines


def cell(scores: np.ndarray) -> str:
    """Return the mean of one score per seed, in percent, and half the width of its interval if
    there are several."""
    if len(scores) < 2:
        return f"{100 * scores.mean():.1f}"
    low, high = mean_interval(scores[:, None])
    return f"{100 * scores.mean():.1f} ± {50 * (high - low):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Few-shot classification of digits.")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    if options.out:
        make_output_folder(options.out.parent)
    torch.set_num_threads(1)  # the matrices are small
    images, results = all_images(), {}
    for name, shots in ((name, shots) for shots in (1, 5) for name in METHODS):
        print(f"training {name} with K = {shots}", flush=True)
        matrices = results[f"{shots}, {name}"] = []
        for seed in range(options.seeds):
            known, unknown = split(images, seed)
            meta = train(name, known.flatten(0, 1), shots, options.iterations, seed)
            matrices.append(accuracies(name, meta, list(unknown), shots, seed).tolist())
    print("\n".join(table(results)))
    if options.out:
        write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
