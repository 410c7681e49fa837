"""metarl.agents: the kinds of agents, and agents of the user's own."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from metarl.agents import AgentConfig, AgentSetup, make_agent, make_agent_config
from metarl.agents.base import check_fits
from metarl.agents.maml.agent import MAMLAgent
from metarl.agents.maml.config import MAMLConfig
from metarl.config_files import make_config
from metarl.core.errors import ConfigError, UserError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import PointNav

FAMILY = PointNav()
OWN = f"{__name__}:ConstantConfig"


class ConstantConfig(AgentConfig):
    """An agent that always acts alike."""

    kind: Literal["tests.agents.test_kinds:ConstantConfig"]
    """The kind of agent."""
    action: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """The action."""

    def check(self, family, sampling) -> None:
        if self.action and sampling.num_tasks == 1:
            raise ConfigError(f"action: {self.action} makes no sense here: num_tasks is 1")

    def make(self, setup: AgentSetup) -> ConstantAgent:
        return ConstantAgent(self.action)


class ConstantAgent:
    """Adapts to nothing and learns nothing."""

    device, max_adaptations, max_update_kl = torch.device("cpu"), 0, float("inf")
    remembers = False

    def __init__(self, action: float) -> None:
        self.action = torch.tensor([action])

    def state_dict(self):
        return {"action": self.action.clone(), "updates": 0}

    def load_state_dict(self, state) -> None:
        self.action = state["action"].clone()

    def not_played(self, *arguments):
        raise AssertionError("nothing is played here")

    initial_state = actor = adapt = next_task = update = not_played


def setup(device: str = "cpu") -> AgentSetup:
    return AgentSetup(
        observation_space=FAMILY.observation_space,
        action_space=FAMILY.action_space,
        adaptation_steps=1,
        rng=make_rng(0, Purpose.INITIALISE),
        device=torch.device(device),
        num_threads=1,
    )


def test_without_a_kind_it_is_maml():
    config = make_agent_config({"inner": {"lr": 0.3}})
    assert isinstance(config, MAMLConfig)
    assert config.inner.lr == 0.3
    assert isinstance(make_agent(config, setup()), MAMLAgent)
    assert make_agent_config(config) is config


def test_an_agent_of_the_users_own_is_a_kind():
    """From a config to the agent, and through YAML's plain values."""
    values = {"env": {"family": "point_nav"}, "agent": {"kind": OWN, "action": 0.5}}
    config = make_config(values, "own", {})
    assert isinstance(config.agent, ConstantConfig)
    agent = config.make_agent()
    assert isinstance(agent, ConstantAgent)
    assert agent.action.tolist() == [0.5]
    assert make_config(config.to_dict(), "again", {}) == config
    loaded = config.make_agent({"action": torch.tensor([0.25]), "updates": 3})
    assert loaded.action.tolist() == [0.25]


def test_a_kind_checks_its_own_combinations():
    values = {"env": {"family": "point_nav"}, "agent": {"kind": OWN, "action": 0.5}}
    with pytest.raises(ConfigError) as error:
        make_config(values, "own", {"num_tasks": 1})
    assert str(error.value) == "own: agent.action: 0.5 makes no sense here: num_tasks is 1"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"kind": "malm"},
            "kind: expected one of maml, rl2, varibad, pearl, or your own as package",
        ),
        ({"kind": "malm"}, "maml"),
        ({"kind": 3}, "kind: expected the name of a kind of agent, got 3"),
        ({"kind": "no_such_module:Agent"}, "kind: .*no_such_module"),
        ({"kind": f"{__name__}:NoSuchClass"}, "kind: .*NoSuchClass"),
        ({"kind": f"{__name__}:ConstantAgent"}, "is not a subclass of metarl.agents.AgentConfig"),
        ({"kind": f"{__name__}:setup"}, "is not a subclass of metarl.agents.AgentConfig"),
        ({"kind": OWN, "action": 2.0}, "action: expected between -1 and 1, got 2.0"),
        ({"kind": OWN, "inner": {}}, "inner: unknown key where kind is .*known where it is "),
        ({"action": 0.5}, "action: unknown key where kind is maml"),
        ({"iner": {}}, "iner: unknown key where kind is maml.*inner"),
    ],
)
def test_what_is_no_kind_is_refused(values, expected):
    with pytest.raises(ConfigError, match=expected):
        make_agent_config(values)


@pytest.mark.parametrize("values", [None, 3, ["maml"]])
def test_a_section_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match="expected keys with values"):
        make_agent_config(values)


def test_a_device_that_is_not_there_is_refused():
    number = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"^device: cuda:{number} is not available here"):
        make_agent(MAMLConfig(), setup(f"cuda:{number}"))


@pytest.mark.parametrize(("device", "expected"), [("cpu", True), ("cuda", False)])
def test_recurrent_networks_on_a_gpu_compute_with_all_bits(device, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        make_agent(make_agent_config({"kind": OWN}), setup(device))
        assert torch.backends.cudnn.allow_tf32 == expected


def test_an_error_of_an_agents_making_has_its_section():
    """Layers that no machine holds are told apart when the policy is made."""
    config = MAMLConfig(policy={"hidden": [10**5, 10**5]})
    with pytest.raises(ConfigError, match=r"^agent\.policy\.hidden: expected layers of at most"):
        make_agent(config, setup())


# --- checkpoints ---

STATE = {"weight": torch.zeros(2, 3), "count": 4, "rate": 0.5}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weight": torch.zeros(3, 2)}, r"weight has the shape \[3, 2\], expected \[2, 3\]"),
        ({"weight": None}, r"weight has the shape none, expected \[2, 3\]"),
        ({"extra": torch.zeros(1)}, r"extra has the shape \[1\], expected none"),
        ({"count": torch.zeros(1)}, r"count has the shape \[1\], expected \[\]"),
    ],
)
def test_a_state_of_other_shapes_is_refused(change, expected):
    with pytest.raises(UserError, match=f"^the checkpoint does not fit the config: {expected}$"):
        check_fits({**STATE, **change}, STATE)


def test_numbers_and_tensors_without_axes_are_alike():
    check_fits({**STATE, "count": torch.tensor(7), "rate": np.float64(0.1)}, STATE)
