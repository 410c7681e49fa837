"""AdaptedAgent.to_torch and to_onnx: the adapted policy acts alike without the agent."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import RescaleAction

import metarl
from metarl.agents.pearl.module import LatentModule
from metarl.config_files import make_config
from metarl.core.errors import UserError
from metarl.core.policy_module import PolicyStep
from metarl.evaluation.adapted import AdaptedAgent
from metarl.evaluation.export import EnvPolicy, write_onnx
from metarl.evaluation.live_env import ActionUnits
from tests.evaluation.tiny_runs import KINDS, POINT, TASK, episode, make_env, train_tiny

ADAPTS = {
    name: {"agent": {"policy": {"hidden": [5]}, "inner": {"adapts": name}}}
    for name in ("head", "context", "latent")
}
RL2 = {"kind": "rl2", "network": {"size": 5, "cell": "lstm", "hidden": [4], "action_bound": "tanh"}}
VARIANTS = {
    **KINDS,
    **ADAPTS,
    "bias_transform": {
        "agent": {
            "policy": {
                "hidden": [5, 4],
                "activation": "relu",
                "bias_transform": [3.0],
                "obs_scale": [2.0, 0.5],
            },
        }
    },
    "normalized": {"agent": {"policy": {"hidden": [5]}, "normalize_observations": True}},
    "lstm": {"agent": RL2},
    "plain_rl2": {
        "agent": {
            **KINDS["rl2"]["agent"],
            "running_observations": False,
            "running_rewards": False,
            "normalize_observations": True,
        }
    },
    "gridworld_rl2": {**KINDS["gridworld"], **KINDS["rl2"]},
    "hyper_rl2": {"agent": {**RL2, "network": {**RL2["network"], "hypernetwork": True}}},
    "hyper_varibad": {
        "agent": {**KINDS["varibad"]["agent"], "policy": {"hidden": [3], "hypernetwork": True}}
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return train_tiny(VARIANTS, tmp_path_factory.mktemp("runs"))


def adapt(run, env=None):
    return metarl.load(run.directory).adapt_to(env or make_env(run), episodes=2)


def env_of(run):
    """The run's environment, for continuous actions with bounds of its own."""
    env = make_env(run)
    if run.config.env.name == "gridworld":
        return env
    return RescaleAction(env, np.float32([-1, 0]), np.float32([1, 3]))


def assert_equal(action, expected):
    assert action.dtype == expected.dtype
    size = max(1, np.abs(expected).max())
    np.testing.assert_allclose(action, expected, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_module_acts_as_predict(runs, kind, deterministic):
    """At random observations, over steps, with the noise that `predict` draws."""
    run = runs[kind]
    adapted = adapt(run, env_of(run))
    policy, rng = adapted.to_torch(), np.random.default_rng(5)
    drawn, expected_state, state, reward = np.random.default_rng(adapted.seed), None, None, None
    actor = adapted.agent.actor(adapted.state)
    for _ in range(4):
        obs = rng.normal(size=(3, policy.policy.obs_dim)).astype(np.float32)
        expected, expected_state = adapted.predict(
            obs, expected_state, deterministic=deterministic, reward=reward
        )
        noise = torch.from_numpy(np.stack([actor.noise(drawn, 1)[0] for _ in obs]))
        with torch.no_grad():
            step = policy(
                torch.from_numpy(obs),
                None if deterministic else noise,
                None if reward is None else torch.from_numpy(reward),
                state,
            )
        assert_equal(step.action.numpy(), expected)
        state, reward = step.state, rng.normal(size=3).astype(np.float32)
    assert (state is None) == (policy.policy.state_size == 0)


def test_actions_stay_within_the_same_bounds_too(runs):
    adapted = adapt(runs["maml"])
    policy, noise = adapted.to_torch(), torch.tensor([[100.0, -100.0]])
    action = policy(torch.ones(1, 2), noise).action
    assert action.tolist() == [[2.0, -2.0]]
    assert adapted.units.env.contains(action[0].detach().numpy())


def test_actions_of_a_space_of_integers_are_rounded(runs):
    adapted = adapt(runs["maml"])
    adapted.units = ActionUnits(adapted.units.policy, Box(0, 9, (2,), np.int32))
    obs = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    expected, _ = adapted.predict(obs, deterministic=True)
    step = adapted.to_torch()(torch.from_numpy(obs))
    assert step.action.dtype == torch.int32
    assert step.action.tolist() == expected.tolist()


def test_outputs_are_the_distribution(runs):
    """Mean and standard deviation in the policy's units, or logits."""
    adapted = adapt(runs["maml"])
    obs = torch.ones(2, 2)
    step = adapted.to_torch()(obs)
    policy = adapted.agent.policy
    found = policy(adapted.state.microbatches[0].params, obs[None])
    torch.testing.assert_close(step.outputs, found.mean[0])
    torch.testing.assert_close(step.std, found.log_std[0].exp().expand(2, -1))
    logits = adapt(runs["gridworld"]).to_torch()(torch.ones(2, 25))
    assert logits.std is None
    assert logits.outputs.shape == (2, runs["gridworld"].config.env.action_space.n)
    assert logits.action.tolist() == logits.outputs.argmax(-1).tolist()


def test_the_module_is_its_own(runs):
    """Its weights are parameters with names, and no memory of the agent's."""
    adapted = adapt(runs["maml"])
    policy = adapted.to_torch()
    before, _ = adapted.predict(np.ones(2), deterministic=True)
    names = ["policy.network.0.weight", "policy.network.0.bias"]
    assert [name for name, _ in policy.named_parameters()][:2] == names
    assert all(value.dtype == torch.float32 for value in policy.state_dict().values())
    with torch.no_grad():
        for value in policy.state_dict().values():
            value.fill_(0.5)
    assert np.array_equal(adapted.predict(np.ones(2), deterministic=True)[0], before)


def test_a_memory_needs_the_reward(runs):
    policy = adapt(runs["rl2"]).to_torch()
    step = policy(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="reward: expected the reward of the last step"):
        policy(torch.zeros(1, 2), state=step.state)


def play_onnx(session, env, seed=0):
    """The actions of an episode, by the file alone: a state of zeros begins it."""
    inputs = {each.name: each for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]
    obs, _ = env.reset(seed=seed)
    values = {
        name: np.zeros([1, *inputs[name].shape[1:]], np.float32)
        for name in inputs
        if name != "observation"
    }
    actions, ended = [], False
    while not ended:
        values["observation"] = np.float32(obs).reshape(1, -1)
        found = dict(zip(outputs, session.run(None, values), strict=True))
        actions.append(found["action"][0])
        obs, reward, terminated, truncated, _ = env.step(found["action"][0])
        ended = terminated or truncated
        if "state" in values:
            values["state"] = found["next_state"]
        if "reward" in values:
            values["reward"] = np.float32([reward])
    return np.array(actions)


@pytest.mark.parametrize(
    "kind",
    ["maml", "rl2", "lstm", "varibad", "pearl", "gridworld_rl2", "hyper_rl2", "hyper_varibad"],
)
def test_the_file_acts_as_predict(runs, kind, tmp_path):
    """Over an episode, and at any number of observations."""
    run = runs[kind]
    env = env_of(run)
    adapted = adapt(run, env)
    path = adapted.to_onnx(tmp_path / "policy.onnx")
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert_equal(play_onnx(session, env), episode(adapted, env)[1])
    for n in (1, 50):
        size = env.observation_space.shape[0]
        obs = np.random.default_rng(n).normal(size=(n, size)).astype(np.float32)
        inputs = session.get_inputs()
        zeros = {each.name: np.zeros([n, *each.shape[1:]], np.float32) for each in inputs}
        (action,) = session.run(["action"], {**zeros, "observation": obs})
        expected, _ = adapted.predict(obs, deterministic=True)
        assert_equal(action, expected.reshape(action.shape))


@pytest.mark.parametrize(("kind", "sampling"), [("maml", False), ("rl2", True), ("pearl", False)])
def test_the_file_says_what_it_is(runs, kind, sampling, tmp_path):
    run = runs[kind]
    path = adapt(run).to_onnx(str(tmp_path / "policy.onnx"), sampling=sampling)
    session = onnxruntime.InferenceSession(path)
    said = session.get_modelmeta().custom_metadata_map
    own = {"run": kind, "family": "point_nav", "method": "unnamed", "version": metarl.__version__}
    assert own.items() <= said.items()
    inputs = {"maml": ["observation"], "pearl": ["observation", "state"]}
    expected = inputs.get(kind, ["observation", "noise", "reward", "state"])
    assert [each.name for each in session.get_inputs()] == expected
    names = [each.name for each in session.get_outputs()]
    assert names == ["action", "mean", "std", *["next_state"] * (kind != "maml")]
    assert ("state" in said) == (kind != "maml")
    assert ("noise" in said) == sampling
    if sampling:  # which the noise makes
        values = {
            each.name: np.zeros([1, *each.shape[1:]], np.float32) for each in session.get_inputs()
        }
        best, _, std, _ = session.run(None, values)
        drawn, *_ = session.run(None, {**values, "noise": np.float32([[1, -2]])})
        np.testing.assert_allclose(drawn - best, std * [[1, -2]], atol=1e-6)


def test_what_cannot_be_written_is_one_line(runs, tmp_path, monkeypatch):
    adapted = adapt(runs["maml"])
    with pytest.raises(UserError, match=r"x/policy.onnx: there is no folder "):
        adapted.to_onnx(tmp_path / "x" / "policy.onnx")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(UserError, match=r'to_onnx: needs onnxscript.*"metarl-torch\[onnx\]"'):
        adapted.to_onnx(tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


class FixedRows(LatentModule):
    """A module of a user's, whose exporter takes the number of rows of its example for granted."""

    def forward(self, obs, noise=None, reward=None, state=None):
        begun, z = state[:, :1] > 0, state[:, 1:]
        z = torch.where(begun, z, self.mean.expand(len(obs), -1))
        return PolicyStep(self.network(torch.cat([obs, z], -1)), z, z, state)


def test_a_fixed_number_of_rows_is_refused(tmp_path):
    layers = [(np.ones((3, 2), np.float32), np.zeros(2, np.float32))]
    one, space = np.ones(1, np.float32), Box(-1, 1, (2,))
    module = FixedRows(layers, one, one, np.zeros(2), np.ones(2))
    policy = EnvPolicy(module, ActionUnits(space, space))
    with pytest.raises(UserError, match="to_onnx: the policy fixes the number of rows of obs"):
        write_onnx(policy, tmp_path / "x.onnx", {}, sampling=False)
    assert not list(tmp_path.iterdir())


def test_an_agent_without_a_module_says_so():
    values = {"env": POINT, "agent": {"kind": "tests.agents.mean_action:MeanActionConfig"}}
    config = make_config(values, "own", {})
    agent, space = config.make_agent(), config.env.action_space
    units = ActionUnits(space, space)
    adapted = AdaptedAgent(agent, agent.initial_state(1), config.env, units, (2,), [])
    assert adapted.predict(np.array(TASK))[0].shape == (2,)
    with pytest.raises(UserError, match="MeanActionAgent cannot be exported; expected a method"):
        adapted.to_torch()
