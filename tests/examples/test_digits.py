"""examples/digits.py: its pieces are right, and it shows what the papers show."""

import copy

import numpy as np
import pytest
import torch

from examples import digits
from metarl.adaptation import SGD, InnerLoop, leaves, parameters


@pytest.fixture(scope="module")
def images():
    return digits.all_images()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_digits_and_their_rotations(images):
    assert images.shape == (4, 10, 174, 64)
    assert images.min() == -1
    assert images.max() == 1
    upright = images[0, 3, 5].view(8, 8)
    assert torch.equal(images[1, 3, 5].view(8, 8), torch.from_numpy(np.rot90(upright).copy()))


def test_digits_of_tests_are_not_those_of_training(images):
    known, unknown = digits.split(images, seed=0)
    assert known.shape == unknown.shape == (4, 5, 174, 64)
    first = {part.numpy().tobytes() for half in (known, unknown) for part in half[0]}
    assert first == {part.numpy().tobytes() for part in images[0]}
    assert not torch.equal(known, digits.split(images, seed=1)[0])


def test_a_task_has_five_classes_and_new_images_of_each():
    """The images of class c of eight are all c, and image i has i in its second number."""
    classes = torch.zeros(8, 30, 64)
    classes[..., 0], classes[..., 1] = torch.arange(8)[:, None], torch.arange(30)
    seen_x, seen_y, x, y = digits.draw_tasks(classes, 50, 3, generator())
    assert (seen_x.shape, seen_y.shape, x.shape, y.shape) == (
        (50, 15, 64),
        (50, 15),
        (50, 50, 64),
        (50, 50),
    )
    both_x, both_y = torch.cat([seen_x, x], 1), torch.cat([seen_y, y], 1)
    orders = set()
    for images_of, labels in zip(both_x, both_y, strict=True):
        of_label = [images_of[labels == label] for label in range(5)]
        assert all(len(set(each[:, 0].tolist())) == 1 for each in of_label)
        assert all(len(set(each[:, 1].tolist())) == 13 for each in of_label), "none twice"
        orders.add(tuple(int(each[0, 0]) for each in of_label))
        assert len(set(map(int, [each[0, 0] for each in of_label]))) == 5
    assert len(orders) > 40


def test_maml_is_the_error_after_steps_on_other_images(images, monkeypatch):
    """Against torch's own SGD, task by task."""
    monkeypatch.setattr(digits, "META_BATCH", 3)
    torch.manual_seed(0)
    network = digits.network()
    meta, classes = leaves(parameters(network)), images.flatten(0, 1)
    loss = digits.maml(InnerLoop(SGD(0.1)), meta, classes, 2, generator())
    expected = []
    for seen_x, seen_y, x, y in zip(*digits.draw_tasks(classes, 3, 2, generator()), strict=True):
        task = copy.deepcopy(network)
        optimizer = torch.optim.SGD(task.parameters(), 0.1)
        for _ in range(digits.TRAIN_STEPS):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(task(seen_x), seen_y).backward()
            optimizer.step()
        expected.append(torch.nn.functional.cross_entropy(task(x), y).item())
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_logits_of_a_prototypical_network_by_hand(monkeypatch):
    """With the images themselves as embeddings: minus squared distances to the classes' means."""
    monkeypatch.setattr(digits, "embed", lambda params, x: x)
    seen = torch.tensor([[[float(c), float(i)] for c in range(5) for i in (0, 2)]])
    labels = torch.arange(5).repeat_interleave(2)[None]
    logits = digits.prototype_logits({}, seen, labels, torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]))
    expected = [[-9.0, -4, -1, 0, -1], [-1, -2, -5, -10, -17]]
    torch.testing.assert_close(logits[0], torch.tensor(expected))


@pytest.mark.parametrize("name", digits.METHODS)
def test_each_method_learns_and_only_prototypes_are_not_forgotten(images, monkeypatch, name):
    monkeypatch.setattr(digits, "TEST_TASKS", 40)
    known, unknown = digits.split(images, seed=0)
    meta = digits.train(name, known.flatten(0, 1), 5, 40, seed=0)
    again = digits.train(name, known.flatten(0, 1), 5, 40, seed=0)
    assert all(torch.equal(value, again[key]) for key, value in meta.items())
    matrix = digits.accuracies(name, meta, list(unknown[:2]), 5, seed=0)
    assert matrix.shape == (2, 2)
    assert matrix[0, 0] > 0.4  # chance is 0.2
    assert matrix[1, 1] > 0.35
    if name == digits.PROTOTYPES:
        assert matrix[0, 0] == matrix[1, 0]
    else:
        assert matrix[1, 0] < matrix[0, 0] - 0.05


def test_the_table_has_means_and_intervals_in_percent():
    matrices = [[[0.6, 0.1], [0.2, 0.5]], [[0.8, 0.1], [0.4, 0.5]]]
    row = digits.table({"1, MAML": matrices})[-1]
    half = 12.706 * 10  # t(1) times the standard error of two seeds, 0.1
    assert row == f"| 1, MAML | 70.0 ± {half:.1f} | 30.0 ± {half:.1f} | 40.0 ± 0.0 |"
