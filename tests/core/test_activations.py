import pytest
import torch

from metarl.core.activations import tanh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_torch(dtype):
    x = torch.linspace(-12, 12, 4001, dtype=dtype)
    torch.testing.assert_close(tanh(x), torch.tanh(x), rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert tanh(torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)).tolist()[1:] == [
        1,
        -1,
    ]
    assert tanh(torch.tensor([torch.nan], dtype=dtype)).isnan()


def test_layout_of_the_argument_changes_no_bit():
    x = torch.randn(7, 5)
    assert torch.equal(tanh(x.T), tanh(x).T)
    assert torch.equal(tanh(x[:, :2]), tanh(x)[:, :2])


def test_first_and_second_derivatives_are_those_of_finite_differences():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, x)
    assert torch.autograd.gradgradcheck(tanh, x)
