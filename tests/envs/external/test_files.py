"""Environments in a file of the user: how it is imported, and from where its path counts."""

from __future__ import annotations

import os

import numpy as np
import pytest

import metarl
from metarl.cli.main import main
from metarl.envs import GymnasiumFamily, WorkerError
from metarl.runs.run import Run

SETTINGS = """
from __future__ import annotations
import dataclasses
import pickle

@dataclasses.dataclass
class Settings:
    pull: float = 0.0

assert pickle.loads(pickle.dumps(Settings(2.0))).pull == 2.0
"""
WITH_NEIGHBOUR = "import neighbour; assert neighbour.GAIN == 3"


@pytest.fixture
def user(walk, tmp_path):
    """Makes a folder of the user with a config and an environment's file; returns the folder."""

    def make(name: str = "walk.py", preamble: str = "", neighbour: str = "GAIN = 3"):
        folder = tmp_path / "user"
        folder.mkdir()
        file = walk().env_id.partition(":")[0]
        with open(file) as text:
            (folder / name).write_text(f"{preamble}\n{text.read()}")
        os.remove(file)
        (folder / "neighbour.py").write_text(neighbour)
        (folder / "walk.yaml").write_text(
            f"env: {{family: gymnasium, env_id: '{name}:Walk', parameters: {{pull: [-1, 1]}}}}\n"
        )
        return folder

    return make


@pytest.mark.parametrize("preamble", [SETTINGS, WITH_NEIGHBOUR], ids=["dataclass", "neighbour"])
@pytest.mark.parametrize("name", ["walk.py", "json.py"])
def test_a_file_is_imported_as_python_runs_it(user, preamble, name):
    """Also a file that has the name of a module that is in use."""
    file = user(name, preamble) / name
    family = GymnasiumFamily(env_id=f"{file}:Walk", parameters={"pull": (0.0, 1.0)})
    obs = family.make_batch(1).reset(np.array([[0.5]]), [np.random.default_rng(0)])
    assert obs[0, 1] == 0.5


def test_a_neighbour_that_imports_the_file_finds_the_same_module(user):
    back = "import walk; GAIN = 3; assert walk.MARK == 7"
    file = user(preamble="MARK = 7; import neighbour", neighbour=back) / "walk.py"
    family = GymnasiumFamily(env_id=f"{file}:Walk", parameters={"pull": (0.0, 1.0)})
    assert family.observation_space.shape == (2,)


def test_a_path_counts_from_the_folder_of_its_config(user, tmp_path, monkeypatch):
    folder = user()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "walk.py").write_text("raise RuntimeError('the wrong file')")
    monkeypatch.chdir(elsewhere)
    for name in (folder / "walk.yaml", "../user/walk.yaml"):
        config = metarl.load_config(name)
        assert config.to_dict()["env"]["env_id"] == f"{folder}/walk.py:Walk"
        assert config.env.observation_space.shape == (2,)


def test_other_paths_count_from_the_current_folder(user, tmp_path, monkeypatch):
    folder = user()
    monkeypatch.chdir(tmp_path)
    config = metarl.load_config(folder / "walk.yaml", **{"env.env_id": "user/walk.py:make"})
    assert config.to_dict()["env"]["env_id"] == f"{folder}/walk.py:make"
    # A file that is not beside the config.
    nested = tmp_path / "configs"
    nested.mkdir()
    text = (folder / "walk.yaml").read_text().replace("walk.py", "user/walk.py")
    (nested / "walk.yaml").write_text(text)
    config = metarl.load_config("configs/walk.yaml")
    assert config.to_dict()["env"]["env_id"] == f"{folder}/walk.py:Walk"
    # In Python; the family stays what it is in another folder.
    family = GymnasiumFamily(env_id="user/walk.py:Walk", parameters={"pull": (0.0, 1.0)})
    monkeypatch.chdir("/")
    assert family.observation_space.shape == (2,)
    monkeypatch.setenv("HOME", str(folder))
    assert GymnasiumFamily(env_id="~/walk.py:Walk").env_id == f"{folder}/walk.py:Walk"


def test_a_run_finds_its_environment_from_any_folder(user, tmp_path, monkeypatch):
    folder = user()
    monkeypatch.chdir(folder)
    config = metarl.load_config("walk.yaml")
    run = Run.create(config, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert Run.open(run.directory).config == config


def test_a_runs_own_folder_is_not_searched(user, tmp_path, monkeypatch):
    """It may be untrusted."""
    folder = user()
    run = Run.create(metarl.load_config(folder / "walk.yaml"), tmp_path / "run")
    file = run.directory / "config.yaml"
    file.write_text(file.read_text().replace(f"{folder}/walk.py", "walk.py"))
    (run.directory / "walk.py").write_text("print('harm')")
    monkeypatch.chdir(tmp_path)
    opened = Run.open(run.directory).config
    assert opened.to_dict()["env"]["env_id"] == f"{tmp_path}/walk.py:Walk"


def test_a_file_that_is_not_there_is_named_where_it_was_expected(user):
    folder = user()
    (folder / "walk.py").unlink()
    with pytest.raises(WorkerError, match=f"No such file or directory: '{folder}/walk.py'"):
        metarl.load_config(folder / "walk.yaml").env.observation_space  # noqa: B018


def test_tasks_have_the_same_hash_wherever_the_file_is(tmp_path):
    tasks = GymnasiumFamily().tasks("test", 2)
    hashes = {
        GymnasiumFamily(env_id=f"{folder}walk.py:Walk").task_hash(tasks)
        for folder in ("", "/", f"{tmp_path}/")
    }
    assert hashes == {"18fc8d19cb4f7d1d"}


def test_the_environments_of_metarl_keep_their_names():
    assert GymnasiumFamily().env_id == "cartpole.py:CartPole"
    config = metarl.load_config("cartpole/maml_trpo")
    assert config.to_dict()["env"]["env_id"] == "cartpole.py:CartPole"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("env_id: Pendulm-v1, parameters: {g: [1, 2]}", "nearest: Pendulum-v1"),
        (
            "env_id: Pendulum-v1, parameters: {gg: [1, 2]}",
            "has no attribute 'gg' for a task",
        ),
    ],
)
def test_an_environment_that_a_config_names_wrongly_is_wrong_input(tmp_path, capsys, env, expected):
    file = tmp_path / "own.yaml"
    file.write_text(f"env: {{family: gymnasium, {env}}}\n")
    assert main(["train", str(file), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("metarl: error: env: Pendul")
    assert expected in error
    assert error.count("\n") == 1
