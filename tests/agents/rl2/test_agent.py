"""metarl.agents.rl2: acting, adapting and learning of the whole agent."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents import Rollout
from metarl.agents.recurrent.learner import encode_trials
from metarl.agents.recurrent.ppo import ppo_loss
from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.config_files import make_config
from metarl.core.errors import ConfigError
from metarl.core.params import concatenate, flatten, leaves, unflatten
from metarl.core.timer import Timer
from metarl.envs import PointNav, TabularMDP
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.protocols import PROTOCOLS
from metarl.rollout.failures import NotFinite
from metarl.training.loop import start_or_resume
from tests.agents.playing import merged, play
from tests.agents.rl2.families import Recall

SMALL = {"network": {"size": 6, "hidden": [5]}, "update": {"epochs": 2, "minibatches": 2}}
FAMILIES = {
    "point": PointNav(horizon=5, action_scale=1.0, ends_at_goal=False),
    "mdp": TabularMDP(horizon=4, num_states=3, num_actions=3),
}


each_cell = pytest.mark.parametrize("cell", ["gru", "lstm"])
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def make(family, num_episodes=2, adaptation_steps=1, threads=1, **agent) -> Config:
    return Config(
        env=family,
        agent={"kind": "rl2", **merged(SMALL, agent)},
        sampling={
            "num_tasks": 4,
            "num_episodes": num_episodes,
            "adaptation_steps": adaptation_steps,
        },
        threads=threads,
    )


def updated(config: Config, iterations=2):
    agent = config.make_agent()
    for iteration in range(iterations):
        rollouts = play(config, agent, iteration=iteration)
        metrics = agent.update(rollouts, np.random.default_rng(iteration), Timer())
    return agent, metrics


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def learned_trials(agent, rollouts):
    """The trials of rollouts, and what the learner's network says on them as a whole; its memory at
    their ends is that of acting."""
    trials = join_episodes([episodes for _, episodes in rollouts])
    inputs, _ = encode_trials(agent.encoder, trials)
    start = torch.zeros(len(inputs), agent.network.memory_size)
    found = agent.network(agent.params, torch.from_numpy(inputs), start)
    last = rollouts[-1].episodes.memory.reshape(len(inputs), -1)
    np.testing.assert_allclose(found.memory[:, -1].detach(), last, atol=1e-6)
    return trials, found


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("bound", ["clip", "tanh"])
@pytest.mark.parametrize("hypernetwork", [False, True])
def test_acting_is_the_learners_network(cell, family, bound, hypernetwork):
    """NumPy in rollouts, step by step over the episodes of a trial, and torch on whole trials: the
    memories and, for chosen actions, the distributions."""
    if bound == "tanh" and family.action_space.__class__.__name__ == "Discrete":
        return
    network = {"cell": cell, "action_bound": bound, "hypernetwork": hypernetwork}
    config = make(family, adaptation_steps=2, network=network)
    agent, _ = updated(config)
    rollouts = play(config, agent)
    trials, found = learned_trials(agent, rollouts)
    # Without noise actions are the mean, or the mode, of the learner's distribution.
    state = rollouts[-1].state
    actor = agent.actor(state, deterministic=True)
    obs = rollouts[-1].episodes.obs[:, :, 0]
    action = actor.act(obs, np.float32(9.0), np.zeros(obs.shape[:2]), np.ones(obs.shape[:2], bool))
    first = np.argwhere(trials.begins_anew)[1, 1]  # of the third episode
    outputs = found.policy.outputs[0][:, first].detach().numpy()
    if family.action_space.__class__.__name__ == "Discrete":
        outputs = outputs.argmax(-1)[:, None]
    np.testing.assert_allclose(action.reshape(len(outputs), -1), outputs, atol=1e-6)


@each_cell
def test_a_trial_goes_over_a_sequence_of_tasks_and_back(cell):
    """The learner's memory over whole trials is that of acting, after all phases."""
    family = FAMILIES["point"]
    config = make(family, network={"cell": cell})
    agent, _ = updated(config)
    tasks = family.tasks("train", 8).reshape(4, 2, 2)
    rollouts = play(config, agent, tasks=tasks)
    assert len(rollouts) == 5
    for before, after in itertools.pairwise(rollouts):
        assert np.array_equal(after.state.memory, before.episodes.memory)
    assert np.array_equal(rollouts[-1].episodes.tasks, tasks[:, 0])
    learned_trials(agent, rollouts)
    assert "outer_kl" in agent.update(rollouts, np.random.default_rng(0), Timer())


@each_cell
@each_family
def test_the_memory_is_carried_within_a_trial_and_empty_before_it(cell, family):
    config = make(family, network={"cell": cell})
    agent, _ = updated(config)
    first, second = play(config, agent)
    assert not first.state.memory.any()
    assert not first.state.anew.any()
    assert np.array_equal(second.state.memory, first.episodes.memory)
    assert second.state.anew.all()
    action = agent.encoder.encode_action(first.episodes.action[:, :, -1])
    assert np.array_equal(second.state.action, action)
    assert np.array_equal(second.state.reward, first.episodes.reward[:, :, -1])
    assert not np.array_equal(second.episodes.memory, first.episodes.memory)


@each_cell
@each_family
def test_other_tasks_leave_no_trace_in_a_trial(cell, family):
    config = make(family, network={"cell": cell})
    agent, _ = updated(config)
    tasks = config.env.tasks("train", 4)
    moved = tasks.copy()
    moved[1] = config.env.tasks("test", 1)
    one, other = (play(config, agent, each)[-1] for each in (tasks, moved))
    for name in ("memory", "reward"):
        same = [
            np.array_equal(getattr(one.state, name)[i], getattr(other.state, name)[i])
            for i in range(4)
        ]
        assert same == [True, False, True, True], name


@each_cell
@each_family
def test_the_data_of_a_trial_is_its_own(cell, family):
    """In learning: other observations and rewards of a trial change nothing of the others but the
    mean and standard deviation of the advantages."""
    config = make(family, adaptation_steps=2, network={"cell": cell})
    agent, _ = updated(config)
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    obs, reward = trials.obs.copy(), trials.reward.copy()
    obs[3], reward[3] = 1 - obs[3], 1 - reward[3]
    found = []
    for each in (trials, replace(trials, obs=obs, reward=reward)):
        inputs = encode_trials(agent.encoder, each)
        batch, _ = agent._learner.batch(agent.params, each, *inputs, 0.7)
        found.append({name: value for name, value in batch.tensors.items() if name != "advantage"})
    others = torch.arange(8) != 3
    for name, value in found[0].items():
        assert torch.equal(value[others], found[1][name][others]), name
    for name in ("inputs", "log_prob", "target"):
        assert not torch.equal(found[0][name][3], found[1][name][3]), name


@each_cell
@each_family
@pytest.mark.parametrize("update", [{}, {"truncate": 3}], ids=["whole", "truncated"])
def test_steps_that_did_not_take_place_change_nothing(cell, family, update):
    """In learning: whatever was observed and done after the end of an episode. Rewards are 0."""
    config = make(family, network={"cell": cell}, update=update)
    agents = [updated(config, 1)[0] for _ in range(2)]
    rng = np.random.default_rng(0)
    rollouts = play(config, agents[0], iteration=1)
    for _, episodes in rollouts:
        episodes.mask[1:3, 0, 2:] = False
        episodes.mask[3, :, 1:] = False
        episodes.reward[~episodes.mask] = 0
    agents[0].update(rollouts, np.random.default_rng(0), Timer())
    for _, episodes in rollouts:
        gone = ~episodes.mask
        assert gone.sum() >= 10
        episodes.obs[gone] = rng.normal(size=(gone.sum(), episodes.obs.shape[-1]))
        episodes.action[gone] = 1
    agents[1].update(rollouts, np.random.default_rng(0), Timer())
    assert_same(agents[0].state_dict(), agents[1].state_dict())


@each_cell
def test_an_episode_that_has_ended_changes_nothing(cell):
    """In acting: the memory stands still, whatever is observed after the end."""
    config = make(FAMILIES["point"], network={"cell": cell})
    agent = config.make_agent()
    actor = agent.actor(agent.initial_state(1))
    shape, noise = (1, 2), np.zeros((1, 2, 2), np.float32)
    rng = np.random.default_rng(0)
    both, one = np.ones(shape, bool), np.array([[True, False]])
    actor.act(np.float32(rng.normal(size=(1, 2, 2))), noise, np.zeros(shape), both)
    before = actor.memory.copy()
    actor.act(np.float32(rng.normal(size=(1, 2, 2))), noise, np.ones(shape), one)
    assert not np.array_equal(actor.memory[0, 0], before[0, 0])
    assert np.array_equal(actor.memory[0, 1], before[0, 1])


@each_cell
@each_family
def test_an_episode_that_was_left_out_leaves_the_state_as_it_was(cell, family):
    config = make(family, network={"cell": cell})
    agent = config.make_agent()
    state, episodes = play(config, agent)[0]
    lost = episodes.mask.copy()
    lost[1, 0] = False
    after = agent.adapt(state, type(episodes)(**{**episodes.arrays, "mask": lost}))
    assert not after.memory[1, 0].any()
    assert not after.anew[1, 0]
    assert np.array_equal(after.memory[1, 1], episodes.memory[1, 1])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_gradient_of_the_loss_goes_through_the_whole_trial(family, cell):
    """Against central differences in float64, in a direction for each parameter."""
    config = make(family, adaptation_steps=2, network={"cell": cell})
    agent, _ = updated(config)
    params = {name: value.double() for name, value in agent.params.items()}
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    inputs = encode_trials(agent.encoder, trials)
    batch, _ = agent._learner.batch(params, trials, *inputs, 0.7)
    settings = config.agent.update.replace(clip=0.5, entropy_weight=0.1)

    def loss(vector):
        start = unflatten(vector, params)
        predictions = agent.network(start, batch.inputs, batch.memory)
        return ppo_loss(predictions, batch, settings)[0]

    start = leaves({"all": flatten(params) + 0.01})["all"]
    (gradient,) = torch.autograd.grad(loss(start), start)
    rng = np.random.default_rng(0)
    for name in params:
        direction = {
            other: torch.from_numpy(rng.standard_normal(value.shape)) * (other == name)
            for other, value in params.items()
        }
        v = concatenate(direction.values())
        eps = 1e-5 / float(v.norm())
        with torch.no_grad():
            expected = float(loss(start + eps * v) - loss(start - eps * v)) / (2 * eps)
        assert float(gradient @ v) == pytest.approx(expected, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("agent", [{}, {"update": {"truncate": 3}}], ids=["whole", "truncated"])
@each_cell
@each_family
def test_threads_do_not_change_a_bit(cell, family, agent):
    settings = {"num_episodes": 12, "network": {"cell": cell}, **agent}
    one, two = (updated(make(family, threads=threads, **settings)) for threads in (1, 2))
    assert_same(one[0].state_dict(), two[0].state_dict())
    assert one[1] == two[1]


@each_cell
def test_truncation_at_the_end_of_a_trial_truncates_nothing(cell):
    settings = {"network": {"cell": cell}}
    whole, long, short = (
        updated(make(FAMILIES["point"], update={"truncate": steps}, **settings), 1)[0]
        for steps in (0, 10, 4)
    )
    assert_same(whole.state_dict(), long.state_dict())
    for name, value in whole.params.items():
        if "value" in name:
            assert not torch.equal(value, short.params[name]), name


@each_cell
def test_segments_have_the_memory_of_their_trial(cell):
    """So that what they say is what the whole trial says; the last segment is padded."""
    config = make(FAMILIES["point"], update={"truncate": 4}, network={"cell": cell})
    agent, _ = updated(config)
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    inputs = encode_trials(agent.encoder, trials)
    batch, _ = agent._learner.batch(agent.params, trials, *inputs, 1.0)
    assert batch.segments == 3
    assert batch.inputs.shape[:2] == (8 * 3, 4)
    found = agent.network(agent.params, batch.inputs, batch.memory)
    start = torch.zeros(8, agent.network.memory_size)
    whole = agent.network(agent.params, torch.from_numpy(inputs[0]), start)
    joined = found.value.unflatten(0, (8, 3)).flatten(1)[:, :10]
    torch.testing.assert_close(joined, whole.value)
    assert batch.weight.unflatten(0, (8, 3)).flatten(1)[:, 10:].sum() == 0
    assert batch.rows_of(torch.tensor([2, 0])).tolist() == [6, 7, 8, 0, 1, 2]


@each_cell
@each_family
def test_a_checkpoint_has_all_that_learning_needs(cell, family):
    config = make(family, network={"cell": cell})
    agent, _ = updated(config, 3)
    half, _ = updated(config, 2)
    resumed = config.make_agent(half.state_dict())
    assert_same(resumed.state_dict(), half.state_dict())
    resumed.update(play(config, resumed, iteration=2), np.random.default_rng(2), Timer())
    assert_same(resumed.state_dict(), agent.state_dict())


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    values = {"env": {"family": "tabular_mdp", "horizon": 4}, "agent": {"kind": "rl2", **SMALL}}
    overrides = {"num_tasks": 3, "num_episodes": 2, "tracking.mode": "disabled"}
    whole = metarl.train(
        make_config(values, "test", {**overrides, "iterations": 4}), tmp_path / "a"
    )
    half = metarl.train(make_config(values, "test", {**overrides, "iterations": 2}), tmp_path / "b")
    start_or_resume(whole.config, half.directory)
    one, two = (metarl.load(run.directory).state_dict() for run in (whole, half))
    assert_same(one, two)
    assert (whole.directory / "metrics.jsonl").read_text() == (
        half.directory / "metrics.jsonl"
    ).read_text()


def test_step_sizes_go_to_zero():
    config = make(FAMILIES["mdp"], update={"lr": 0.1, "lr_anneal": 2})
    assert updated(config, 1)[1]["lr"] == 0.1
    agent, metrics = updated(config, 2)
    assert metrics["lr"] == 0.05
    before = flatten(agent.params).clone()
    metrics = agent.update(play(config, agent), np.random.default_rng(0), Timer())
    assert metrics["lr"] == 0.0
    assert torch.equal(flatten(agent.params), before)


def test_the_weight_of_the_entropy_goes_to_zero():
    def params(num_updates, **update):
        config = make(FAMILIES["mdp"], update=update)
        return flatten(updated(config, num_updates)[0].params)

    annealed = {"entropy_weight": 0.5, "entropy_anneal": 1}
    assert torch.equal(params(1, **annealed), params(1, entropy_weight=0.5))
    assert not torch.equal(params(2, **annealed), params(2, entropy_weight=0.5))
    # From the second update on it is 0
    config = make(FAMILIES["mdp"], update=annealed)
    agent, _ = updated(config, 1)
    plain = make(FAMILIES["mdp"], update={"entropy_weight": 0.0}).make_agent()
    plain.load_state_dict(agent.state_dict())
    for each in (agent, plain):
        each.update(play(config, each), np.random.default_rng(0), Timer())
    assert torch.equal(flatten(agent.params), flatten(plain.params))


def test_without_normalisation_there_are_no_moments():
    config = make(FAMILIES["mdp"], running_observations=False, running_rewards=False)
    agent, _ = updated(config)
    kinds = {name.split(".")[0] for name in agent.state_dict()}
    assert kinds == {"params", "adam", "num_updates"}


@each_cell
@each_family
def test_an_update_that_is_not_finite_changes_nothing(cell, family):
    config = make(family, network={"cell": cell})
    agent, _ = updated(config)
    before = agent.state_dict()
    rollouts = play(config, agent)
    rollouts[0].episodes.obs[0, 0, 0] = np.nan
    with pytest.raises(NotFinite, match="gradient of the loss"):
        agent.update(rollouts, np.random.default_rng(0), Timer())
    assert_same(agent.state_dict(), before)
    for _, episodes in rollouts:
        episodes.mask[:] = False
    with pytest.raises(NotFinite, match="no trials"):
        agent.update(rollouts, np.random.default_rng(0), Timer())


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ({"network": {"size": 0}}, r"agent\.network\.size: expected between 1 and 4096, got 0"),
        (
            {"network": {"cell": "lstm", "size": 0}},
            r"agent\.network\.size: expected between 1 and 4096, got 0",
        ),
        ({"network": {"cell": "rnn"}}, r"agent\.network\.cell: expected one of gru, lstm"),
        ({"inner": {"lr": 1.0}}, r"agent\.inner: unknown key where agent\.kind is rl2"),
        (
            {"network": {"action_bound": "tanh"}},
            r"agent\.network\.action_bound: discrete actions have no bound",
        ),
    ],
)
def test_bad_settings_are_one_line(agent, expected):
    with pytest.raises(ConfigError, match=expected):
        make(FAMILIES["mdp"], **agent)


def test_discrete_actions_have_no_standard_deviation():
    expected = r"agent\.network\.init_std: expected 1 with discrete actions, .* got 0\.3"
    with pytest.raises(ConfigError, match=expected):
        make(FAMILIES["mdp"], network={"init_std": 0.3}).make_agent()


@pytest.mark.parametrize(
    ("network", "found"),
    [
        ({"size": 2000}, "size: .*, got 2000"),
        ({"size": 4, "hidden": [3000, 3000]}, r"hidden: .*, got \(3000, 3000\)"),
    ],
)
def test_a_network_that_no_machine_trains_is_refused(network, found):
    """Before its weights are drawn, by the key of the largest part."""
    config = make(FAMILIES["mdp"], network=network)
    with pytest.raises(ConfigError, match=rf"^agent\.network\.{found}$") as error:
        config.make_agent()
    assert "expected layers of at most 10,000,000 weights together" in str(error.value)


@each_cell
def test_a_first_observation_is_recalled(cell):
    """No policy without a memory gets more than half of the rewards."""
    config = make(
        Recall(),
        num_episodes=16,
        adaptation_steps=0,
        network={"cell": cell, "size": 16, "hidden": []},
        update={"lr": 0.01, "epochs": 4, "minibatches": 4},
    )
    agent = config.make_agent()
    for iteration in range(40):
        rollouts = play(config, agent, iteration=iteration)
        agent.update(rollouts, np.random.default_rng(iteration), Timer())
    assert play(config, agent, iteration=1000)[0].episodes.returns.mean() > 0.95


def test_observations_that_are_normalised_by_constants_leave_the_memory(tmp_path):
    """The wrapper around the actor hands the memory on."""
    config = make(FAMILIES["point"], normalize_observations=True, running_observations=False)
    agent, _ = updated(config)
    first, second = play(config, agent)
    assert np.array_equal(second.state.memory, first.episodes.memory)
    with pytest.raises(ConfigError, match="running_observations: expected false with normalize"):
        make(FAMILIES["point"], normalize_observations=True)


def test_experience_is_counted_in_the_episodes_of_a_trial():
    """`few_episode` plays a trial on and on: its columns are those of `k_step`."""
    agent, _ = updated(config := make(FAMILIES["mdp"]))
    settings = EvaluationConfig(tasks=3, episodes=2, steps=10, trials=2)
    few = PROTOCOLS["few_episode"](agent, config.env, settings)[""]
    steps = PROTOCOLS["k_step"](agent, config.env, replace(settings, steps=20))[""]
    assert few.x == (0, 1, 2, 3, 5, 10, 20)
    assert few.x_label == "episodes of experience"
    assert np.array_equal(few.returns, steps.returns[:, few.x])


def test_tasks_have_weights():
    """An update where two tasks weigh 2 and two 0 is that of the two alone; other weights give
    another update. The running moments are of all tasks."""
    raw = {"running_observations": False, "running_rewards": False}
    config, agents = make(FAMILIES["point"], **raw), []
    for weights in ([2.0, 0, 2, 0], None, [2.0, 0, 1, 0]):
        agent = config.make_agent()
        rollouts = play(config, agent)
        if weights is None:
            rollouts = [Rollout(s, e.of_tasks(np.array([0, 2]))) for s, e in rollouts]
        else:
            state, episodes = rollouts[-1]
            rollouts[-1] = Rollout(state, replace(episodes, task_weight=np.array(weights)))
        agent.update(rollouts, np.random.default_rng(0), Timer())
        agents.append(flatten(agent.params))
    torch.testing.assert_close(agents[0], agents[1])
    assert float((agents[2] - agents[0]).norm()) > 1e-5
    agent = make(FAMILIES["point"]).make_agent()
    rollouts = play(config, agent)
    state, episodes = rollouts[-1]
    rollouts[-1] = Rollout(state, replace(episodes, task_weight=np.array([2.0, 0, 2, 0])))
    agent.update(rollouts, np.random.default_rng(0), Timer())
    steps = sum(episodes.num_steps for _, episodes in rollouts)
    assert {name: int(each.count) for name, each in agent._moments.items()} == dict.fromkeys(
        ("observations", "rewards", "returns"), steps
    )
