"""metarl.agents.maml.outer.trpo: conjugate gradients, the step to the border, the line search."""

import itertools
import math

import numpy as np
import pytest
import torch

from metarl.agents.maml.meta_objective import MetaGradient
from metarl.agents.maml.outer.trpo import (
    TRPOConfig,
    conjugate_gradient,
    line_search,
    trust_region_step,
)
from metarl.rollout.failures import NotFinite


def spd_matrix(size: int, seed: int) -> torch.Tensor:
    """A random symmetric positive definite matrix, float64, well conditioned."""
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.T / size + torch.eye(size).double()


def vector(size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 4, 12])
def test_conjugate_gradient_solves_a_linear_system(size, seed):
    matrix, target = spd_matrix(size, seed), vector(size, seed + 100)
    found, _ = conjugate_gradient(lambda x: matrix @ x, target, steps=2 * size, tolerance=1e-24)
    assert torch.allclose(found, torch.linalg.solve(matrix, target), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3, 24])
@pytest.mark.parametrize("precondition", [None, lambda residual: residual / 3])
def test_conjugate_gradient_knows_the_curvature_of_its_solution(steps, precondition):
    """x^T A x, however far the solution is from the exact one."""
    matrix, target = spd_matrix(12, 0), vector(12, 1)
    found, curvature = conjugate_gradient(
        lambda x: matrix @ x, target, steps, precondition=precondition
    )
    assert float(curvature) == pytest.approx(float(found @ matrix @ found), rel=1e-9)


def test_conjugate_gradient_takes_no_more_products_than_steps():
    matrix, calls = spd_matrix(30, 0), []
    conjugate_gradient(lambda x: calls.append(1) or matrix @ x, vector(30, 1), steps=4)
    assert len(calls) == 4


def test_conjugate_gradient_stops_when_the_residual_is_small():
    """The identity is solved in one step; another would divide 0 by 0."""
    calls = []
    target = vector(30, 1)
    solution, _ = conjugate_gradient(lambda x: calls.append(1) or x, target, steps=10)
    assert torch.allclose(solution, target)
    assert len(calls) == 1


def test_conjugate_gradient_of_nothing_is_nothing():
    solution, curvature = conjugate_gradient(lambda x: x, torch.zeros(3), steps=5)
    assert torch.equal(solution, torch.zeros(3))
    assert float(curvature) == 0


def test_trust_region_step_reaches_the_border_along_the_natural_gradient():
    """1/2 s F s = max_kl, and s points along -F^-1 g."""
    matrix, gradient = spd_matrix(8, 3), vector(8, 4)
    config = TRPOConfig(max_kl=0.02, cg_steps=20, cg_damping=0.0)
    step = trust_region_step(gradient, lambda x: matrix @ x, config)
    assert float(0.5 * step @ matrix @ step) == pytest.approx(0.02, rel=1e-9)
    natural = -torch.linalg.solve(matrix, gradient)
    assert torch.allclose(step / step.norm(), natural / natural.norm(), atol=1e-5)


def test_damping_is_added_to_the_diagonal():
    matrix, gradient = spd_matrix(8, 3), vector(8, 4)
    config = TRPOConfig(max_kl=0.02, cg_steps=20, cg_damping=0.5)
    damped = matrix + 0.5 * torch.eye(8).double()
    undamped_config = TRPOConfig(max_kl=0.02, cg_steps=20, cg_damping=0.0)
    expected = trust_region_step(gradient, lambda x: damped @ x, undamped_config)
    assert torch.allclose(trust_region_step(gradient, lambda x: matrix @ x, config), expected)


def test_a_direction_that_is_not_finite_is_refused():
    """Whether the gradient is not, or what it is multiplied with."""
    for bad, steps in itertools.product((float("nan"), float("inf")), (1, 10)):
        config = TRPOConfig(cg_steps=steps)
        with pytest.raises(NotFinite, match="the search direction is not finite"):
            trust_region_step(torch.ones(4).double(), lambda x, bad=bad: bad * x, config)
    with pytest.raises(NotFinite, match="the search direction is not finite"):
        trust_region_step(torch.full((4,), float("nan")).double(), lambda x: x, TRPOConfig())


def test_no_step_without_a_gradient():
    """A zero gradient gives a zero step, and the line search does not even try."""
    gradient = torch.zeros(4, dtype=torch.float64)
    step = trust_region_step(gradient, lambda x: x, TRPOConfig())
    assert torch.equal(step, torch.zeros(4).double())
    zero = torch.zeros(4).double()
    search = line_search(never_called, 1.0, zero, step, TRPOConfig())
    assert not search.accepted
    assert (search.tried, search.improvement, search.expected, search.kl) == (0, 0.0, 0.0, 0.0)
    assert torch.equal(search.step, zero)


def never_called(step: torch.Tensor) -> tuple[float, float]:
    raise AssertionError("there was nothing to evaluate")


def parabola(curvature: float):
    """Loss x^2 around x = 1 with KL `curvature` * step^2: -> (loss_and_kl, loss, gradient)."""

    def loss_and_kl(step: torch.Tensor) -> tuple[float, float]:
        return float((1 + step) ** 2), float(curvature * step**2)

    return loss_and_kl, 1.0, torch.tensor([2.0]).double()


def search_from(step: float, curvature: float, **config: float):
    loss_and_kl, loss, gradient = parabola(curvature)
    settings = TRPOConfig(max_kl=1.0, line_search_shrink=0.5, **config)
    return line_search(loss_and_kl, loss, gradient, torch.tensor([step]).double(), settings)


def test_line_search_accepts_a_step_that_improves_at_once():
    search = search_from(-1.0, curvature=0.1)
    assert (search.accepted, search.tried) == (True, 1)
    assert float(search.step) == -1.0
    assert search.improvement == 1.0  # from 1 to 0
    assert search.expected == 2.0  # the slope 2 times the step
    assert search.kl == pytest.approx(0.1)


def test_line_search_shrinks_until_the_loss_improves():
    """-4 leads to 9 and -2 to 1, which is no improvement; -1 is the first that is."""
    search = search_from(-4.0, curvature=0.01)
    assert (search.accepted, search.tried, float(search.step)) == (True, 3, -1.0)
    assert search.expected == 2.0


def test_line_search_shrinks_until_inside_the_trust_region():
    """-1 and -1/2 improve the loss, but have KL 8 and 2; -1/4 has 1/2. The KL of -1 tells that of
    -1/2, which is not tried."""
    search = search_from(-1.0, curvature=8.0)
    assert (search.accepted, search.tried, float(search.step)) == (True, 2, -0.25)
    assert search.kl == 0.5
    assert search.improvement == pytest.approx(1 - 0.75**2)
    assert search.expected == 0.5


def test_line_search_gives_up_after_its_steps():
    search = search_from(-4.0, curvature=0.01, line_search_steps=2)
    assert (search.accepted, search.tried) == (False, 2)
    assert torch.equal(search.step, torch.zeros(1).double())
    assert (search.improvement, search.kl) == (0.0, 0.0)


def test_a_line_search_tries_its_smallest_step_however_large_the_kl():
    """The KL of the first step would mean that no step is in the trust region; or nothing, where it
    is not finite."""
    for first, tried in ((1e9, 2), (math.inf, 4), (math.nan, 4)):

        def loss_and_kl(step: torch.Tensor, first=first) -> tuple[float, float]:
            return float((1 + step) ** 2), 0.5 if abs(float(step)) < 0.2 else first

        settings = TRPOConfig(max_kl=1.0, line_search_shrink=0.5, line_search_steps=4)
        gradient, step = torch.tensor([2.0]).double(), torch.tensor([-1.0]).double()
        search = line_search(loss_and_kl, 1.0, gradient, step, settings)
        assert (search.accepted, search.tried, float(search.step)) == (True, tried, -0.125)


def test_a_rejected_search_still_says_what_the_last_step_promised():
    """As LineSearch documents: `expected` is that of the accepted, or else the last, step."""
    assert search_from(-4.0, curvature=0.01, line_search_steps=2).expected == 4.0


def test_line_search_refuses_a_step_uphill():
    loss_and_kl, loss, gradient = parabola(0.1)
    search = line_search(loss_and_kl, loss, gradient, torch.tensor([0.5]).double(), TRPOConfig())
    assert not search.accepted


@pytest.mark.parametrize("values", [(float("nan"), 0.0), (0.0, float("nan"))])
def test_line_search_never_accepts_what_is_not_a_number(values):
    search = line_search(lambda step: values, 1.0, -torch.ones(2), torch.ones(2), TRPOConfig())
    assert not search.accepted


@pytest.mark.parametrize(
    ("reach", "tried", "length"),
    [(0.5, 1, 0.5), (5.0, 3, 1.25)],  # 5 and 2.5 times the distance to it are worse than 0
)
def test_a_whole_step_on_a_quadratic_with_known_solution(reach, tried, length):
    """Loss 1/2 x A x - b x with Fisher matrix A: the natural step goes straight to A^-1 b.

    The border of the trust region lies at `reach` times the distance to the minimum.
    """
    matrix, target = spd_matrix(6, 0), vector(6, 1)
    minimum = torch.linalg.solve(matrix, target)
    kl_at_minimum = float(0.5 * minimum @ matrix @ minimum)

    def loss_and_kl(x: torch.Tensor) -> tuple[float, float]:
        return float(0.5 * x @ matrix @ x - target @ x), float(0.5 * x @ matrix @ x)

    config = TRPOConfig(
        max_kl=reach**2 * kl_at_minimum, cg_steps=20, cg_damping=0.0, line_search_shrink=0.5
    )
    step = trust_region_step(-target, lambda x: matrix @ x, config)
    step = step * (1 - 1e-12)  # the border itself may be missed by rounding
    search = line_search(loss_and_kl, 0.0, -target, step, config)
    assert (search.accepted, search.tried) == (True, tried)
    assert torch.allclose(search.step, length * minimum, rtol=1e-4, atol=1e-4)
    improvement = kl_at_minimum * (2 * length - length**2)
    assert search.improvement == pytest.approx(improvement, rel=1e-6)
    assert search.kl == pytest.approx(kl_at_minimum * length**2, rel=1e-6)


class Quadratic:
    """An objective 1/2 x A x - b x whose Fisher matrix is A, which notes the fractions it is asked
    for."""

    def __init__(self, vector: torch.Tensor) -> None:
        self.vector, self.matrix, self.target = vector, spd_matrix(6, 0), torch.ones(6).double()
        self.fractions = self.damping = None

    def loss(self, x: torch.Tensor) -> float:
        return float(0.5 * x @ self.matrix @ x - self.target @ x)

    def gradient(self) -> MetaGradient:
        gradient = self.matrix @ self.vector - self.target
        return MetaGradient(self.loss(self.vector), gradient, 0.0, 0.0)

    def fisher_vector_product(self, fraction: float, jacobian_fraction: float):
        self.fractions = fraction, jacobian_fraction
        return lambda x: self.matrix @ x

    def kfac_preconditioner(self, damping: float):
        """The exact inverse, whatever the damping: one product solves the system."""
        self.damping = damping
        return lambda x: torch.linalg.solve(self.matrix, x)

    def loss_and_kl(self, x: torch.Tensor) -> tuple[float, float]:
        step = x - self.vector
        return self.loss(x), float(0.5 * step @ self.matrix @ step)


@pytest.mark.parametrize("start", [0.0, 0.7])
@pytest.mark.parametrize(("preconditioner", "cg_steps"), [("none", 10), ("kfac", 1)])
def test_a_step_of_the_update(timer, start, preconditioner, cg_steps):
    """From where the meta-parameters are, to the border of the trust region or just inside, with
    the diagnostics of the search."""
    config = TRPOConfig(
        max_kl=0.01,
        cg_steps=cg_steps,
        cg_damping=0.0,
        preconditioner=preconditioner,
        preconditioner_damping=0.2,
        fisher_fraction=0.25,
        jacobian_fraction=0.5,
    )
    objective = Quadratic(torch.full((6,), start, dtype=torch.float64))
    update = config.make(objective.vector)
    new, found = update.step(objective, np.random.default_rng(0), timer)
    assert objective.fractions == (0.25, 0.5)
    assert objective.damping == (0.2 if preconditioner == "kfac" else None)
    loss, kl = objective.loss_and_kl(new)
    before = objective.gradient()
    assert found == {
        "outer_kl": pytest.approx(kl),
        "improvement": pytest.approx(before.loss - loss),
        "expected_improvement": pytest.approx(float(-before.gradient @ (new - objective.vector))),
        "line_search_steps": pytest.approx(1, abs=1),
        "line_search_rejected": 0.0,
        "gradient_norm": pytest.approx(float(before.gradient.norm())),
    }
    assert found["improvement"] > 0
    # the border, or, where rounding puts it outside, the next try
    assert 0.63 * 0.01 < kl <= 0.01
    natural = -torch.linalg.solve(objective.matrix, before.gradient)
    step = new - objective.vector
    torch.testing.assert_close(step / step.norm(), natural / natural.norm(), rtol=0, atol=1e-4)
    assert update.state_dict() == {}
