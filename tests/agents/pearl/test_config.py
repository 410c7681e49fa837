"""metarl.agents.pearl.config: bad input, memory, and runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from metarl.agents.pearl.config import PEARLConfig, check_actions
from metarl.agents.pearl.replay import Replay
from metarl.config_files import load_config, make_config
from metarl.core.errors import ConfigError
from metarl.envs import PointNav
from metarl.rollout.sampling import SamplingConfig

DATA = {
    "env": {"family": "point_nav", "horizon": 10},
    "sampling": {"num_tasks": 5, "num_episodes": 2, "adaptation_steps": 1, "train_tasks": 20},
    "agent": {"kind": "pearl", "update": {"context": 20}},
}


def refusal(section: str, **values) -> str:
    with pytest.raises(ConfigError) as error:
        make_config({**DATA, section: {**DATA[section], **values}}, "mine", {})
    text = str(error.value)
    assert "\n" not in text
    return text


def test_pearl_needs_fixed_training_tasks():
    assert refusal("sampling", train_tasks=0) == (
        "mine: agent.kind: pearl keeps the transitions of each training task, so it needs a fixed "
        "set of them: expected sampling.train_tasks of at least 1, such as 100, got 0"
    )


def test_pearl_needs_bounded_continuous_actions():
    with pytest.raises(ConfigError, match=r"agent\.kind: pearl has continuous actions only"):
        make_config({**DATA, "env": {"family": "gridworld"}}, "mine", {})
    with pytest.raises(ConfigError, match="kind: pearl needs an action space with bounds"):
        check_actions(Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ConfigError, match="kind: pearl needs an action space whose bounds differ"):
        check_actions(Box(np.float32([-1, 0]), np.float32([1, 0])))


PRIOR = "the steps of a task in an iteration that are played under the prior"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"update": {"context": 21}},
            f"update.context: expected at most 20, {PRIOR}, of which more sampling.num_episodes "
            "have more, got 21",
        ),
        (
            {"prior_episodes": 2},
            "prior_episodes: expected at most 1 with sampling.adaptation_steps 1, as no episode "
            "would be played under the posterior, got 2",
        ),
        (
            {"update": {"context": 300, "context_from": "all"}, "replay_size": 299},
            "update.context: expected at most 299, the replay_size, got 300",
        ),
        ({"replay_size": 255}, "update.batch: expected at most 255, the replay_size, got 256"),
        (
            {"replay_size": 199, "update": {"batch": 64}},
            "replay_size: expected at least the 200 steps of an iteration, got 199",
        ),
        (
            {"update": {"discount": 1.5}},
            "update.discount: expected between 0 and 1, got 1.5",
        ),
        (
            {"update": {"encoder_loss": "metrics"}},
            "update.encoder_loss: expected one of critic, metric, got 'metrics'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, expected):
    assert refusal("agent", **values).startswith(f"mine: agent.{expected}")


def test_a_single_step_of_a_task_is_no_context():
    """A context has two steps at least; the message names what helps."""
    changed = {"env.horizon": 1, "sampling.num_episodes": 1, "agent.update.context": 2}
    words = r"context-from: expected all, as each .*; or more sampling\.num_episodes, got 'trial'"
    with pytest.raises(ConfigError, match=words):
        make_config(DATA, "mine", {**changed, "agent.update.context_from": "trial"})
    assert make_config(DATA, "mine", {**changed, "agent.update.context_from": "all"})


@pytest.mark.parametrize("key", ["agent.update.meta_batch", "sampling.train_tasks"])
def test_the_metric_needs_two_tasks_in_a_gradient_step(key):
    values = {"agent.update.encoder_loss": "metric", "sampling.num_tasks": 1}
    message = (
        r"update.encoder.loss: expected critic, as update\.meta_batch or sampling\.train_tasks "
        "is 1, and metric compares tasks, got 'metric'$"
    )
    with pytest.raises(ConfigError, match=message):
        make_config(DATA, "mine", {**values, key: 1})
    assert make_config(DATA, "mine", {**values, key: 2}).agent.kind == "pearl"
    assert make_config(DATA, "mine", {key: 1, "sampling.num_tasks": 1}).agent.kind == "pearl"


def test_networks_that_are_too_large_are_refused():
    for key in ("agent.network.hidden", "agent.network.encoder_hidden"):
        with pytest.raises(ConfigError, match=rf"^{key}: expected layers of at most .*, got \(40"):
            make_config(DATA, "mine", {key: [4096, 4096]}).make_agent()


def test_the_memory_of_the_replay_buffer_by_hand():
    """Rows of 2 + 2 + 1 + 2 + 1 numbers of four bytes, and two indices of eight."""
    config, sampling = PEARLConfig(replay_size=1000), SamplingConfig(train_tasks=5)
    assert config.replay_memory(PointNav(), sampling) == 1000 * (8 * 4 + 2 * 8)
    agent = make_config(DATA, "mine", {"agent.replay_size": 1000}).make_agent()
    assert isinstance(agent.replay, Replay)
    assert agent.replay._rows.nbytes == 0  # before anything is recorded


def test_the_memory_of_an_update_by_hand():
    """Two critics, with derivatives, at the tasks of a meta-batch."""
    network, update = {"hidden": [30, 20]}, {"meta_batch": 7, "batch": 11}
    config = PEARLConfig(network=network, update=update)
    for tasks, rows in ((100, 77), (3, 33)):
        sampling = SamplingConfig(train_tasks=tasks)
        assert config.update_memory(PointNav(), sampling) == 4 * rows * 4 * 50


def test_which_tensors_are_averaged_and_transferred():
    config = make_config(DATA, "mine", {})
    state = config.make_agent().state_dict()
    averaged = {name for name in state if config.agent.may_average(name)}
    assert averaged == {name for name in state if name.startswith("params.")}
    anew = {name for name in state if not config.agent.may_transfer(name)}
    optimiser = {name for name in state if name.startswith("adam.")} | {"num_updates"}
    assert anew == optimiser | {"log_temperature"}  # a setting, if it is not learned
    learned = make_config(DATA, "mine", {"agent.update.learn_temperature": True}).agent
    assert {name for name in state if not learned.may_transfer(name)} == optimiser


def test_a_training_that_only_collects_is_warned_of():
    agent = make_config(DATA, "mine", {"agent.update.warmup_iterations": 5}).agent
    assert agent.remarks(6) == []
    assert agent.remarks(5) == [
        "agent.update.warmup_iterations: 5 leaves nothing to learn in 5 iterations, which all only "
        "collect; expected less than 5"
    ]


def test_all_tensors_of_the_state_are_finite_and_32_bits():
    for name, value in make_config(DATA, "mine", {}).make_agent().state_dict().items():
        if name != "num_updates":
            assert value.dtype == torch.float32, name
            assert torch.isfinite(value).all(), name


def test_the_published_sizes_are_given_by_flags():
    """Those in the comment of the config, in text."""
    flags = {"num_tasks": 5, "num_episodes": 1, "inner_steps": 4, "iterations": 500}
    network = {"hidden": [300, 300, 300], "encoder_hidden": [200, 200, 200]}
    flags |= {f"agent.network.{name}": sizes for name, sizes in network.items()}
    flags |= {"agent.update.batch": 256, "agent.prior_episodes": 2}
    flags["agent.update.context_from"] = "prior"
    config = load_config("half_cheetah_vel/pearl", **flags)
    assert config.sampling.max_steps(200) == 5 * (400 + 600)
    published = PEARLConfig()
    assert config.agent.network == published.network
    assert config.agent.update == published.update.replace(warmup_iterations=5)


def test_a_metric_does_not_tell_a_task_from_itself():
    """Two directions under twenty ids would be twenty tasks to it."""
    changes = {"sampling.train_tasks": 20, "agent.update.encoder_loss": "metric"}
    expected = "critic, or sampling.train_tasks of at most 2, the tasks that there are"
    message = f"agent.update.encoder.loss: expected {expected}"
    with pytest.raises(ConfigError, match=message):
        load_config("half_cheetah_dir/pearl", **changes)
    assert load_config("half_cheetah_dir/pearl", **{**changes, "sampling.train_tasks": 2})
    assert load_config("half_cheetah_dir/pearl", **{"sampling.train_tasks": 20})
