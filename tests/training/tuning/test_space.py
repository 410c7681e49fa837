"""Search spaces: what a file means, and that a mistake in it is named before the work begins."""

import re
from pathlib import Path

import pytest
import yaml

from metarl.config_files import read_config
from metarl.core.errors import UserError
from metarl.training.tuning.space import Choices, Range, read_space

ROOT = Path(__file__).parents[3]


def read(tmp_path, content, **overrides):
    file = tmp_path / "space.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_for(file, "point_nav/maml_trpo", overrides)


def read_for(file, config, overrides):
    return read_space(file, read_config(config), config, overrides)


def test_ranges_and_choices(tmp_path):
    space = read(
        tmp_path,
        {
            "agent.inner.lr": {"min": 0.01, "max": 1, "distribution": "log_uniform_values"},
            "agent.outer.max_kl": {"min": 0.005, "max": 0.05},
            "num_episodes": {"min": 2, "max": 9},
            "agent.policy.hidden": {"values": [[8], [16, 16]]},
            "agent.inner.first_order": {"values": [True, False]},
        },
    )
    assert space == {
        "agent.inner.lr": Range(0.01, 1, log=True),
        "agent.outer.max_kl": Range(0.005, 0.05),
        "sampling.num_episodes": Range(2, 9, whole=True),
        "agent.policy.hidden": Choices(([8], [16, 16])),
        "agent.inner.first_order": Choices((True, False)),
    }
    hidden = space["agent.policy.hidden"]
    assert hidden.names == ("[8]", "[16, 16]")
    assert hidden.value_of("[16, 16]") == [16, 16]


def test_a_sweep_of_wandb_is_a_space():
    file = ROOT / "configs" / "sweeps" / "half_cheetah_dir.yaml"
    space = read_for(file, "half_cheetah_dir/demo", {})
    assert space["agent.inner.lr"] == Range(0.02, 0.5, log=True)
    assert space["agent.outer.max_kl"] == Choices((0.005, 0.01, 0.02))
    assert space.keys() == yaml.safe_load(file.read_text())["parameters"].keys()


def test_the_space_of_the_page(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/tuning.md").read_text(), re.S)
    (tmp_path / "space.yaml").write_text(text)
    assert read_for(tmp_path / "space.yaml", "half_cheetah_dir/demo", {}).keys() == {
        *("agent.inner.lr", "agent.inner.surrogate", "agent.outer.max_kl")
    }


LR = "agent.inner.lr"


WHOLE = r"; expected whole numbers as min and max, and the distribution int_uniform or none$"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected keys with values, got"),
        ("{}", "expected keys of the config with a range or values each"),
        ({"parameters": 3}, "expected keys of the config with a range or values each"),
        ({"agent.inner.lrr": {"values": [1.0]}}, r"agent\.inner\.lrr: unknown key .*nearest: lr"),
        (
            {"seed": {"values": [1, 2]}},
            r"seed: is not searched; expected keys of the sections agent",
        ),
        ({"agent": {"inner": {"lr": {"values": [0.1]}}}}, "agent: expected dotted keys, such as"),
        ({"env.horizon": {"values": [1, 2]}}, r"env\.horizon: is not searched"),
        ({"evaluation.tasks": {"values": [1]}}, r"evaluation\.tasks: is not searched"),
        ({LR: 0.5}, r"agent\.inner\.lr: expected min and max, or values, got 0\.5"),
        ({LR: {"mn": 0.5, "max": 1}}, r"lr: unknown key 'mn' \(nearest: min\)"),
        ({LR: {"min": 0.5}}, r"lr: expected numbers with min < max, got 0\.5 and None"),
        ({LR: {"min": 1, "max": 0.5}}, r"lr: expected numbers with min < max, got 1 and 0\.5"),
        ({LR: {"min": 0.1, "max": "x"}}, r"lr: expected numbers with min < max, got 0\.1 and 'x'"),
        ({LR: {"min": 0.1, "max": 1, "distribution": "uniorm"}}, r"'uniorm' \(nearest: uniform\)"),
        ({LR: {"min": 0, "max": 1.0, "distribution": "log_uniform_values"}}, "min above 0, got 0"),
        ({LR: {"min": 0.1, "max": 1.0, "distribution": "int_uniform"}}, "expected whole numbers"),
        ({LR: {"min": -1.0, "max": 1.0}}, r"agent\.inner\.lr: expected .*got -1\.0"),
        (
            {"num_tasks": {"min": 2, "max": 6, "distribution": "uniform"}},
            rf"num_tasks: expected whole number, got 2\.5{WHOLE}",
        ),
        (
            {"num_episodes": {"min": 2, "max": 9, "distribution": "log_uniform_values"}},
            rf"num_episodes: expected whole number, got 2\.5{WHOLE}",
        ),
        (
            {"num_tasks": {"min": 2.0, "max": 6}},
            rf"num_tasks: expected whole number, got 2\.0{WHOLE}",
        ),
        ({LR: {"values": []}}, r"lr: values: expected a list, got \[\]"),
        ({LR: {"values": [0.1, 0.1]}}, "lr: expected either different values, or min and max"),
        (
            {LR: {"values": [0.1], "min": 0.2}},
            "lr: expected either different values, or min and max",
        ),
        ({LR: {"values": [0.1, "fast"]}}, r"agent\.inner\.lr: expected number, got 'fast'"),
        ({"agent.outer.update": {"values": ["trpo", "ppoo"]}}, r"got 'ppoo' \(nearest: ppo\)"),
        ({1: {"values": [0.1]}, LR: {"values": [0.1]}}, "expected keys with values"),
    ],
)
def test_mistakes_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'space.yaml'}: ")
    assert "\n" not in str(error.value)


def test_a_key_is_not_given_twice(tmp_path):
    with pytest.raises(UserError, match=r"lr: is also given as a flag; expected one of both"):
        read(tmp_path, {LR: {"values": [0.1]}}, **{LR: 0.2})
    twice = {"num_tasks": {"values": [2]}, "sampling.num_tasks": {"values": [3]}}
    with pytest.raises(UserError, match=r"sampling.num_tasks: is given twice, by this name and a"):
        read(tmp_path, twice)
    with pytest.raises(UserError, match=r"sampling.num_tasks: is also given as a flag"):
        read(tmp_path, {"sampling.num_tasks": {"values": [3]}}, num_tasks=4)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml: not a readable YAML file"):
        read_for(tmp_path / "nothing.yaml", "point_nav/maml_trpo", {})
