"""core.distributions: against torch.distributions and automatic differentiation, in float64."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, kl_divergence
from torch.distributions import Normal as TorchNormal

from metarl.core.distributions import Categorical, Normal

# --- Gaussians ---


@pytest.fixture
def pair():
    """Two Gaussians, (2 tasks, 5 steps, 3 action dimensions), and actions, float64."""
    rng = np.random.default_rng(0)

    def normal():
        mean, log_std = rng.standard_normal((2, 5, 3)), 0.3 * rng.standard_normal((2, 1, 3))
        return Normal(torch.from_numpy(mean), torch.from_numpy(log_std))

    return normal(), normal(), torch.from_numpy(rng.standard_normal((2, 5, 3)))


def as_torch(normal: Normal) -> Independent:
    """Torch's own diagonal Gaussian: Independent sums over action dimensions."""
    return Independent(TorchNormal(normal.mean, normal.log_std.exp()), 1)


def test_log_prob_is_the_sum_over_action_dimensions(pair):
    normal, _, action = pair
    expected = TorchNormal(normal.mean, normal.log_std.exp()).log_prob(action).sum(-1)
    assert torch.allclose(normal.log_prob(action), expected, rtol=1e-12)


def test_kl_equals_torch_distributions(pair):
    """KL(self || other), which is not KL(other || self)."""
    one, other, _ = pair
    expected = kl_divergence(as_torch(one), as_torch(other))
    assert torch.allclose(one.kl(other), expected, rtol=1e-12)
    assert not torch.allclose(other.kl(one), expected, rtol=1e-3)
    assert torch.equal(one.kl(one), torch.zeros(2, 5).double())


def test_entropy_equals_torch_distributions(pair):
    normal, _, _ = pair
    expected = as_torch(normal).entropy()
    assert torch.allclose(normal.entropy().expand(2, 5), expected, rtol=1e-12)


def test_fisher_product_is_the_hessian_of_kl(pair):
    """At other = self, with a weight per step, in all coordinates mean and log std at once."""
    normal, direction, _ = pair
    weight = torch.from_numpy(np.random.default_rng(1).random((2, 5)))

    def weighted_kl(coordinates: torch.Tensor) -> torch.Tensor:
        mean, log_std = coordinates[:30].reshape(2, 5, 3), coordinates[30:].reshape(2, 1, 3)
        return (normal.kl(Normal(mean, log_std)) * weight).sum()

    def join(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.cat([output.flatten() for output in outputs])

    hessian = torch.autograd.functional.hessian(weighted_kl, join(normal.outputs))
    product = normal.fisher_vector_product(direction.outputs, weight)
    assert [piece.shape for piece in product] == [(2, 5, 3), (2, 1, 3)]
    expected = hessian @ join(direction.outputs)
    torch.testing.assert_close(join(product), expected, rtol=1e-11, atol=1e-14)


# --- categorical distributions ---


@pytest.fixture
def categoricals():
    """Two distributions, (2 tasks, 5 steps, 3 actions), and actions, (2, 5, 1), as floats."""
    rng = np.random.default_rng(0)
    one, other = (Categorical(torch.from_numpy(rng.standard_normal((2, 5, 3)))) for _ in range(2))
    return one, other, torch.from_numpy(rng.integers(3, size=(2, 5, 1))).double()


def test_categorical_log_prob_equals_torch_distributions(categoricals):
    """Actions are indices: all of them, and in each type that batches have."""
    one, _, action = categoricals
    assert set(action.flatten().tolist()) == {0.0, 1.0, 2.0}
    expected = TorchCategorical(logits=one.logits).log_prob(action[..., 0])
    torch.testing.assert_close(one.log_prob(action), expected, rtol=1e-13, atol=0)
    assert torch.equal(one.log_prob(action.float()), one.log_prob(action.long()))
    assert one.log_prob(action).shape == (2, 5)


def test_categorical_kl_equals_torch_distributions(categoricals):
    """KL(self || other), which is not KL(other || self)."""
    one, other, _ = categoricals
    expected = kl_divergence(
        TorchCategorical(logits=one.logits), TorchCategorical(logits=other.logits)
    )
    torch.testing.assert_close(one.kl(other), expected, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(other.kl(one), expected, rtol=1e-3)
    assert torch.equal(one.kl(one), torch.zeros(2, 5).double())


def test_categorical_entropy_equals_torch_distributions(categoricals):
    one, _, _ = categoricals
    expected = TorchCategorical(logits=one.logits).entropy()
    torch.testing.assert_close(one.entropy(), expected, rtol=1e-13, atol=0)


def test_a_shift_of_the_logits_changes_nothing(categoricals):
    """Also a large one: no exponential overflows."""
    one, other, action = categoricals
    shifted = Categorical(one.logits + 1000)
    torch.testing.assert_close(shifted.log_prob(action), one.log_prob(action))
    torch.testing.assert_close(shifted.kl(other), one.kl(other))
    torch.testing.assert_close(other.kl(shifted), other.kl(one))
    torch.testing.assert_close(shifted.entropy(), one.entropy())


def test_categorical_fisher_product_is_the_hessian_of_kl(categoricals):
    """At other = self, with a weight per step, in all coordinates at once."""
    one, direction, _ = categoricals
    weight = torch.from_numpy(np.random.default_rng(1).random((2, 5)))

    def weighted_kl(logits: torch.Tensor) -> torch.Tensor:
        return (one.kl(Categorical(logits)) * weight).sum()

    hessian = torch.autograd.functional.hessian(weighted_kl, one.logits).reshape(30, 30)
    expected = (hessian @ direction.logits.flatten()).reshape(2, 5, 3)
    (product,) = one.fisher_vector_product((direction.logits,), weight)
    torch.testing.assert_close(product, expected, rtol=1e-11, atol=1e-14)


# --- both ---


@pytest.mark.parametrize("fixture", ["pair", "categoricals"])
def test_outputs_are_what_a_distribution_is_made_of(fixture, request):
    """In the order of its arguments, so that fisher_vector_product is in the same."""
    one, *_ = request.getfixturevalue(fixture)
    again = type(one)(*one.outputs)
    assert again.outputs == one.outputs


@pytest.mark.parametrize("fixture", ["pair", "categoricals"])
def test_detach_keeps_the_numbers_and_drops_the_graph(fixture, request):
    one, *_ = request.getfixturevalue(fixture)
    leaves = [output.clone().requires_grad_() for output in one.outputs]
    in_graph = type(one)(*(2 * leaf for leaf in leaves))
    detached = in_graph.detach()
    assert type(detached) is type(one)
    for output, before in zip(detached.outputs, in_graph.outputs, strict=True):
        assert before.requires_grad
        assert not output.requires_grad
        assert torch.equal(output, before)


@pytest.mark.parametrize("kind", [Normal, Categorical])
def test_the_root_of_the_fisher_matrix_times_its_transpose_is_the_matrix(kind):
    """At one observation: the rows of the root are the directions of unit vectors of noise."""
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 1, 1, 3)))
    distribution = Normal(*values) if kind is Normal else Categorical(values[0])
    root, matrix = [], []
    for unit in torch.eye(3, dtype=torch.float64):
        root.append(distribution.fisher_root(unit.view(1, 1, 3)).flatten())
        direction = (unit.view(1, 1, 3), torch.zeros(1, 1, 3, dtype=torch.float64))
        used = direction[: len(distribution.outputs)]
        product = distribution.fisher_vector_product(used, torch.ones(1, 1, dtype=torch.float64))
        matrix.append(product[0].flatten())
    root = torch.stack(root)
    torch.testing.assert_close(root.T @ root, torch.stack(matrix))
