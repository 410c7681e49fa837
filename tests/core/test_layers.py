import numpy as np
import pytest
import torch

from metarl.core.layers import linear, orthogonal, tanh


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


@pytest.mark.parametrize("out", [1, 15, 16, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_a_product_and_a_shift_however_wide(out, dtype):
    """Few columns are padded: neither values nor gradients see it."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    inputs = draw(2, 5, 3), draw(2, 3, out), draw(2, 1, out)
    x, weight, bias = inputs
    result, expected = linear(*inputs), x @ weight + bias
    assert result.shape == (2, 5, out)
    torch.testing.assert_close(result, expected)
    for one, other in zip(
        torch.autograd.grad(result.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(30, 50), (50, 30), (7, 7), (1, 4), (4, 1)])
def test_orthogonal_matrices_have_orthonormal_rows_or_columns(fan_in, fan_out):
    """The fewer of them."""
    matrix = orthogonal(np.random.default_rng(0), fan_in, fan_out)
    assert matrix.shape == (fan_in, fan_out)
    product = matrix.T @ matrix if fan_in >= fan_out else matrix @ matrix.T
    np.testing.assert_allclose(product, np.eye(min(fan_in, fan_out)), atol=1e-12)


def test_orthogonal_matrices_are_uniform_over_signs():
    """QR alone fixes them: every entry, and the determinant, has either sign as often."""
    rng = np.random.default_rng(0)
    draws = np.stack([orthogonal(rng, 2, 2) for _ in range(2000)])
    assert np.abs(np.sign(draws).mean(0)).max() < 0.08  # 3.5 standard deviations
    assert abs(np.linalg.det(draws).mean()) < 0.08
