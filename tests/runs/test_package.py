"""Packages of weights, and the agents that come with metarl."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import metarl
from metarl.core.errors import UserError
from metarl.reporting.package import package
from metarl.runs.package import KEY, WEIGHTS, read_tensors
from metarl.runs.packed import DamagedFile, checksum
from metarl.runs.pretrained import FOLDER, pretrained_names, run_folder
from metarl.training.trainer import Trainer
from tests.evaluation.tiny_runs import KINDS, make_env, train_tiny

OWN = {"agent": {"kind": "tests.agents.mean_action:MeanActionConfig"}}
NORMALIZED = {"agent": {"policy": {"hidden": [5]}, "normalize_observations": True}}
PACKED = {**KINDS, "own": OWN, "normalized": NORMALIZED}
OPTIMISERS = ("adam.", "model_adam.", "outer.", "num_updates")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a run of each kind and of its package."""
    folder = tmp_path_factory.mktemp("packages")
    runs = train_tiny(PACKED, folder / "runs")
    for kind, run in runs.items():
        package(run.directory, folder / kind)
    return {kind: (run.directory, folder / kind) for kind, run in runs.items()}


@pytest.fixture
def packed(folders, tmp_path):
    """A package of MAML that a test may change."""
    return shutil.copytree(folders["maml"][1], tmp_path / "packed")


@pytest.mark.parametrize("kind", PACKED)
def test_a_package_is_used_like_the_run(folders, kind):
    """The same experience, the same adaptation and the same actions, to the bit."""
    found = []
    for folder in folders[kind]:
        env = make_env(metarl.Run.open(folder))
        adapted = metarl.load(folder).adapt_to(env, episodes=2, adaptations=2)
        obs = np.ones((2, *env.observation_space.shape))
        found.append([*adapted.returns, *adapted.predict(obs)[0].ravel()])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", PACKED)
def test_weights_are_the_checkpoints(folders, kind):
    """Without optimisers and settings; the whole state of an agent that names no parameters."""
    run, packed = (metarl.Run.open(folder) for folder in folders[kind])
    (whole, taken), tensors = (
        (each.load() for each in (run, packed)),
        load_file(packed.directory / WEIGHTS),
    )
    assert tensors
    assert (taken.iteration, taken.env_steps) == (1, whole.env_steps)
    assert taken.agent.keys() == whole.agent.keys()
    for name, value in tensors.items():
        assert torch.equal(value, torch.as_tensor(whole.agent[name]))
    left = whole.agent.keys() - tensors.keys()
    settings = {name for name in left if not name.startswith(OPTIMISERS)}
    assert settings == ({"log_temperature"} if kind == "pearl" else set())
    for name in settings:  # which the config has
        assert torch.equal(taken.agent[name], whole.agent[name])
    assert bool(left) == (kind in ("rl2", "varibad", "pearl", "own"))


def test_what_belongs_to_a_machine_stays_behind(folders):
    run, packed = (metarl.Run.open(folder).config for folder in folders["maml"])
    assert packed.threads == 0 != run.threads
    assert packed.replace(threads=1, tracking=run.tracking) == run
    assert packed.tracking.trackers == ()
    again = folders["maml"][1].with_name("again")
    package(folders["maml"][0], again, name="maml")
    for path in again.iterdir():  # the same bytes
        assert path.read_bytes() == (folders["maml"][1] / path.name).read_bytes()
    names = sorted(path.name for path in folders["maml"][1].iterdir())
    assert names == ["README.md", "config.yaml", WEIGHTS, "provenance.json"]
    assert "command" not in (folders["maml"][1] / "provenance.json").read_text()


def test_training_begins_from_a_package_and_does_not_go_on_in_it(folders, packed, tmp_path):
    begin = r"nothing to continue from; begin a new run .* --init-from"
    with pytest.raises(UserError, match=begin):
        Trainer.resume(packed)
    config = metarl.Run.open(packed).config
    with pytest.raises(UserError, match=begin):
        Trainer.create_or_resume(config, packed)
    trainer = Trainer.create(config, tmp_path / "new", packed)
    initial = metarl.Run.open(trainer.directory).load("0").agent
    assert torch.equal(initial["params.weight0"], load_file(packed / WEIGHTS)["params.weight0"])
    with pytest.raises(UserError, match="one set of weights; expected the checkpoint latest, got"):
        metarl.load(packed, "best")


def rewrite(packed: Path, tensors: dict, **facts: object) -> None:
    """Write other weights with a checksum that is right."""
    _, own = read_tensors(packed / WEIGHTS)
    whole = {**own, "checksum": checksum(tensors), **facts}
    save_file(tensors, packed / WEIGHTS, {KEY: json.dumps(whole)})


def test_damage_is_told(packed):
    content = (packed / WEIGHTS).read_bytes()
    for damaged, words in (
        (content[:-1], "not whole weights"),
        (b"", "not whole weights"),
        (content[:-1] + bytes([content[-1] ^ 1]), "does not match its checksum"),
    ):
        (packed / WEIGHTS).write_bytes(damaged)
        with pytest.raises(DamagedFile, match=f"{WEIGHTS}: .*{words}") as raised:
            metarl.load(packed)
        assert "\n" not in str(raised.value)


def test_what_does_not_fit_is_told(packed):
    tensors, _ = read_tensors(packed / WEIGHTS)
    rewrite(packed, {name: x for name, x in tensors.items() if name != "params.bias0"})
    with pytest.raises(UserError, match=r"lacks params\.bias0, a parameter of the agent"):
        metarl.load(packed)
    rewrite(packed, {**tensors, "params.bias0": torch.zeros(1, 6)})
    with pytest.raises(UserError, match=r"params\.bias0 has the shape \[1, 6\], expected \[1, 5\]"):
        metarl.load(packed)
    rewrite(packed, tensors, format=2)
    with pytest.raises(UserError, match="written by a newer metarl: format 2, this one reads up"):
        metarl.load(packed)
    rewrite(packed, tensors, format=1, iteration=-3)
    with pytest.raises(UserError, match="iteration: expected a whole number, got -3"):
        metarl.load(packed)


# --- the agents that come with metarl ---


def test_they_are_small_and_have_cards():
    assert {"half_cheetah_dir", "half_cheetah_vel", "ant_vel", "point_nav"} <= {
        name.partition("/")[2] for name in pretrained_names()
    }
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2**20
    for folder in pretrained_names().values():
        assert (folder / "README.md").read_text().startswith("---\nlibrary_name: metarl\n")


@pytest.mark.parametrize("name", pretrained_names())
def test_each_of_them_adapts(name):
    run = metarl.Run.open(name)
    tasks = run.config.env.tasks("test", 2)
    result = metarl.evaluate(metarl.load(name), run.config.env, tasks=tasks, episodes=5, steps=1)
    before, after = result.mean
    assert after > before + 0.1 * abs(before)


def test_a_run_of_that_path_has_precedence(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder("pretrained/point_nav") == FOLDER / "point_nav"
    assert metarl.Run.open("pretrained/point_nav").output == Path("runs/pretrained/point_nav")
    shutil.copytree(folders["maml"][1], tmp_path / "pretrained" / "point_nav")
    assert run_folder("pretrained/point_nav") == Path("pretrained/point_nav")
    assert metarl.Run.open("pretrained/point_nav").output == Path("pretrained/point_nav")
    near = r"no such agent \(nearest: pretrained/half_cheetah_dir\); see metarl list pretrained"
    with pytest.raises(UserError, match=near):
        metarl.load("pretrained/half_cheeta_dir")


def test_nothing_is_written_beside_them():
    with pytest.raises(
        UserError, match=r"--tracking\.trackers: pretrained/point_nav is not"
    ) as told:
        metarl.Run.open("pretrained/point_nav", **{"tracking.trackers": "csv"})
    assert "\n" not in str(told.value)
