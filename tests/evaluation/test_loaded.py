"""metarl.load: what it returns is the agent of the run, with `adapt_to`."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.optional import has_beliefs, has_policy_module, keeps_episodes
from metarl.evaluation.compare import evaluate_run
from tests.evaluation.tiny_runs import KINDS, make_env, train_tiny

SMALL_REPLAY = {"agent": {**KINDS["pearl"]["agent"], "replay_size": 1000}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return train_tiny(
        {**{kind: KINDS[kind] for kind in ("maml", "varibad")}, "pearl": SMALL_REPLAY},
        tmp_path_factory.mktemp("runs"),
    )


@pytest.mark.parametrize("kind", ["maml", "varibad"])
def test_it_is_the_agent_of_the_run(runs, kind):
    """With the same results of an evaluation, and those optional methods that the agent has."""
    run = runs[kind]
    loaded, agent = metarl.load(run.directory), run.config.make_agent(run.load().agent)
    sizes = {"tasks": 2, "episodes": 2, "steps": 2, "deterministic": True}
    one, other = (metarl.evaluate(each, run.config.env, **sizes) for each in (loaded, agent))
    np.testing.assert_array_equal(one.returns, other.returns)
    for has in (has_beliefs, has_policy_module, keeps_episodes):
        assert has(loaded) == has(agent)
    for name in ("device", "max_adaptations", "remembers", "max_update_kl"):
        assert getattr(loaded, name) == getattr(agent, name)
    assert {"adapt_to", *dir(agent)} <= {*dir(loaded)}
    assert repr(loaded) == f"<{type(agent).__name__} of {run.directory}>"
    with pytest.raises(AttributeError):
        _ = loaded.no_such_method


def test_it_stays_as_it_is_when_it_adapts(runs):
    agent = metarl.load(runs["maml"].directory)
    before = agent.state_dict()
    first, second = (agent.adapt_to(make_env(runs["maml"]), episodes=3) for _ in range(2))
    assert first.returns == second.returns
    obs = np.ones((4, 2))
    actions = [each.predict(obs, deterministic=True)[0] for each in (first, second)]
    np.testing.assert_array_equal(*actions)
    after = copy.deepcopy(agent).state_dict()
    for name, value in before.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[name]))


def test_a_checkpoint_may_be_a_number(runs):
    run = runs["maml"]
    assert run.load(1).iteration == run.load("1").iteration == 1
    agent, latest = metarl.load(run.directory, 1), metarl.load(run.directory)
    name = "params.weight0"
    assert torch.equal(agent.state_dict()[name], latest.state_dict()[name])
    with pytest.raises(metarl.UserError, match="there is no such checkpoint"):
        metarl.load(run.directory, 7)


def test_other_things_than_agents_families_and_configs_are_one_line(runs):
    run = runs["maml"]
    agent, family = metarl.load(run.directory), run.config.env
    for call, words in (
        (lambda: metarl.train("point_nav/maml_trpo"), "config: expected what metarl.load_config"),
        (lambda: metarl.evaluate(run.directory, family), "agent: expected a meta-agent, such as"),
        (lambda: metarl.evaluate(agent, "point_nav"), "family: expected a task family, such as"),
        (lambda: metarl.render(agent, run, [1.0], steps=1, out="a.gif"), "family: expected"),
        (lambda: metarl.render(agent, family, [0.5], out=None), "out: expected a path, got None"),
        (lambda: metarl.evaluate(agent, family, deterministic=1), "deterministic: expected True"),
        (lambda: agent.adapt_to("Ant-v5"), "env: expected a Gymnasium environment, such as"),
    ):
        with pytest.raises(metarl.UserError, match=words) as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("horizon", [1, 500])
def test_settings_of_training_need_not_fit_another_horizon(runs, tmp_path, horizon):
    """PEARL's context has more steps than a task of horizon 1, its replay buffer fewer than an
    iteration of horizon 500; a training is refused with either."""
    folder, changed = runs["pearl"].directory, {"env.horizon": horizon}
    with pytest.raises(metarl.UserError, match=r"agent\.(update|replay_size)[a-z._]*: expected"):
        metarl.load_config(folder / "config.yaml", **changed)
    settings = {"tasks": 2, "episodes": 2, "steps": 1}
    results, _ = evaluate_run(folder, out=tmp_path, **settings, **changed)
    agent, env = metarl.load(folder, **changed), replace(runs["pearl"].config.env, horizon=horizon)
    expected = metarl.evaluate(agent, env, **settings)
    (found,) = results.values()
    assert np.array_equal(found.returns, expected.returns)
