"""metarl.agents.maml.agent: saved, loaded and made from a config."""

import pytest
import torch

import metarl
from metarl.agents.base import check_fits
from metarl.core.errors import UserError
from tests.agents.maml.settings import FAMILY, INNER, OUTER, TASKS, assert_same


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        *((outer, "sgd") for outer in OUTER),
        *(("ppo", inner) for inner in INNER if inner != "sgd"),
    ],
)
def test_a_loaded_agent_goes_on_as_if_nothing_had_happened(make_agent, meta_step, outer, inner):
    """Two updates are one, saved and loaded into a fresh agent, and one."""
    settings = {"inner": INNER[inner], "outer": OUTER[outer], "tasks_per_microbatch": len(TASKS)}
    whole, first, second = (make_agent(FAMILY, **settings) for _ in range(3))
    for seed in range(2):
        meta_step(whole, seed=seed)
    meta_step(first, seed=0)
    saved = first.state_dict()
    kept = {name: x.clone() for name, x in saved.items()}
    second.load_state_dict(saved)
    for agent in (first, second):
        meta_step(agent, seed=1)
        assert_same(agent.state_dict(), whole.state_dict())
    assert_same(saved, kept)


@pytest.mark.parametrize("outer", OUTER)
def test_a_state_is_a_copy(make_agent, meta_step, outer):
    agent = make_agent(FAMILY, outer=OUTER[outer], tasks_per_microbatch=len(TASKS))
    meta_step(agent)
    state = agent.state_dict()
    kept = {name: x.clone() for name, x in state.items()}
    for x in state.values():
        x.fill_(3.0)
    assert_same(agent.state_dict(), kept)


def test_a_state_before_the_first_update_has_the_tensors_of_one_after_it(make_agent, meta_step):
    """So that `check_fits` can compare a checkpoint with a fresh agent."""
    for outer in OUTER.values():
        agent = make_agent(FAMILY, outer=outer)
        shapes = {name: x.shape for name, x in agent.state_dict().items()}
        meta_step(agent)
        assert {name: x.shape for name, x in agent.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("saved", "wanted", "expected"),
    [
        ("meta_sgd", "maml_trpo", r"params\.lr:bias0 has the shape \[1, 8\], expected none"),
        ("maml_trpo", "meta_sgd", r"params\.lr:bias0 has the shape none, expected \[1, 8\]"),
        ("maml_ppo", "maml_trpo", r"outer\.exp_avg has the shape .*, expected none"),
        ("maml_trpo", "maml_ppo", r"outer\.exp_avg has the shape none"),
        ("cavia", "maml_trpo", r"params\.context:weight has the shape \[8, 8\], expected none"),
    ],
)
def test_a_checkpoint_of_another_method_is_refused(saved, wanted, expected):
    one, other = (
        metarl.load_config(f"point_nav/{name}", **{"agent.policy.hidden": [8]})
        for name in (saved, wanted)
    )
    state = one.make_agent().state_dict()
    with pytest.raises(UserError, match=expected):
        other.make_agent(state)
    check_fits(state, one.make_agent().state_dict())


def test_the_agent_of_a_config_is_made_of_its_parts():
    """Inner loop, outer update and surrogate as the config says, drawn from its seed."""
    config = metarl.load_config("point_nav/cavia", seed=3, **{"agent.policy.hidden": [8]})
    agents = [config.make_agent() for _ in range(2)]
    assert_same(agents[0].state_dict(), agents[1].state_dict())
    assert agents[0].meta["context:weight"].shape == (8, 8)
    other = config.replace(seed=4).make_agent()
    for name in ("weight0", "context:weight"):
        assert not torch.equal(agents[0].meta[name], other.meta[name])
    steps = metarl.load_config("point_nav/lslr", inner_steps=3)
    assert steps.make_agent().meta["lr:weight0"].shape == (3, 1, 1)
