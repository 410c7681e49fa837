"""metarl.agents.maml.config: the agent that a config makes."""

from dataclasses import replace

import pytest
import torch

from metarl.agents.base import AgentSetup
from metarl.agents.maml.config import MAMLConfig
from metarl.core.errors import ConfigError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import PointNav, TabularMDP
from metarl.rollout.sampling import SamplingConfig

FAMILY = PointNav()


def setup(adaptation_steps: int = 1) -> AgentSetup:
    return AgentSetup(
        observation_space=FAMILY.observation_space,
        action_space=FAMILY.action_space,
        adaptation_steps=adaptation_steps,
        rng=make_rng(0, Purpose.INITIALISE),
        device=torch.device("cpu"),
        num_threads=1,
    )


@pytest.mark.parametrize("update", ["trpo", "ppo", "adam", "reptile"])
def test_meta_parameters_may_be_averaged_and_the_state_of_the_optimizer_may_not(update):
    config = MAMLConfig(outer={"update": update})
    agent = config.make(setup())
    averaged = {name for name in agent.state_dict() if config.may_average(name)}
    assert averaged == {f"params.{name}" for name in agent.meta}


def test_learned_step_sizes_may_be_averaged_too():
    config = MAMLConfig(inner={"rule": "lslr"})
    state = config.make(setup(adaptation_steps=3)).state_dict()
    assert state["params.lr:bias0"].shape == (3, 1, 1)
    assert config.may_average("params.lr:bias0")


@pytest.mark.parametrize(("size", "sizes"), [(0, [1, 1, 1]), (2, [2, 1]), (9, [3])])
def test_the_size_of_the_microbatches(size, sizes):
    """0 is the device's best: one task at a time on a CPU."""
    state = MAMLConfig(tasks_per_microbatch=size).make(setup()).initial_state(3)
    assert [microbatch.inner_state.num_tasks for microbatch in state.microbatches] == sizes


@pytest.mark.parametrize(
    ("outer", "limit"),
    [
        ({"update": "trpo"}, 1.0),
        ({"update": "ppo"}, 1.0),
        ({"update": "ppo", "kl_weight": 0.5, "kl_target": 0.02}, 0.2),
    ],
)
def test_the_largest_divergence_of_an_update_is_that_of_the_outer_update(outer, limit):
    agent = MAMLConfig(outer=outer).make(setup())
    assert agent.max_update_kl == pytest.approx(limit)


INPUTS = {"bias_transform": [2.0]}


@pytest.mark.parametrize(
    ("agent", "change", "expected"),
    [
        *(
            (
                {"policy": INPUTS, "inner": {"adapts": adapts}},
                {"inner": {"adapts": other}},
                f"policy.bias_transform: [2.0] makes no sense here: inner.adapts is {adapts}, so "
                "the additional inputs do not adapt",
            )
            for adapts, other in (("head", "all"), ("context", "latent"))
        ),
        (
            {"inner": {"surrogate": "dice"}, "returns": {"gae_lambda": 0.95}},
            {"returns": {"gae_lambda": 1.0}},
            "returns.gae_lambda: 0.95 makes no sense here: inner.surrogate dice has returns where "
            "the others have advantages; expected 1",
        ),
    ],
)
def test_what_has_no_effect_or_another_one_is_refused(agent, change, expected):
    """And is not, with one setting changed."""
    sampling = SamplingConfig()
    with pytest.raises(ConfigError) as error:
        MAMLConfig(**agent).check(FAMILY, sampling)
    assert str(error.value) == expected
    MAMLConfig(**{**agent, **change}).check(FAMILY, sampling)


def test_discrete_actions_have_no_standard_deviation():
    expected = r"^policy\.init_std: expected 1 with discrete actions, which have none, got 0\.3$"
    config = MAMLConfig(policy={"init_std": 0.3})
    config.make(setup())
    discrete = replace(setup(), action_space=TabularMDP().action_space)
    with pytest.raises(ConfigError, match=expected):
        config.make(discrete)
    MAMLConfig().make(discrete)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (
            {"policy": INPUTS, "inner": {"adapts": "nothing"}},
            "policy.bias_transform: [2.0] makes no sense here: inner.adapts is nothing, so the "
            "additional inputs do not adapt",
        ),
        (
            {"inner": {"first_order": True}},
            "inner.first_order: True makes no sense here: with 0 adaptation steps there are no "
            "inner gradients",
        ),
    ],
)
def test_what_has_no_effect_without_adaptation_is_refused(agent, expected):
    sampling = SamplingConfig(adaptation_steps=0)
    with pytest.raises(ConfigError) as error:
        MAMLConfig(**agent).check(FAMILY, sampling)
    assert str(error.value) == expected
    MAMLConfig(policy=INPUTS).check(FAMILY, sampling)  # adapts in an evaluation


def test_inner_gradients_that_have_derivatives_are_not_kept():
    settings = {"outer": {"update": "ppo", "keep_gradients": True}}
    MAMLConfig(**settings, inner={"first_order": True}).check(FAMILY, SamplingConfig())
    expected = (
        "outer.keep_gradients: True makes no sense here: inner.first_order is false, so that inner "
        "gradients have derivatives"
    )
    with pytest.raises(ConfigError, match=expected):
        MAMLConfig(**settings).check(FAMILY, SamplingConfig())
