"""metarl.agents.gradient: meta-updates on a real environment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs import HalfCheetahVel, PointNav
from metarl.adaptation import InnerConfig
from metarl.trpo import TRPOConfig

FAMILY = PointNav(horizon=10, action_scale=1.0)
TASKS = FAMILY.tasks("train", 4)
DIAGNOSTICS = {
    "inner_kl",
    "outer_kl",
    "improvement",
    "expected_improvement",
    "line_search_steps",
    "line_search_rejected",
    "gradient_norm",
    "policy_std",
    "explained_variance",
}


@pytest.fixture
def meta_step(play, clock):
    """One iteration of `steps` adaptations and an update; returns the diagnostics."""

    def meta_step(agent, family=FAMILY, tasks=TASKS, steps=1, seed=0):
        state = agent.initial_state(len(tasks))
        for phase in range(steps):
            episodes = play(agent, state, family, tasks, 5, seed=seed, phase=phase)
            state = agent.adapt(state, episodes)
        after = play(agent, state, family, tasks, 5, seed=seed, phase=steps)
        return agent.update(state, after, clock)

    return meta_step


def values(agent) -> torch.Tensor:
    return torch.cat([value.flatten() for value in agent.params.values()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "log_likelihood"])
@pytest.mark.parametrize(("steps", "first_order"), [(1, False), (2, False), (1, True)])
def test_an_update_improves_within_the_trust_region(
    make_agent, meta_step, dtype, surrogate, steps, first_order
):
    inner = InnerConfig(surrogate=surrogate, first_order=first_order)
    agent = make_agent(FAMILY, dtype=dtype, inner=inner, outer=TRPOConfig(max_kl=0.01))
    before = values(agent)
    found = meta_step(agent, steps=steps)
    assert set(found) == DIAGNOSTICS
    assert np.isfinite(list(found.values())).all()
    assert not found["line_search_rejected"]
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
    assert found["expected_improvement"] > 0
    assert found["inner_kl"] > 0
    assert 1 <= found["line_search_steps"] <= 15
    assert values(agent).dtype == dtype
    assert not torch.equal(values(agent), before)


def test_the_improvement_is_about_what_the_gradient_promised(make_agent, meta_step):
    """In a small trust region, where the surrogate is nearly linear."""
    agent = make_agent(FAMILY, dtype=torch.float64, outer=TRPOConfig(max_kl=1e-6))
    found = meta_step(agent)
    assert found["improvement"] == pytest.approx(found["expected_improvement"], rel=0.02)
    assert found["outer_kl"] == pytest.approx(1e-6, rel=0.4)


def test_a_fraction_of_the_data_for_the_fisher_products(make_agent, meta_step):
    """Changes the direction a little; objective and KL are still of all the data."""
    directions = []
    for fraction in (1.0, 0.5):
        outer = TRPOConfig(fisher_fraction=fraction)
        agent = make_agent(FAMILY, dtype=torch.float64, outer=outer)
        before = values(agent)
        found = meta_step(agent)
        assert 0 < found["outer_kl"] <= outer.max_kl
        directions.append(values(agent) - before)
    cosine = torch.nn.functional.cosine_similarity(*directions, dim=0)
    assert 0.5 < float(cosine) < 0.9999


def test_two_runs_of_one_seed_are_the_same_to_the_bit(make_agent, meta_step):
    agents = [make_agent(FAMILY) for _ in range(2)]
    found = [[meta_step(agent, seed=seed) for seed in range(3)] for agent in agents]
    assert found[0] == found[1]
    assert torch.equal(values(agents[0]), values(agents[1]))
    other = make_agent(FAMILY)
    meta_step(other, seed=99)
    meta_step(agents[0], seed=0)
    assert not torch.equal(values(agents[0]), values(other))


def test_a_rejected_search_leaves_the_parameters_alone(make_agent, meta_step):
    """A first step far beyond the region and only one try."""
    outer = TRPOConfig(max_kl=1e6, line_search_steps=1)
    agent = make_agent(FAMILY, outer=outer)
    before = values(agent)
    found = meta_step(agent)
    assert found["line_search_rejected"] == 1.0
    assert (found["improvement"], found["outer_kl"]) == (0.0, 0.0)
    assert torch.equal(values(agent), before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(make_agent, play, clock, bad):
    agent = make_agent(FAMILY)
    before = values(agent)
    first = play(agent, agent.initial_state(4), FAMILY, TASKS, 5)
    state = agent.adapt(agent.initial_state(4), first)
    after = play(agent, state, FAMILY, TASKS, 5, phase=1)
    reward = after.reward.copy()
    reward[2, 1, 3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.update(state, replace(after, reward=reward), clock)
    assert torch.equal(values(agent), before)


def test_without_adaptation_it_is_plain_trpo(make_agent, meta_step):
    """Zero inner steps: the pretraining that adaptation is compared with."""
    agent = make_agent(FAMILY)
    found = meta_step(agent, steps=0)
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
    assert found["inner_kl"] == 0


def test_the_diagnostics_mean_what_they_say(make_agent, meta_step):
    """policy_std is that of the new parameters, as the policy uses it."""
    agent = make_agent(FAMILY)
    found = meta_step(agent)
    assert found["policy_std"] == pytest.approx(float(agent.params["log_std"].exp().mean()))
    assert found["explained_variance"] <= 1
    assert found["gradient_norm"] > 0


def test_a_mujoco_family_end_to_end(make_agent, meta_step):
    family = HalfCheetahVel(horizon=10)
    found = meta_step(make_agent(family), family, family.tasks("train", 3))
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
