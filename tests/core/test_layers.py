import numpy as np
import pytest
import torch

from metarl.core.layers import (
    MIN_PRODUCTS,
    MIN_ROWS,
    dense,
    has_onednn,
    linear,
    orthogonal,
    tanh,
)


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


@pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_derivatives_of_large_layers_are_those_of_float64(num_tasks, relu):
    """Which torch computes: a network's gradient, its product with a vector, and the derivative of
    this product with respect to the vector, as for Fisher-vector products."""
    rng = np.random.default_rng(0)
    shapes = [(num_tasks, *shape) for shape in ((20, 30), (1, 30), (30, 6), (1, 6))]
    data = rng.standard_normal((num_tasks, MIN_ROWS + 7, 20))
    arrays = [[rng.standard_normal(shape) for shape in shapes] for _ in range(3)]

    def derivatives(dtype: torch.dtype) -> list[torch.Tensor]:
        params, vector, cotangents = (
            [torch.tensor(array, dtype=dtype, requires_grad=True) for array in group]
            for group in arrays
        )
        x = torch.tensor(data, dtype=dtype, requires_grad=True)
        output = linear(linear(x, *params[:2], relu=relu), *params[2:])
        inputs = [x, *params]
        gradient = torch.autograd.grad(output.sin().mean(1).sum(), inputs, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(gradient[1:], vector, strict=True))
        second = torch.autograd.grad(along, inputs, create_graph=True)
        across = sum((s * c).sum() for s, c in zip(second[1:], cotangents, strict=True))
        return [output, *gradient, *second, *torch.autograd.grad(across, vector)]

    found, expected = derivatives(torch.float32), derivatives(torch.float64)
    for single, double in zip(found, expected, strict=True):
        assert single.dtype == torch.float32
        assert (single - double).norm() < 1e-5 * double.norm()


def test_large_layers_without_onednn_have_the_same_values(monkeypatch):
    inputs = torch.randn(1, MIN_ROWS, 20), torch.randn(1, 20, 6), torch.randn(1, 1, 6)
    result = linear(*inputs, relu=True)
    monkeypatch.setattr("metarl.core.layers.has_onednn", lambda: False)
    torch.testing.assert_close(result, linear(*inputs, relu=True))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [1, 7, MIN_PRODUCTS // (64 * 32)])
@pytest.mark.parametrize("out", [1, 6, 32])
def test_dense_layers_and_their_gradients_are_those_of_float64(rows, out, relu):
    """However the product is computed: of few or many rows and columns."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((rows, 64), (64, out), (out,))]

    def values(dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [torch.tensor(each, dtype=dtype, requires_grad=True) for each in arrays]
        result = dense(*inputs, relu=relu)
        return [result, *torch.autograd.grad(result.sin().sum(), inputs)]

    x, weight, bias = (torch.tensor(each) for each in arrays)
    plain = x @ weight + bias
    double = values(torch.float64)
    torch.testing.assert_close(double[0], plain.relu() if relu else plain)
    for found, expected in zip(values(torch.float32), double, strict=True):
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        assert (found - expected).norm() <= 1e-5 * expected.norm()


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
