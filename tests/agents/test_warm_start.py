"""What a new agent takes from the state of another agent, and what begins anew."""

from __future__ import annotations

import pytest
import torch

import metarl
from metarl.agents import AgentConfig
from metarl.agents.warm_start import take_parameters
from metarl.core.errors import UserError
from tests.agents.mean_action import MeanActionConfig

POLICY = ("bias0", "bias1", "log_std", "weight0", "weight1")


def agent_of(name: str, **overrides):
    """The config and the state of a new agent of point_nav."""
    small = {"agent.policy.hidden": [8], "env.horizon": 5, "num_tasks": 2, "num_episodes": 2}
    config = metarl.load_config(f"point_nav/{name}", **{**small, **overrides})
    return config.agent, config.make_agent().state_dict()


def taken_from(other, own, **overrides):
    config, state = agent_of(own, **overrides)
    return take_parameters(config, state, agent_of(other, seed=1)[1])


@pytest.mark.parametrize(
    ("other", "own", "anew", "left"),
    [
        ("maml_trpo", "maml_trpo", (), ()),
        ("maml_trpo", "maml_ppo", ("outer.exp_avg", "outer.exp_avg_sq"), ()),
        ("maml_ppo", "promp", ("outer.exp_avg", "outer.exp_avg_sq"), ()),
        ("maml_trpo", "meta_sgd", ("params.lr:bias0", "params.lr:bias1"), ()),
        ("meta_sgd", "maml_trpo", (), ("params.lr:bias0", "params.lr:bias1")),
        ("meta_sgd", "lslr", ("params.lr:bias0", "params.lr:bias1"), ()),
        ("maml_trpo", "cavia", ("params.context:weight",), ()),
    ],
)
def test_the_policy_is_taken_and_the_rest_begins_anew(other, own, anew, left):
    """Step sizes of another shape too, and the optimiser even where it fits."""
    found = taken_from(other, own)
    state, others = agent_of(own)[1], agent_of(other, seed=1)[1]
    assert found.taken == tuple(f"params.{name}" for name in POLICY)
    assert found.anew[: len(anew)] == anew
    assert found.left[: len(left)] == left
    assert found.state.keys() == state.keys()
    for name, value in found.state.items():
        assert torch.equal(value, (others if name in found.taken else state)[name])
    assert not torch.equal(found.state["params.weight0"], state["params.weight0"])


def test_learned_step_sizes_that_fit_are_taken():
    assert "params.lr:weight0" in taken_from("meta_sgd", "meta_sgd").taken


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ([9], r"params.bias0 has the shape \[1, 8\], expected \[1, 9\]"),
        ([8, 2], r"params.bias2 has the shape none, expected \[1, 2\]"),
        ([], r"params.bias0 has the shape \[1, 8\], expected \[1, 2\]"),
    ],
)
def test_another_policy_is_refused_with_the_first_key_and_both_shapes(hidden, message):
    with pytest.raises(UserError, match=f"its parameters do not fit: {message}"):
        taken_from("maml_trpo", "maml_trpo", **{"agent.policy.hidden": hidden})


def test_the_constants_of_normalised_observations_belong_to_the_policy():
    normal = {"agent.normalize_observations": True}
    config, own = agent_of("maml_trpo", **normal)
    other = agent_of("maml_trpo", seed=1, **normal)[1]
    found = take_parameters(config, own, other)
    assert torch.equal(found.state["observations.std"], other["observations.std"])
    assert not torch.equal(own["observations.std"], other["observations.std"])
    message = r"observations.mean has the shape none, expected \[2\]"
    with pytest.raises(UserError, match=message):
        take_parameters(config, own, agent_of("maml_trpo")[1])


def test_a_kind_of_ones_own_takes_what_may_be_averaged():
    own = {"prior": torch.zeros(2), "num_updates": 0}
    other = {"prior": torch.ones(2), "num_updates": 7}
    found = take_parameters(MeanActionConfig(), own, other)
    assert found.state == {"prior": other["prior"], "num_updates": 0}
    assert (found.taken, found.anew) == (("prior",), ("num_updates",))


def test_a_kind_that_names_no_parameters_is_refused():
    class Closed(AgentConfig):
        kind: str = "closed"

    state = {"secret": torch.zeros(2)}
    message = r"the agent's kind closed lets no tensor be taken \(AgentConfig.may_transfer\)"
    with pytest.raises(UserError, match=message):
        take_parameters(Closed(), state, state)
