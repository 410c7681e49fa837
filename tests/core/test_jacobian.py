"""metarl.core.jacobian: Jacobians of graphs, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.core.jacobian import Jacobian


def test_products_with_the_jacobian_and_its_transpose():
    """Both products against the dense Jacobian, and against each other."""
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.standard_normal((4, 3)))

    def function(x: Tensor) -> Tensor:
        return torch.tanh(matrix @ x) * x.sum()

    point = torch.from_numpy(rng.standard_normal(3))
    tangent, cotangent = (torch.from_numpy(rng.standard_normal(size)) for size in (3, 4))
    dense = torch.autograd.functional.jacobian(function, point)
    leaf = point.clone().requires_grad_()
    jacobian = Jacobian([function(leaf)], [leaf])
    for _ in range(2):  # the graph is kept
        (pushed,), (pulled,) = jacobian.jvp([tangent]), jacobian.vjp([cotangent])
        torch.testing.assert_close(pushed, dense @ tangent, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(pulled, dense.T @ cotangent, rtol=1e-12, atol=1e-14)
        assert float(cotangent @ pushed) == pytest.approx(float(pulled @ tangent), rel=1e-12)


def test_the_jacobian_is_zero_where_an_output_does_not_depend_on_an_input():
    x, y = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    jacobian = Jacobian([2 * x, 3 * y], [x, y])
    pushed = jacobian.jvp([torch.ones(2).double(), torch.zeros(2).double()])
    assert [value.tolist() for value in pushed] == [[2.0, 2.0], [0.0, 0.0]]


def test_the_jacobian_of_an_input_that_no_output_depends_on():
    """Its vector-Jacobian product is 0, and its tangent has no effect."""
    x, y = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    jacobian = Jacobian([2 * x], [x, y])
    pulled = jacobian.vjp([torch.ones(2).double()])
    assert [value.tolist() for value in pulled] == [[2.0, 2.0], [0.0, 0.0]]
    (pushed,) = jacobian.jvp([torch.ones(2).double(), torch.ones(2).double()])
    assert pushed.tolist() == [2.0, 2.0]
