"""metarl.agents.vector_adam: torch's Adam as a function of a vector and its gradient."""

import pytest
import torch

from metarl.agents.vector_adam import VectorAdam

SIZE = 5


def gradients(num: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SIZE, generator=generator, dtype=dtype) for _ in range(num)]


def take_steps(adam: VectorAdam, vector: torch.Tensor, steps: list[torch.Tensor]) -> torch.Tensor:
    for gradient in steps:
        vector = adam.step(vector, gradient)
    return vector


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch(dtype):
    """To the bit, over seven steps."""
    start = torch.arange(SIZE, dtype=dtype)
    adam, parameter = VectorAdam(start, 0.1), torch.nn.Parameter(start.clone())
    reference, vector = torch.optim.Adam([parameter], lr=0.1), start
    for gradient in gradients(7, dtype):
        vector = adam.step(vector, gradient)
        parameter.grad = gradient
        reference.step()
        assert torch.equal(vector, parameter.detach())
    assert vector.dtype == dtype


def test_the_first_step_by_hand():
    """The step size against the sign of the gradient, whatever its size."""
    gradient = torch.tensor([100.0, -1e-3, 2.0, -5.0, 0.0]).double()
    new = VectorAdam(torch.zeros(SIZE).double(), 0.1).step(torch.ones(SIZE).double(), gradient)
    assert new.tolist() == pytest.approx([0.9, 1.1, 0.9, 1.1, 1.0], rel=1e-5)


def test_a_step_starts_from_the_vector_it_is_given():
    """Not from where the step before led to: only the moments are remembered."""
    first, second = gradients(2)
    steps = []
    for start in (torch.zeros(SIZE).double(), torch.full((SIZE,), 7.0).double()):
        adam = VectorAdam(torch.zeros(SIZE).double(), 0.1)
        adam.step(torch.zeros(SIZE).double(), first)
        steps.append(adam.step(start, second) - start)
    torch.testing.assert_close(*steps, rtol=1e-12, atol=1e-14)


def test_nothing_that_is_given_is_written_to():
    vector, gradient = torch.ones(SIZE).double(), gradients(1)[0]
    kept = gradient.clone()
    adam = VectorAdam(vector, 0.1)
    new = adam.step(vector, gradient)
    adam.step(new, gradient)
    assert torch.equal(vector, torch.ones(SIZE).double())
    assert torch.equal(gradient, kept)
    assert not new.requires_grad


def test_the_state_is_there_from_the_beginning():
    """So that a checkpoint before the first step has the tensors of one after it."""
    adam = VectorAdam(torch.ones(SIZE), 0.1)
    state = adam.state_dict()
    assert {name: (x.tolist(), tuple(x.shape)) for name, x in state.items()} == {
        "step": (0.0, ()),
        "exp_avg": ([0.0] * SIZE, (SIZE,)),
        "exp_avg_sq": ([0.0] * SIZE, (SIZE,)),
    }
    adam.step(torch.ones(SIZE), torch.ones(SIZE))
    after = adam.state_dict()
    assert {name: x.shape for name, x in after.items()} == {n: x.shape for n, x in state.items()}
    assert after["step"].item() == 1


def test_a_loaded_state_goes_on_as_if_nothing_had_happened():
    start, steps = torch.zeros(SIZE).double(), gradients(6)
    whole = take_steps(VectorAdam(start, 0.1), start, steps)
    first = VectorAdam(start, 0.1)
    middle = take_steps(first, start, steps[:3])
    second = VectorAdam(torch.full((SIZE,), 9.0).double(), 0.1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(take_steps(second, middle, steps[3:]), whole)


def test_a_state_shares_no_memory_with_the_optimizer():
    """Neither one that was saved nor one that was loaded changes with later steps, or changes
    them."""
    start, steps = torch.zeros(SIZE).double(), gradients(4)
    adam = VectorAdam(start, 0.1)
    middle = take_steps(adam, start, steps[:2])
    saved = adam.state_dict()
    kept = {name: x.clone() for name, x in saved.items()}
    other = VectorAdam(start, 0.1)
    other.load_state_dict(saved)
    ends = [take_steps(each, middle, steps[2:]) for each in (adam, other)]
    assert all(torch.equal(saved[name], x) for name, x in kept.items())
    for state in (saved, other.state_dict()):
        for x in state.values():
            x.fill_(3.0)
    again = VectorAdam(start, 0.1)
    again.load_state_dict(kept)
    ends.append(take_steps(again, middle, steps[2:]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert other.state_dict()["step"].item() == 4
