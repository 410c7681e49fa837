"""metarl.agents.maml.agent: meta-updates on a real environment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.base import Rollout
from metarl.agents.maml.batch import process_episodes
from metarl.agents.maml.inner_config import InnerConfig
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch, Query
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.agents.maml.surrogates import likelihood_ratio, mean_kl
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import flatten, stack
from metarl.envs import HalfCheetahVel, TabularMDP
from tests.agents.maml.settings import FAMILY, INNER, OUTER, TASKS, assert_same, values

DIAGNOSTICS = {
    "adaptation_kl",
    "outer_kl",
    "improvement",
    "expected_improvement",
    "line_search_steps",
    "line_search_rejected",
    "gradient_norm",
    "policy_std",
    "explained_variance",
}


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
    assert found["adaptation_kl"] > 0
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


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(make_agent, meta_step, play, timer, bad, outer):
    """And the agent stays as it was, an optimiser's moments included."""
    agent = make_agent(FAMILY, outer=OUTER[outer])
    meta_step(agent)
    before = agent.state_dict()
    first = play(agent, agent.initial_state(4), FAMILY, TASKS, 5)
    state = agent.adapt(agent.initial_state(4), first)
    episodes = play(agent, state, FAMILY, TASKS, 5, adaptation_step=1)
    reward = episodes.reward.copy()
    reward[2, 1, 3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.update(
            [Rollout(state, replace(episodes, reward=reward))], np.random.default_rng(0), timer
        )
    assert_same(agent.state_dict(), before)


def test_without_adaptation_it_is_plain_trpo(make_agent, meta_step):
    """Zero inner steps: the pretraining that adaptation is compared with."""
    agent = make_agent(FAMILY)
    found = meta_step(agent, steps=0)
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
    assert found["adaptation_kl"] == 0


def test_the_diagnostics_mean_what_they_say(make_agent, meta_step):
    """policy_std is that of the new parameters, as the policy uses it."""
    agent = make_agent(FAMILY)
    found = meta_step(agent)
    assert found["policy_std"] == pytest.approx(float(agent.meta["log_std"].exp().mean()))
    beyond = {**agent.meta, "log_std": torch.tensor([[0.0, 9.0]])}
    assert agent._diagnostics(beyond, [])["policy_std"] == (1 + agent.policy.config.max_std) / 2
    assert found["explained_variance"] <= 1
    assert found["gradient_norm"] > 0


def test_adaptation_kl_is_of_the_first_episodes(make_agent, play, timer):
    """KL(before || after all steps) at the observations that the meta-parameters led to."""
    agent = make_agent(FAMILY, dtype=torch.float64, inner_steps=2, tasks_per_microbatch=3)
    state = agent.initial_state(4, training=True)
    for step in range(2):
        state = agent.adapt(state, play(agent, state, FAMILY, TASKS, 5, adaptation_step=step))
    kls = [
        mean_kl(
            agent.policy(
                stack(agent.meta, microbatch.inner_state.num_tasks), microbatch.support[0].obs
            ),
            agent.policy(microbatch.params, microbatch.support[0].obs),
            microbatch.support[0].weight,
        )
        for microbatch in state.microbatches
    ]
    episodes = play(agent, state, FAMILY, TASKS, 5, adaptation_step=2)
    found = agent.update([Rollout(state, episodes)], np.random.default_rng(0), timer)
    assert found["adaptation_kl"] == pytest.approx(float(torch.cat(kls).mean()), rel=1e-12)


@pytest.mark.parametrize("rule", ["meta_sgd", "lslr"])
def test_learned_step_sizes_are_reported_and_change(make_agent, meta_step, rule):
    """The mean over all of them, of the new meta-parameters."""
    agent = make_agent(FAMILY, inner=InnerConfig(lr=0.1, rule=rule))
    found = meta_step(agent)
    rates = [value.flatten() for name, value in agent.meta.items() if name.startswith("lr:")]
    assert found["mean_inner_lr"] == pytest.approx(float(torch.cat(rates).mean()), rel=1e-6)
    assert found["mean_inner_lr"] != pytest.approx(0.1, rel=1e-5)
    assert "mean_inner_lr" not in meta_step(make_agent(FAMILY))


@pytest.mark.parametrize("tasks_per_microbatch", [1, 3])
@pytest.mark.parametrize(
    ("inner", "weight"),
    [
        (InnerConfig(surrogate="log_likelihood", emaml_weight=2.0), "emaml_weight"),
        (InnerConfig(pre_adaptation_weight=2.0), "pre_adaptation_weight"),
    ],
)
def test_terms_of_earlier_policies_enter_the_update(
    make_agent, play, timer, inner, weight, tasks_per_microbatch
):
    """The term of E-MAML, with return weights standardised over the meta-batch, and the return
    before adaptation; for any size of the microbatches."""
    agent = make_agent(
        FAMILY,
        dtype=torch.float64,
        inner=inner,
        outer=AdamConfig(),
        tasks_per_microbatch=tasks_per_microbatch,
    )
    state = agent.adapt(
        agent.initial_state(4), play(agent, agent.initial_state(4), FAMILY, TASKS, 5)
    )
    episodes = play(agent, state, FAMILY, TASKS, 5, adaptation_step=1)
    returns = episodes.reward.sum(2, dtype=np.float64).mean(1)
    weights = torch.from_numpy((returns - returns.mean()) / returns.std())
    microbatches, start = [], 0
    for microbatch in state.microbatches:
        rows = slice(start, start + microbatch.inner_state.num_tasks)
        start = rows.stop
        query, _ = process_episodes(
            episodes.rows(rows.start, rows.stop),
            agent.policy,
            microbatch.params,
            agent.returns,
            agent.device,
        )
        microbatches.append(
            MetaMicrobatch(
                microbatch.support,
                microbatch.inner_state,
                (Query(1, microbatch.params, query),),
                weights[rows],
            )
        )

    def gradient(**weights: float):
        objective = MetaObjective(
            agent.policy,
            agent.inner_loop,
            agent._surrogate,
            agent.meta,
            microbatches,
            MicrobatchPool(1),
            **weights,
        )
        return float(objective.gradient(outer=likelihood_ratio).gradient.norm())

    expected, plain = gradient(**{weight: 2.0}), gradient()
    found = agent.update([Rollout(state, episodes)], np.random.default_rng(0), timer)
    assert found["gradient_norm"] == pytest.approx(expected, rel=1e-6)
    assert abs(expected / plain - 1) > 1e-3


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", [name for name in OUTER if "reptile" not in name])
def test_every_inner_loop_learns_with_every_outer_update(make_agent, meta_step, inner, outer):
    """Finite figures, and every meta-parameter moves, those of what adapts and how included."""
    settings = {"inner": INNER[inner], "outer": OUTER[outer], "inner_steps": 2}
    agent = make_agent(FAMILY, **settings, tasks_per_microbatch=len(TASKS))
    before = dict(agent.meta)
    found = meta_step(agent, steps=2)
    assert np.isfinite(list(found.values())).all()
    assert found["outer_kl"] > 0
    assert [name for name in before if torch.equal(agent.meta[name], before[name])] == []


def test_the_decay_of_loaded_dice_is_the_configured_one(make_agent, meta_step):
    """At 0 its second derivative is that of the likelihood ratio, at 1 another."""
    norms = []
    for settings in (
        {"surrogate": "likelihood_ratio"},
        {"surrogate": "loaded_dice", "dice_decay": 0.0},
        {"surrogate": "loaded_dice", "dice_decay": 1.0},
    ):
        inner = InnerConfig(**settings)
        agent = make_agent(FAMILY, dtype=torch.float64, inner=inner, outer=AdamConfig())
        norms.append(meta_step(agent)["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)
    assert norms[0] != pytest.approx(norms[2], rel=1e-3)


def test_discrete_actions(make_agent, meta_step):
    """A categorical policy, which has no standard deviation to report."""
    family = TabularMDP(horizon=6, num_states=3, num_actions=4)
    agent = make_agent(family)
    found = meta_step(agent, family, family.tasks("train", 3))
    assert set(found) == DIAGNOSTICS - {"policy_std"}
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
    assert "log_std" not in agent.meta
    assert flatten(agent.meta).isfinite().all()


def test_a_mujoco_family_end_to_end(make_agent, meta_step):
    family = HalfCheetahVel(horizon=10)
    found = meta_step(make_agent(family), family, family.tasks("train", 3))
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
