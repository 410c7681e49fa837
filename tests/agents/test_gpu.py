"""Every kind of agent on a GPU, or on a stand-in for one."""

from types import SimpleNamespace

import pytest
import torch

import metarl
from metarl.evaluation.compare import evaluate_run
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from tests.agents.stand_in_gpu import DEVICE, StandIn

SMALL = {"env.horizon": 6, "num_tasks": 3, "threads": 1, "tracking.trackers": "none"}
PPO = {"agent.update.epochs": 1, "agent.update.minibatches": 2}
AGENTS = {
    "maml_trpo": {},
    # Ten products without a preconditioner are more than 72 steps determine.
    "maml_trpo_tuned": {"num_episodes": 4, "agent.outer.cg_steps": 2},
    "maml_ppo": {"num_episodes": 4},
    "maml_ppo with a critic": {
        "num_episodes": 4,
        "agent.critic.epochs": 1,
        "agent.running_observations": True,
        "agent.outer.minibatches": 2,
    },
    "dice_maml": {"num_episodes": 4},
    "promp": {"num_episodes": 4},
    "cavia": {"num_episodes": 4},
    "leo": {"num_episodes": 4},
    "meta_lstm": {"num_episodes": 4},
    "reptile": {"num_episodes": 4},
    "continual_meta_sgd": {"num_episodes": 2, "num_tasks": 5},
    "rl2": PPO,
    "varibad": {
        **PPO,
        "agent.model.updates": 2,
        "agent.decoder.state_weight": 1.0,
        "agent.decoder.task_weight": 1.0,
        "agent.policy.hypernetwork": True,
    },
    "pearl": {
        "agent.update.gradient_steps": 2,
        "agent.update.warmup_iterations": 0,
        "agent.update.context": 4,
    },
}
"""Settings of a small training, by the config of `point_nav`."""
LARGER = {"num_tasks": 6, "env.horizon": 12}


@pytest.fixture
def stand_in(monkeypatch):
    def device(name):
        return DEVICE if name.startswith("cuda") else torch.device(name)

    for module in ("metarl.config", "metarl.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.torch", SimpleNamespace(device=device))
    for module in ("metarl.agents", "metarl.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.is_available", lambda _: True)
    with StandIn() as active:
        yield active


@pytest.fixture(params=["stand_in", pytest.param("cuda", marks=pytest.mark.cuda)])
def gpu(request):
    """The devices that the tests run on, under the name of `cuda`."""
    if request.param == "stand_in":
        request.getfixturevalue("stand_in")


def small(method, **values):
    name = f"point_nav/{method.partition(' ')[0]}"
    return metarl.load_config(name, **{**SMALL, **AGENTS[method], **values})


def trained(directory, config):
    """The agent's state after the training of a config."""
    return Run.open(train(config, directory).directory).load().agent


@pytest.mark.parametrize("method", AGENTS)
def test_an_iteration_on_a_gpu_is_that_of_a_cpu(method, gpu, tmp_path):
    """But for rounding. Then the run goes on from its checkpoint, and is evaluated."""
    config = small(method, iterations=1)
    expected = trained(tmp_path / "cpu", config)
    found = trained(tmp_path / "gpu", small(method, iterations=1, device="cuda"))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(AssertionError):  # it has learned
        torch.testing.assert_close(found, config.make_agent().state_dict(), rtol=1e-3, atol=1e-4)
    run = resume(tmp_path / "gpu", iterations=2)
    assert len(run.metrics()) == 2
    results, _ = evaluate_run(tmp_path / "gpu", tasks=2, episodes=2, steps=1)
    (result,) = results.values()
    assert result.returns.shape[:2] == (2, 2)


@pytest.mark.parametrize(
    ("method", "fixed", "more"),
    [
        ("maml_trpo", {"agent.outer.line_search_steps": 1}, LARGER),
        ("promp", {}, LARGER),
        ("maml_ppo with a critic", {}, LARGER),
        ("rl2", {}, LARGER),
        ("rl2", {}, {"agent.update.epochs": 3}),
        ("varibad", {}, LARGER),
        ("varibad", {}, {"agent.model.updates": 4}),
        ("pearl", {}, LARGER),
        ("pearl", {}, {"agent.update.gradient_steps": 4}),
    ],
)
def test_the_cpu_waits_as_often_for_a_larger_iteration(method, fixed, more, stand_in, tmp_path):
    """It waits for the numbers of an iteration together, and all data are in page-locked memory."""
    counts = []
    for number, values in enumerate((fixed, {**fixed, **more})):
        stand_in.counts.clear()
        config = small(method, iterations=1, device="cuda", **values)
        train(config, tmp_path / str(number))
        counts.append(dict(stand_in.counts))
    one, other = counts
    assert one["operations"] > 1000
    assert one["waits"] == other["waits"]
    assert one["slow uploads"] == other["slow uploads"]


def test_the_stand_in_refuses_what_a_gpu_refuses(stand_in):
    on_cpu = torch.ones(3)
    moved = on_cpu.to(DEVICE)
    assert (moved * torch.tensor(2.0)).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match=r"tensors of the CPU, .*, and of the stand-in"):
        moved + on_cpu
    with pytest.raises(RuntimeError, match="numpy"):
        moved.numpy()


def test_the_stand_in_counts_what_the_cpu_waits_for(stand_in):
    moved = torch.arange(3.0).pin_memory().to(DEVICE, non_blocking=True)
    assert stand_in.counts == {"uploads": 1, "operations": 1}
    moved = moved + torch.ones(3).to(DEVICE)
    assert stand_in.counts == {"uploads": 1, "slow uploads": 1, "operations": 3}
    float(moved.sum())
    moved[moved > 1]
    moved.cpu()
    assert stand_in.counts["waits"] == 3
