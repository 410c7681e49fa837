"""metarl.meta_objective: loss, gradient and curvature through the adaptation, in float64.

The references here are finite differences, or autograd on a second implementation of the
adaptation that looks at one task at a time and knows nothing of stacks and chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.adaptation import InnerConfig, sgd_step, stack
from metarl.experience import Experience
from metarl.meta_objective import LinearMap, MetaChunk, MetaObjective, flatten, unflatten
from metarl.parallel import ChunkPool
from metarl.policies import GaussianMLP, Normal, Params

SURROGATES = ("likelihood_ratio", "log_likelihood")


@dataclass
class Problem:
    """Three tasks in chunks of two and one, each adapted by `steps` gradient steps."""

    policy: GaussianMLP
    params: Params
    inner: InnerConfig
    chunks: list[MetaChunk]

    def objective(self, chunks: list[MetaChunk] | None = None) -> MetaObjective:
        return MetaObjective(
            self.policy, self.inner, self.params, chunks or self.chunks, ChunkPool(1)
        )

    @property
    def old(self) -> Tensor:
        """The meta-parameters, (P,)."""
        return flatten(self.params)

    def adapted(self, vector: Tensor) -> list[tuple[Normal, Normal, Experience]]:
        """Adapt to each task: its new and old policies at the data after, and these data."""
        found = []
        for chunk in self.chunks:
            for task in range(chunk.num_tasks):
                params = unflatten(vector, self.params)
                for experience in chunk.trail:
                    params = self._plain_step(params, only(experience, task))
                after = only(chunk.after, task)
                old = {name: value[task : task + 1] for name, value in chunk.adapted.items()}
                old_normal = self.policy(old, after.obs)
                found.append((self.policy(stack(params, 1), after.obs), old_normal, after))
        return found

    def _plain_step(self, params: Params, experience: Experience) -> Params:
        log_prob = self.policy(stack(params, 1), experience.obs).log_prob(experience.action)
        if self.inner.surrogate == "likelihood_ratio":
            log_prob = (log_prob - experience.log_prob).exp()
        loss = -(log_prob * experience.advantage * experience.weight).sum()
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        if self.inner.first_order:
            gradients = [gradient.detach() for gradient in gradients]
        return {
            name: value - self.inner.lr * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }


def only(experience: Experience, task: int) -> Experience:
    return Experience(*(value[task : task + 1] for value in vars(experience).values()))


@pytest.fixture
def make_problem(tiny_policy, tiny_params, invent) -> Callable[..., Problem]:
    def make(steps: int = 1, surrogate: str = "likelihood_ratio", first_order: bool = False):
        rng = np.random.default_rng(7)
        inner = InnerConfig(lr=0.1, surrogate=surrogate, first_order=first_order)
        chunks = []
        for num_tasks in (2, 1):
            params, trail = stack(tiny_params, num_tasks), []
            for _ in range(steps):
                trail.append(invent(tiny_policy, params, rng))
                params = sgd_step(tiny_policy, params, trail[-1], inner, inner.lr)
            after = invent(tiny_policy, params, rng)
            chunks.append(MetaChunk(tuple(trail), params, after))
        return Problem(tiny_policy, tiny_params, inner, chunks)

    return make


def assert_close(actual: Tensor, expected: Tensor, rel: float) -> None:
    """The difference is small against the whole vector."""
    assert float((actual - expected).norm() / expected.norm()) < rel


def dense(product: Callable[[Tensor], Tensor], size: int) -> Tensor:
    return torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_equals_finite_differences(make_problem, steps, surrogate):
    """Central differences, of fourth order, of `evaluate`, which adapts without any graph."""
    problem = make_problem(steps, surrogate)
    objective, eps = problem.objective(), 3e-5
    _, gradient = objective.loss_and_gradient()

    def difference(step: Tensor) -> float:
        return objective.evaluate(problem.old + step)[0] - objective.evaluate(problem.old - step)[0]

    slopes = [
        (8 * difference(eps * unit) - difference(2 * eps * unit)) / (12 * eps)
        for unit in torch.eye(len(problem.old), dtype=torch.float64)
    ]
    assert_close(gradient, torch.tensor(slopes, dtype=torch.float64), rel=1e-8)


@pytest.mark.parametrize("steps", [1, 2])
def test_first_order_takes_the_adaptation_for_a_shift(make_problem, steps):
    """The mean gradient at the adapted parameters, with respect to these."""
    problem = make_problem(steps, first_order=True)
    expected = torch.zeros_like(problem.old)
    for chunk in problem.chunks:
        leaves = {name: value.detach().requires_grad_() for name, value in chunk.adapted.items()}
        log_prob = problem.policy(leaves, chunk.after.obs).log_prob(chunk.after.action)
        loss = -(log_prob * chunk.after.advantage * chunk.after.weight).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        expected += torch.cat([gradient.sum(0).flatten() for gradient in gradients]) / 3
    _, gradient = problem.objective().loss_and_gradient()
    assert_close(gradient, expected, rel=1e-12)
    _, second_order = make_problem(steps).objective().loss_and_gradient()
    assert float((gradient - second_order).norm() / second_order.norm()) > 0.01


def test_the_two_inner_surrogates_differ_in_the_meta_gradient(make_problem):
    """They adapt alike, but only the likelihood ratio credits the policy before adaptation."""
    ratio, log = (make_problem(1, surrogate) for surrogate in SURROGATES)
    assert_close(log.chunks[0].adapted["weight0"], ratio.chunks[0].adapted["weight0"], rel=1e-12)
    gradients = [problem.objective().loss_and_gradient()[1] for problem in (ratio, log)]
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 0.01


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_evaluate_is_the_ratio_surrogate_and_the_kl_from_old_to_new(make_problem, steps, surrogate):
    """Of the adapted policies, at meta-parameters away from the old ones; not KL(new || old)."""
    problem = make_problem(steps, surrogate)
    objective = problem.objective()
    objective.loss_and_gradient()
    vector = problem.old + 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    losses, kls, reverse = [], [], []
    for new, old, after in problem.adapted(vector.clone().requires_grad_()):
        ratio = (new.log_prob(after.action) - after.log_prob).exp()
        losses.append(-(ratio * after.advantage * after.weight).sum().item())
        kls.append((old.kl(new) * after.weight).sum().item())
        reverse.append((new.kl(old) * after.weight).sum().item())
    loss, kl = objective.evaluate(vector)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert kl == pytest.approx(np.mean(kls), rel=1e-12)
    assert kl != pytest.approx(np.mean(reverse), rel=1e-3)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_at_the_old_parameters_nothing_has_changed(make_problem, steps):
    problem = make_problem(steps)
    objective = problem.objective()
    loss, _ = objective.loss_and_gradient()
    again, kl = objective.evaluate(problem.old)
    assert again == pytest.approx(loss, rel=1e-13)
    assert abs(kl) < 1e-15


@pytest.mark.parametrize(
    ("steps", "surrogate", "first_order"),
    [(0, "likelihood_ratio", False), *itertools.product((1, 2), SURROGATES, (False, True))],
    ids=str,
)
def test_the_fisher_product_is_the_hessian_of_the_mean_kl(
    make_problem, steps, surrogate, first_order
):
    """The dense Hessian by double backpropagation through the plain adaptation."""
    problem = make_problem(steps, surrogate, first_order)

    def mean_kl(vector: Tensor) -> Tensor:
        kls = [(old.kl(new) * after.weight).sum() for new, old, after in problem.adapted(vector)]
        return sum(kls) / len(kls)

    hessian = torch.autograd.functional.hessian(mean_kl, problem.old)
    assert_close(dense(problem.objective().fisher(), 34), hessian, rel=1e-10)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_fisher_matrix_is_symmetric_and_positive_semidefinite(make_problem, fraction):
    matrix = dense(make_problem(2).objective().fisher(fraction, fraction), 34)
    assert_close(matrix, matrix.T, rel=1e-13)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    assert eigenvalues[-1] > 0


@pytest.mark.parametrize(("fraction", "jacobian_fraction"), [(1, 1), (1 / 2, 1), (1, 1 / 4)])
def test_fractions_are_every_so_many_steps(make_problem, fraction, jacobian_fraction):
    """Of those after adaptation and of those before it, each by its own fraction."""
    problem = make_problem(2)
    stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)
    thinned = [
        replace(
            chunk,
            trail=tuple(experience.every(jacobian_stride) for experience in chunk.trail),
            after=chunk.after.every(stride),
        )
        for chunk in problem.chunks
    ]
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    product = problem.objective().fisher(fraction, jacobian_fraction)(vector)
    all_steps = stride == jacobian_stride == 1
    assert torch.equal(product, problem.objective(thinned).fisher()(vector))
    assert torch.equal(product, problem.objective().fisher()(vector)) == all_steps


def test_chunks_do_not_change_the_objective(make_problem):
    """Chunks of two and one tasks, against one task each: alike up to rounding."""
    problem = make_problem(1)
    split = [
        MetaChunk(
            tuple(only(experience, task) for experience in chunk.trail),
            {name: value[task : task + 1] for name, value in chunk.adapted.items()},
            only(chunk.after, task),
        )
        for chunk in problem.chunks
        for task in range(chunk.num_tasks)
    ]
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    whole, parts = problem.objective(), problem.objective(split)
    loss, gradient = whole.loss_and_gradient()
    parts_loss, parts_gradient = parts.loss_and_gradient()
    assert loss == pytest.approx(parts_loss, rel=1e-12)
    assert_close(gradient, parts_gradient, rel=1e-12)
    assert_close(whole.fisher()(vector), parts.fisher()(vector), rel=1e-12)
    shifted = problem.old + 0.05 * vector
    assert whole.evaluate(shifted) == pytest.approx(parts.evaluate(shifted), rel=1e-12)


def test_linear_map_is_the_jacobian_and_its_transpose():
    """Both products against the dense Jacobian, and against each other."""
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.standard_normal((4, 3)))

    def function(x: Tensor) -> Tensor:
        return torch.tanh(matrix @ x) * x.sum()

    point = torch.from_numpy(rng.standard_normal(3))
    tangent, cotangent = (torch.from_numpy(rng.standard_normal(size)) for size in (3, 4))
    jacobian = torch.autograd.functional.jacobian(function, point)
    leaf = point.clone().requires_grad_()
    linear = LinearMap([function(leaf)], [leaf])
    for _ in range(2):  # the graph is kept
        (pushed,), (pulled,) = linear.pushforward([tangent]), linear.pullback([cotangent])
        assert_close(pushed, jacobian @ tangent, rel=1e-13)
        assert_close(pulled, jacobian.T @ cotangent, rel=1e-13)
        assert float(cotangent @ pushed) == pytest.approx(float(pulled @ tangent), rel=1e-12)


def test_linear_map_is_zero_where_an_output_does_not_depend_on_an_input():
    x, y = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    linear = LinearMap([2 * x, 3 * y], [x, y])
    pushed = linear.pushforward([torch.ones(2).double(), torch.zeros(2).double()])
    assert [value.tolist() for value in pushed] == [[2.0, 2.0], [0.0, 0.0]]


def test_flatten_and_unflatten_are_inverse(tiny_params):
    vector = flatten(tiny_params)
    assert vector.shape == (34,)
    back = unflatten(vector, tiny_params)
    assert list(back) == list(tiny_params)
    assert all(torch.equal(back[name], tiny_params[name]) for name in back)
