"""metarl package and metarl list pretrained: the card, and the commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.core.parsing import read_yaml
from metarl.reporting.hub import card_results
from metarl.reporting.package import is_of_checkpoint
from metarl.runs.pretrained import FOLDER
from metarl.runs.run import Run
from metarl.training.loop import train
from tests.evaluation.tiny_runs import KINDS, POINT, train_tiny

EVALUATE = ["--tasks", "3", "--episodes", "2", "--steps", "1"]
STEM = "k_step-test-tasks_3-episodes_2-steps_1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with one evaluation."""
    folder = tmp_path_factory.mktemp("run")
    made = train_tiny({"maml": KINDS["maml"]}, folder)["maml"].directory
    assert main(["evaluate", str(made), *EVALUATE]) == 0
    return made


def test_the_card_has_the_hubs_front_matter(run, tmp_path, capsys):
    out = tmp_path / "point"
    assert main(["package", str(run), "--out", str(out), "--license", "mit"]) == 0
    assert str(out / "model.safetensors") in capsys.readouterr().out
    card = (out / "README.md").read_text()
    empty, front, text = card.split("---\n", 2)
    content = read_yaml(front, "card")
    assert empty == ""
    assert content["library_name"] == "metarl"
    assert content["license"] == "mit"
    assert {"reinforcement-learning", "point_nav", "maml"} <= set(content["tags"])
    (model,) = content["model-index"]
    (result,) = model["results"]
    assert model["name"] == "point"
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"] == {"type": "point_nav", "name": f"point_nav, {STEM}"}
    written = json.loads((run / "evaluation" / f"{STEM}.json").read_text())
    means = written["methods"]["unnamed"]["parts"][""]["mean"]
    values = [metric["value"] for metric in result["metrics"]]
    assert values == pytest.approx(means, abs=0.006) == card_results(card)
    assert all(metric["type"] == "mean_reward" for metric in result["metrics"])
    assert [" (95% interval " in metric["name"] for metric in result["metrics"]] == [True, True]
    assert 'metarl.load("point").adapt_to(env, episodes=20)' in text
    assert "Weights of iteration 1, in `model.safetensors`. Download" in text


def test_a_package_names_the_code_of_ones_own_that_it_needs(run, tmp_path, monkeypatch):
    text = "from metarl.envs import PointNav\n\nclass Nav(PointNav):\n    name = 'own_nav'\n"
    (tmp_path / "own_code_of_the_card.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    own = {**POINT, "family": "own_code_of_the_card:Nav"}
    made = train_tiny({"own": {**KINDS["maml"], "env": own}}, tmp_path / "runs")["own"].directory
    needed = "They need code that does not come with metarl: `own_code_of_the_card:Nav`."
    for folder, count in ((made, 1), (run, 0)):
        assert main(["package", str(folder), "--out", str(tmp_path / f"pack{count}")]) == 0
        assert (tmp_path / f"pack{count}" / "README.md").read_text().count(needed) == count


def test_a_package_tells_what_the_run_began_from(run, tmp_path):
    config = Run.open(run).config
    warm = train(config, tmp_path / "warm", init_from=run)
    assert main(["package", str(warm.directory), "--out", str(tmp_path / "given")]) == 0
    packed = Run.open(tmp_path / "given").origin
    assert packed == replace(warm.origin, source=run.name)  # without the folders of this machine
    assert (
        f"| Begun from | {warm.origin.experiment} |" in (tmp_path / "given/README.md").read_text()
    )
    assert main(["package", str(run), "--out", str(tmp_path / "cold")]) == 0
    assert Run.open(tmp_path / "cold").origin is None


def test_a_card_without_results_has_no_index(run, tmp_path):
    plain = shutil.copytree(run, tmp_path / "plain")
    shutil.rmtree(plain / "evaluation")
    assert main(["package", str(plain), "--out", str(tmp_path / "x"), "--name", "My agent"]) == 0
    card = (tmp_path / "x" / "README.md").read_text()
    assert "model-index" not in card
    assert "license: unknown" in card
    assert "# My agent\n" in card
    assert "metarl evaluate My_agent\n" in card
    assert "Not evaluated yet." in card
    assert card_results(card) == []


@pytest.mark.parametrize(
    ("measured", "checkpoint", "shown"),
    [
        (("latest", 1), "latest", True),
        (("latest", 1), "1", True),
        (("latest", 7), "latest", False),  # before more training
        (("latest", 1), "average", False),
        (("average", 1), "average", True),
        (("latest", None), "latest", True),  # a file of an earlier version
        (("best", None), "latest", False),
    ],
)
def test_results_are_those_of_the_checkpoint(measured, checkpoint, shown):
    settings = dict(zip(("checkpoint", "iteration"), measured, strict=True))
    assert is_of_checkpoint(settings, checkpoint, 1) == shown


def test_results_of_another_checkpoint_are_left_out(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    path = other / "evaluation" / f"{STEM}.json"
    path.write_text(path.read_text().replace('"iteration": 1,', '"iteration": 7,'))
    assert main(["package", str(other), "--out", str(tmp_path / "x")]) == 0
    assert "Not evaluated yet." in (tmp_path / "x" / "README.md").read_text()


def test_what_cannot_be_packed_is_one_line(run, tmp_path, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    packed, out = tmp_path / "packed", tmp_path / "out"
    assert main(["package", str(run), "--out", str(packed)]) == 0
    capsys.readouterr()
    for arguments, words in (
        ([str(run), "--out", str(tmp_path / "used")], "used exists already; expected a new folder"),
        ([str(packed), "--out", str(out)], "packed: has weights without logs; expected a run"),
        ([str(run), "--out", str(out), "--checkpoint", "7"], "there is no such checkpoint"),
        ([str(run), "--out", str(out), "--license", "a\nb"], "--license: expected printable text"),
        ([str(tmp_path), "--out", str(out)], "not a run's folder"),
    ):
        assert main(["package", *arguments]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
    assert not out.exists()


def test_the_commands_take_names(tmp_path, monkeypatch, capsys):
    """Results go to the folder runs, and nothing is written beside the weights."""
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.rglob("*"))
    assert main(["list", "pretrained"]) == 0
    listed = capsys.readouterr().out
    assert "pretrained/half_cheetah_dir" in listed
    assert "maml_trpo_gymnasium" in listed
    against = ["--against", "pretrained/point_nav,random"]
    assert main(["evaluate", "pretrained/point_nav", *EVALUATE, *against]) == 0
    folder = Path("runs/pretrained/point_nav/evaluation")
    assert str(folder / f"{STEM}.json") in capsys.readouterr().out
    methods = json.loads((folder / f"{STEM}.json").read_text())["methods"]
    assert [*methods] == ["maml_trpo_tuned", "point_nav", "random"]
    assert methods["maml_trpo_tuned"]["parts"] == methods["point_nav"]["parts"]
    assert main(["report", "pretrained/point_nav"]) == 2
    assert "pretrained/point_nav: has weights without logs" in capsys.readouterr().err
    assert main(["train", "--resume", "pretrained/point_nav"]) == 2
    assert "--init-from" in capsys.readouterr().err
    assert sorted(FOLDER.rglob("*")) == before
