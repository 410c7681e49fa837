"""metarl.envs.external.meta_world: as far as it goes without Meta-World, and then with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metarl.cli.main import main
from metarl.envs import MetaWorld, TaskError, WorkerError
from metarl.envs.external import meta_world_setup
from metarl.envs.external.meta_world import NAMES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 501}, "horizon: expected at most 500"),
        ({"benchmark": "ML2"}, "benchmark: expected one of ML1, ML10, ML45, got 'ML2'"),
        ({"env_name": "reach-v2"}, r"env_name: unknown 'reach-v2' \(nearest: reach-v3"),
        ({"goal_seed": -1}, "goal_seed: expected between"),
    ],
)
def test_a_wrong_field_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MetaWorld(**fields)


def test_without_meta_world_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("METARL_HOME", str(tmp_path))
    with pytest.raises(WorkerError, match=f"no Python at {tmp_path}.*run metarl setup metaworld"):
        MetaWorld().observation_space  # noqa: B018
    with pytest.raises(WorkerError, match="no Python at /nowhere"):
        MetaWorld(python="/nowhere").tasks("test", 1)


def test_the_command_line_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("METARL_HOME", str(tmp_path))
    assert main(["train", "metaworld_ml1/maml_trpo", "--dry-run"]) == 1
    assert "run metarl setup metaworld" in capsys.readouterr().err
    assert main(["list", "families"]) == 0
    assert "metaworld" in capsys.readouterr().out


def test_setup_of_what_is_there_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("METARL_HOME", str(tmp_path))
    assert not meta_world_setup.is_installed()
    mark = tmp_path / "metaworld" / meta_world_setup.READY_FILE
    mark.parent.mkdir()
    mark.write_text(meta_world_setup.REQUIREMENTS.read_text())
    said: list[str] = []
    python = meta_world_setup.setup(said.append)
    assert said == [f"Meta-World is ready: {python}"]
    mark.write_text("metaworld==0.0.1")
    assert not meta_world_setup.is_installed(), "other versions than the pinned ones"


def test_a_setup_that_fails_shows_why():
    with pytest.raises(WorkerError, match=r"failed with exit status 3:\noh"):
        meta_world_setup.run(["/bin/sh", "-c", "echo oh >&2; exit 3"])


def test_every_package_is_pinned():
    lines = meta_world_setup.REQUIREMENTS.read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_tasks_of_a_sequence_differ_in_any_order_of_environments(monkeypatch):
    """Of a table with 3 environments of 2 goals each; Meta-World itself is not needed for it."""
    rows = np.zeros((6, 7))
    rows[:, 0], rows[:, 1] = np.tile([0, 1, 2], 2), np.repeat([1, 2], 3)
    monkeypatch.setattr(MetaWorld, "table", {"train": rows})
    family, rng = MetaWorld(benchmark="ML10"), np.random.default_rng(0)
    drawn = family.sample_sequences(rng, 200, 3)
    assert drawn.shape == (200, 3, 7)
    assert all(len(np.unique(sequence, axis=0)) == 3 for sequence in drawn)
    orders = {tuple(sequence[:, 0]) for sequence in drawn}
    assert len(orders) == 27 - 3  # all but three times the same environment, which has two goals
    with pytest.raises(TaskError, match="expected at most 6, the train tasks of ML10, got 7"):
        family.sample_sequences(rng, 1, 7)


# --- with Meta-World ---


@pytest.fixture
def reach() -> MetaWorld:
    if not meta_world_setup.is_installed():
        pytest.skip("Meta-World is not installed here: metarl setup metaworld")
    return MetaWorld()


def test_tasks_are_meta_worlds_own(reach):
    """ML1 draws 50 goals of reach-v3 for training, and 50 others for testing."""
    assert len(NAMES) == 50
    sets = {split: reach.tasks(split, 50) for split in ("train", "validation", "test")}
    for tasks in sets.values():
        assert [NAMES[int(number)] for number in tasks[:, 0]] == ["reach-v3"] * 50
        assert all(np.array_equal(reach.check_task(task), task) for task in tasks)
    assert len(np.unique(np.concatenate(list(sets.values())), axis=0)) == 150
    drawn = reach.sample_tasks(np.random.default_rng(0), 30)
    assert {tuple(task) for task in drawn} <= {tuple(task) for task in sets["train"]}
    with pytest.raises(ValueError, match="ML1 has 50 test tasks, got 51"):
        reach.tasks("test", 51)
    with pytest.raises(TaskError, match="begins with a whole number"):
        reach.check_task(sets["test"][0] + [0.5, 0, 0, 0, 0, 0, 0])


def test_episodes_are_played_in_its_own_environment(reach):
    """Observations do not show the goal, the reward and the success do; one worker or two."""
    tasks = reach.tasks("test", 2)
    played = []
    for workers in (1, 2):
        env = reach.make_batch(2, workers)
        first = env.reset(tasks, [np.random.default_rng(i) for i in range(2)])
        steps = [env.step(np.full((2, 4), 0.3)) for _ in range(3)]
        played.append(np.concatenate([obs.ravel() for obs, _, _ in steps]))
        assert first.shape == (2, 39)
        assert (first[:, -3:] == 0).all()
        assert env.success is not None
        assert steps[0][1][0] != steps[0][1][1]
    assert np.array_equal(*played)


def test_the_program_of_the_workers_is_no_part_of_ours():
    text = Path(meta_world_setup.__file__).with_name("meta_world_env.py").read_text()
    assert "envs" not in text.replace("environments", "")
