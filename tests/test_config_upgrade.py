"""metarl.config_upgrade: configs that earlier versions wrote."""

from pathlib import Path

import pytest
import yaml

from metarl.config_files import load_config, make_config
from metarl.config_upgrade import KEYS, SECTIONS, renamed_key, upgrade
from metarl.core.schema_keys import by_path
from metarl.runs.run import Run

GOLDEN = Path(__file__).parent / "golden"


def read(name: str) -> dict:
    return yaml.safe_load((GOLDEN / name).read_text())


def test_the_config_of_an_old_run():
    """The one of a shipped run, as it was written, and as it reads today."""
    upgraded = upgrade(read("config-format2.yaml"))
    assert upgraded == read("config-format2-upgraded.yaml")
    config = make_config(upgraded, "old", {})
    assert config.agent.inner.test_lr_schedule == "halving"  # as evaluation always did
    changed = {"preconditioner": "none", "cg_steps": 10, "jacobian_fraction": 1.0}
    overrides = {f"agent.outer.{name}": value for name, value in changed.items()}
    assert config.replace(method="cavia_tuned", seed=0, threads=0) == load_config(
        "half_cheetah_vel/cavia_tuned", **{"tracking.mode": "disabled", **overrides}
    )


def test_a_run_from_before_the_preconditioner_goes_on_without_it():
    """In all forms of the config; only TRPO has one."""
    earlier = {"preconditioner": "none", "cg_steps": 10, "jacobian_fraction": 0.5}
    trpo, ppo = {"update": "trpo", "cg_steps": 7}, {"update": "ppo"}
    for outer, expected in ((trpo, {**earlier, **trpo}), (ppo, ppo)):
        for form in ({"agent": {"kind": "maml", "outer": outer}}, {"outer": outer}):
            upgraded = upgrade({"env": {"family": "point_nav"}, **form})
            assert upgraded["agent"] == {"kind": "maml", "outer": expected}
    assert upgrade({"agent": {"outer": {}}}) == {"agent": {"outer": earlier}}
    today = {"preconditioner": "kfac"}
    assert upgrade({"agent": {"outer": today}}) == {"agent": {"outer": today}}


def test_the_config_of_a_runs_folder_means_what_it_meant(tmp_path):
    """Also where it begins another run, as the commands of a report do; a copy is a new config."""
    folder = Path(__file__).parents[1] / "docs/results/runs/half_cheetah_dir-maml_trpo_tuned"
    again = load_config(folder / "config.yaml")
    assert again == Run.open(folder).config
    assert again.agent.outer.preconditioner == "none"
    copy = tmp_path / "config.yaml"
    copy.write_text((folder / "config.yaml").read_text())
    assert load_config(copy).agent.outer.preconditioner == "kfac"


OLD_AND_NEW = [
    ({"num_tasks": 3}, {"sampling.num_tasks": 3}),
    ({"num_episodes": 4}, {"sampling.num_episodes": 4}),
    ({"inner_steps": 2}, {"sampling.adaptation_steps": 2}),
    ({"tasks_per_chunk": 5}, {"agent.tasks_per_microbatch": 5}),
    ({"policy": {"hidden": [7]}}, {"agent.policy.hidden": [7]}),
    ({"returns": {"discount": 0.9}}, {"agent.returns.discount": 0.9}),
    ({"inner": {"lr": 0.3}}, {"agent.inner.lr": 0.3}),
    ({"inner": {"lr_slope": 0.5}}, {"agent.inner.loss_scaled_lr": 0.5}),
    (
        {"inner": {"adapts": "context", "code_size": 3}},
        {"agent.inner.adapts": "context", "agent.inner.context_dim": 3},
    ),
    (
        {"inner": {"adapts": "latent", "code_size": 3}},
        {"agent.inner.adapts": "latent", "agent.inner.latent_dim": 3},
    ),
    (
        {"inner": {"surrogate": "log_likelihood", "exploration": 1.0}},
        {"agent.inner.surrogate": "log_likelihood", "agent.inner.emaml_weight": 1.0},
    ),
    ({"inner": {"start_weight": 1.0}}, {"agent.inner.pre_adaptation_weight": 1.0}),
    ({"inner": {"rule": "layer_step_sizes"}}, {"agent.inner.rule": "lslr"}),
    ({"inner": {"rule": "meta_sgd"}}, {"agent.inner.rule": "meta_sgd"}),
    (
        {"outer": {"update": "gradient", "lr": 0.01}},
        {"agent.outer.update": "adam", "agent.outer.lr": 0.01},
    ),
    (
        {"outer": {"update": "ppo", "start_kl_weight": 0.1}},
        {"agent.outer.update": "ppo", "agent.outer.inner_kl_weight": 0.1},
    ),
    ({"seed": 3, "tracking": {"mode": "disabled"}}, {"seed": 3, "tracking.mode": "disabled"}),
]


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
def test_every_old_name_has_a_new_one(old, new):
    """All values arrive under today's names, and today's config takes them."""
    upgraded = upgrade({"env": {"family": "point_nav"}, **old})
    found = by_path(upgraded)
    if "agent" in upgraded:
        assert found.pop("agent.kind") == "maml"
    assert found == {"env.family": "point_nav", **new}
    assert make_config(upgraded, "old", {})


def test_the_cases_above_are_all_there_are():
    paths = {path for old, _ in OLD_AND_NEW for path in by_path(old)}
    assert paths >= KEYS.keys() - {"inner_lr_schedule"}  # a flag that was no key
    assert {path.partition(".")[0] for path in paths} >= SECTIONS.keys()


@pytest.mark.parametrize(
    ("env", "steps", "adapts"),
    [
        ({"observe_task": True}, 0, "nothing"),
        ({"observe_task": True}, 1, "all"),
        ({"observe_task": False}, 0, "all"),
        ({}, 0, "all"),
    ],
)
def test_an_oracle_does_not_adapt(env, steps, adapts):
    """A policy that was told the task and trained without adaptation; no other policy."""
    old = {"env": {"family": "point_nav", **env}, "inner_steps": steps, "inner": {"lr": 0.2}}
    config = make_config(upgrade(old), "old", {})
    assert (config.agent.inner.adapts, config.agent.inner.lr) == (adapts, 0.2)


def test_the_config_of_today_stays_as_it_is():
    values = load_config("point_nav/emaml").to_dict()
    assert upgrade(values) == values
    assert upgrade({}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"inner": 3},
        {"inner": None, "num_tasks": 2},
        {"policy": [1], "inner": {"adapts": ["latent"], "code_size": {}}},
        {3: 4},
        {"env": 3, "inner_steps": "0"},
        {"inner": {3: 4}},
        {"inner": {"rule": ["layer_step_sizes"]}},
    ],
)
def test_wrong_values_are_kept_to_be_refused(wrong):
    """By the config's own check, in one line: an upgrade never fails."""
    upgraded = upgrade(wrong)
    with pytest.raises(ValueError, match="old: "):
        make_config({"env": {"family": "point_nav"}, **upgraded}, "old", {})


def test_names_of_keys():
    assert renamed_key("inner.lr_slope") == "agent.inner.loss_scaled_lr"
    assert renamed_key("inner.lr") == "agent.inner.lr"
    assert renamed_key("inner") == "agent.inner"
    assert renamed_key("agent.inner.lr") is None
    assert renamed_key("env.num_tasks") is None
    assert renamed_key("seed") is None
