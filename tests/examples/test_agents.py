"""examples/agents: results of agents of all kinds in one file, and its tables and figure."""

import json
import re

import numpy as np
import pytest

from examples.agents import measure
from examples.agents.__main__ import main
from examples.agents.figure import draw
from examples.agents.measure import complete, read_complete
from examples.agents.overall import COMPARED, draw_overall, overall, overall_table
from examples.agents.tables import disturbance_table, experience_table
from metarl.core.errors import UserError
from tests.evaluation.tiny_runs import KINDS, train_tiny

pytestmark = pytest.mark.all_formats
MET = [[0.0] * (task + 1) + [1 - 0.4 * late for late in range(5 - task)] for task in range(5)]
"""Returns on a sequence of five tasks, of which nothing is known at first: each has 1 when it is
met and loses 0.4 with every task after it."""


def part(returns, x=(0, 1), num_all_tasks=None):
    tasks = np.arange(len(returns))[:, None].tolist()
    return {"x": x, "tasks": tasks, "num_all_tasks": num_all_tasks, "returns": returns}


def test_the_table_of_experience_has_the_best_method_first_with_the_cost_of_its_training():
    cost = {"env_steps": 2_500_000, "core_minutes": 3.6}
    stored = {
        "random": {"0": {"few_episode": part([[-9, -9], [-7, -9]])}},
        "rl2": {
            "0": {**cost, "few_episode": part([[-4, -2], [-2, -2]])},
            "1": {**cost, "few_episode": part([[-4, -1], [-2, -1]])},
        },
    }
    lines = list(experience_table("point_nav", stored))
    assert lines[0] == "| method | seeds | env steps | minutes | 0 | 1 |"
    assert lines[2].startswith("| rl2 | 2 | 2.5M | 4 | -3.0 | -1.5 (")
    # The interval of one seed, of tasks that all have the same return, has no width.
    assert lines[3] == "| random | 1 |  |  | -8.0 | -9.0 (-9.0 to -9.0) |"


def test_a_row_ends_where_a_seed_was_not_measured_further():
    stored = {
        "rl2": {
            "0": {"few_episode": part([[-4, -2, -1], [-2, -2, -1]], x=(0, 1, 60))},
            "1": {"few_episode": part([[-4, -2], [-2, -2]])},
        },
        "maml": {"0": {"few_episode": part([[-9, -8, -7], [-9, -8, -7]], x=(0, 1, 60))}},
    }
    lines = list(experience_table("point_nav", stored))
    assert lines[0].endswith("| 0 | 1 | 60 |")
    assert lines[2] == "| rl2 | 2 |  |  | -3.0 | -2.0 (-2.0 to -2.0) |  |"
    assert lines[3].startswith("| maml | 1 |  |  | -9.0 | -8.0 | -7.0 (")


def test_tasks_that_one_seed_has_not_played_to_their_end_are_left_out_of_all(tmp_path):
    cost = {"env_steps": 2_500_000, "core_minutes": 3.6}
    stored = {
        "rl2": {
            "0": {**cost, "few_episode": part([[-4, -2], [None, None], [-2, -2]])},
            "1": {
                **cost,
                "few_episode": part([[-4, -2], [-50, -50], [-2, -4]]),
                "nominal": part([[1]]),
            },
        },
        "maml": {"0": {"few_episode": part([[None, None], [-50, -50], [-3, -1]])}},
    }
    stored["rl2"]["1"]["nominal"] = part([[1]])
    file = tmp_path / "agents.json"
    file.write_text(json.dumps({"point_nav": stored}))
    left = read_complete(file)["point_nav"]
    rl2 = left["rl2"]
    assert rl2["0"] == {**cost, "few_episode": {**part([[-2, -2]], [0, 1]), "tasks": [[2]]}}
    assert rl2["1"]["few_episode"]["returns"] == [[-2, -4]]
    assert rl2["1"]["nominal"]["returns"] == [[1]]
    assert left["maml"]["0"]["few_episode"]["returns"] == [[-3, -1]]
    assert "| rl2 | 2 | 2.5M | 4 | -2.0 | -3.0 (" in "\n".join(experience_table("point_nav", left))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([[1], [2]], "point_nav: few_episode: seeds with 1 and 2 tasks"),
        ([[None]], "point_nav: few_episode: no task that every seed has played to its end"),
    ],
)
def test_seeds_without_common_tasks_are_one_line(second, expected):
    seeds = {str(seed): {"few_episode": part(r)} for seed, r in enumerate([[[1]], second])}
    with pytest.raises(UserError, match=re.escape(expected)):
        complete("point_nav", {"rl2": seeds})


def test_the_table_of_disturbances_has_forgetting_and_empty_cells():
    seed = {
        "nominal": part([[100.0, 200.0], [100.0, 300.0]]),
        "out of distribution": part([[0.0, -1.0], [0.0, -2.0]]),
        "sequential": part(MET + MET, x=range(6)),
    }
    lines = list(disturbance_table("half_cheetah_vel", {"maml": {"0": seed}}))
    titles = "| method | seeds | undisturbed | worst fifth | new tasks | current task | forgotten |"
    assert lines[0] == titles
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    values = [cell.partition(" (")[0] for cell in cells]
    assert values == ["maml", "1", "250", "200", "-1.5", "1.0", "1.0"]


def test_the_figure_compares_with_maml_and_gives_its_numbers(tmp_path):
    """The other method has twice the returns on sequences, and 5 less when undisturbed."""
    twice = [[2 * value for value in row] for row in MET]
    tasks = np.arange(10.0)[:, None]
    stored = {
        "maml_trpo": {
            str(seed): {
                "nominal": part((tasks + seed).tolist()),
                "sequential": part(MET + MET, x=range(6)),
            }
            for seed in range(2)
        },
        "mine": {
            str(seed): {
                "nominal": part((tasks + seed - 5).tolist()),
                "sequential": part(twice + twice, x=range(6)),
            }
            for seed in range(2)
        },
    }
    files = draw({"half_cheetah_vel": stored}, tmp_path / "objectives.png")
    assert [file.suffix for file in files] == [".png", ".pdf", ".svg", ".csv"]
    lines = [line.split(",") for line in files[-1].read_text().splitlines()]
    values = {tuple(line[1:3]): line[3] for line in lines}
    for condition in ("forgotten", "current task"):
        assert values["maml_trpo", condition] == "1"
        assert values["mine", condition] == "2"
    assert values["mine", "undisturbed"] == values["mine", "worst fifth"] == "-5"


def test_a_run_is_measured_beside_the_untrained_agent(tmp_path, capsys, monkeypatch):
    run = train_tiny({"maml": KINDS["maml"]}, tmp_path)["maml"]
    file = tmp_path / "agents.json"
    monkeypatch.setattr("sys.argv", ["agents", str(run.directory), "--out", str(file)])
    monkeypatch.setattr(
        measure,
        "SETTINGS",
        {
            "few_episode": {"tasks": 2, "episodes": 1, "trials": 1},
            "disturbed": {"tasks": 2, "episodes": 1, "steps": 1},
            "continual": {"tasks": 5, "episodes": 1, "steps": 1},
        },
    )
    main()
    ((family, methods),) = json.loads(file.read_text()).items()
    assert family.startswith("point_nav")
    method, random = methods
    assert random == "random"
    assert np.isfinite(methods[random]["0"]["few_episode"]["returns"]).all()
    for name in ("few_episode", *measure.SHOCKS, "sequential"):
        assert np.isfinite(methods[method]["0"][name]["returns"]).all()
    assert methods[method]["0"]["env_steps"] > 0
    monkeypatch.setattr("sys.argv", ["agents", "--tables", str(file)])
    main()
    assert capsys.readouterr().out.count(f"| {method} | 1 |") == 2


def test_a_run_that_does_not_adapt_has_a_row_of_its_own(tmp_path, monkeypatch):
    """Its disturbances are those of no adaptation; what was measured before stays."""
    run = train_tiny({"maml": KINDS["maml"]}, tmp_path)["maml"]
    file = tmp_path / "agents.json"
    sizes = {"tasks": 2, "episodes": 1}
    settings = {"disturbed": {**sizes, "steps": 1}, "unadapted": {**sizes, "steps": 0}}
    monkeypatch.setattr(measure, "SETTINGS", settings)
    for measurement in ("disturbed", "unadapted", "disturbed"):
        words = ["agents", str(run.directory), "--measure", measurement, "--out", str(file)]
        monkeypatch.setattr("sys.argv", words)
        main()
    ((family, methods),) = json.loads(file.read_text()).items()
    method, other = methods
    assert other == f"{method}, not adapting"
    results = [methods[name]["0"] for name in (method, other)]
    assert [[seed[part]["x"] for part in measure.SHOCKS] for seed in results] == [
        [[1]] * 5,
        [[0]] * 5,
    ]
    assert list(disturbance_table(family, methods))[-1].endswith("|  |  |")


def test_the_worst_fifth_of_two_directions_is_the_worse_one():
    """Not the unluckiest of the repetitions, of which 4 of 20 would be the worst fifth."""
    directions = {"tasks": [[1.0], [-1.0]] * 10, "num_all_tasks": 2}
    returns = [[float(number)] for number in range(20)]  # means 9 and 10
    stored = {**part(returns, x=(1,)), **directions}
    (line,) = list(disturbance_table("half_cheetah_dir", {"rl2": {"0": {"nominal": stored}}}))[2:]
    assert [cell.strip() for cell in line.split("|")[3:5]][1] == "9.0"


def test_agents_on_a_family_are_measured_with_the_same_kind_of_actions(tmp_path, monkeypatch):
    """A run that is measured otherwise is refused before anything is played, and the file stays."""
    run = train_tiny({"maml": KINDS["maml"]}, tmp_path)["maml"]
    file = tmp_path / "new" / "agents.json"
    monkeypatch.setattr(measure, "SETTINGS", {"disturbed": {"tasks": 2, "episodes": 1, "steps": 1}})
    words = ["agents", str(run.directory), "--measure", "disturbed", "--out", str(file)]
    monkeypatch.setattr("sys.argv", [*words, "--deterministic"])
    main()
    before = file.read_bytes()
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(UserError, match="is measured with --deterministic in the file"):
        main()
    assert file.read_bytes() == before


def test_a_measurement_that_fails_loses_none_before_it(tmp_path, monkeypatch):
    run = train_tiny({"maml": KINDS["maml"]}, tmp_path)["maml"]
    file = tmp_path / "agents.json"
    sizes = {"tasks": 2, "episodes": 1, "steps": 1}
    monkeypatch.setattr(measure, "SETTINGS", {"disturbed": sizes, "continual": {"tasks": 3}})
    words = ["agents", str(run.directory), "--measure", "disturbed", "continual", "--out"]
    monkeypatch.setattr("sys.argv", [*words, str(file)])
    with pytest.raises(UserError, match="expected at least 5, one sequence"):
        main()
    ((_, methods),) = json.loads(file.read_text()).items()
    ((_, seeds),) = methods.items()
    assert set(measure.SHOCKS) <= set(seeds["0"])


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(UserError, match="no family has sequences"):
        draw({"point_nav": {"maml_trpo": {"0": {"sequential": part(MET)}}}}, tmp_path / "it.png")


def test_conditions_that_the_reference_lacks_are_not_drawn(tmp_path):
    seed = {"nominal": part([[1.0], [2.0]], x=(1,)), "sequential": part(MET, x=range(6))}
    more = {**seed, "out of distribution": part([[0.0], [1.0]], x=(1,))}
    stored = {"maml_trpo": {"0": seed, "1": seed}, "mine": {"0": more, "1": more}}
    *_, table = draw({"half_cheetah_vel": stored}, tmp_path / "objectives.png")
    rows = [line.split(",")[1:3] for line in table.read_text().splitlines()]
    assert ["mine", "undisturbed"] in rows
    assert ["mine", "new tasks"] not in rows
    unmeasured = {"0": {"sequential": part(MET, x=range(6))}}
    stored["maml_trpo"] = {**unmeasured, "1": unmeasured["0"]}
    *_, table = draw({"half_cheetah_vel": stored}, tmp_path / "objectives.png")
    assert "undisturbed" not in table.read_text()


@pytest.mark.parametrize("flag", ["--tables", "--figure", "--overall"])
def test_a_missing_file_is_named(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["agents", flag, str(tmp_path / "no.json")])
    with pytest.raises(SystemExit):
        main()
    assert "no.json: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["run"], ["run", "--tables", "agents.json"]])
def test_a_command_without_a_file_is_refused(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["agents", *words])
    with pytest.raises(SystemExit):
        main()
    expected = "expected RUN ... --out FILE, or one of --tables, --figure, --overall FILE"
    assert expected in capsys.readouterr().err


def of_kinds(returns, ending=""):
    """Return stored results of two seeds of each kind of agent, with the returns by episodes of
    experience of one of them; an oracle that has 10; and an untrained agent that has -10."""
    tasks = np.ones((4, 1))
    stored = {
        f"{kind}{ending}": {
            str(seed): {"few_episode": part((tasks * row).tolist(), x=range(len(row)))}
            for seed in range(2)
        }
        for kind, row in returns.items()
    }
    fixed = {f"oracle{ending}": (10.0,), "random": (-10.0,) * 3}
    return stored | {
        name: {"0": {"few_episode": part((tasks * row).tolist(), x=range(len(row)))}}
        for name, row in fixed.items()
    }


def test_families_together_have_the_middle_half_of_normalised_returns(tmp_path):
    """The x are those that all methods have. Of eight scores of 0.5 and eight of 1 the middle half
    has as many of each; a family without one of the methods is left out."""
    rows = dict.fromkeys(COMPARED, (-10.0, 0.0, 5.0)) | {"rl2": (10.0, 10.0)}
    first, second = of_kinds(rows), of_kinds({**rows, "cavia": (0.0, 10.0, 10.0)}, "_gymnasium")
    incomplete = of_kinds({"rl2": (0.0, 0.0)})
    found = overall({"point_nav": first, "ant_vel": second, "ant_dir": incomplete})
    assert found.x == (0, 1)
    assert found.scales == [
        "2D navigation: 0 is the untrained agent before adaptation (-10.0), 1 is Oracle (10.0)",
        "Ant, goal velocity: 0 is the untrained agent before adaptation (-10.0), 1 is Oracle "
        "(10.0)",
    ]
    assert found.iqm["rl2"].tolist() == [[1, 1], [1, 1], [1, 1]]
    assert found.iqm["maml_trpo"][0].tolist() == [0, 0.5]
    assert found.iqm["cavia"][0].tolist() == [0.25, 0.75]
    lines = list(overall_table(found))
    assert lines[0] == "| method | seeds | 0 | 1 |"
    assert lines[2] == "| rl2 | 2 | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) |"
    assert lines[3].startswith("| cavia | 2 | 0.25 (0.25 to 0.25) | 0.75 (")
    numbers = draw_overall(found, tmp_path / "overall.png")[-1].read_text().splitlines()
    assert numbers[0] == "method,seeds,x,mean,low,high"
    assert "cavia,2,1,0.75,0.75,0.75" in numbers


def test_two_methods_of_a_kind_on_a_family_are_refused():
    stored = of_kinds(dict.fromkeys(COMPARED, (0.0, 0.0)))
    stored["cavia_tuned"] = stored["cavia"]
    with pytest.raises(UserError, match="point_nav: expected one cavia, got cavia and cavia_tuned"):
        overall({"point_nav": stored})


def test_no_family_with_every_kind_is_one_line():
    with pytest.raises(UserError, match="no family has all of maml_trpo, rl2, varibad"):
        overall({"point_nav": of_kinds({"rl2": (0.0, 0.0)})})
