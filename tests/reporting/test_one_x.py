"""Results of an agent that cannot adapt, x = (0,), beside those of agents that can."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

import metarl
from metarl.core.errors import UserError
from metarl.evaluation.compare import evaluate_run
from metarl.reporting.evaluation import evaluation_table, task_table, task_text
from metarl.reporting.figures import (
    adaptation_curves,
    draw_evaluation,
    forgetting_matrices,
    robustness_curves,
)
from metarl.reporting.pooling import (
    MethodPart,
    by_label,
    final_scores,
    pooled_scores,
    results_by_method,
)
from metarl.reporting.report import write_report
from metarl.reporting.report_sections import improvements, method_row, transfer
from metarl.reporting.score_figures import profiles, returns_by_task
from metarl.reporting.summary import read_summaries
from metarl.runs.result import Evaluation
from metarl.training.loop import train

TASKS = np.linspace(-1, 1, 4)[:, None]


def result(columns: list[float], **fields) -> Evaluation:
    """Returns of 4 tasks, 1 episode each: the given ones at each x, plus 0, 1, 2, 3 by task."""
    returns = np.array(columns)[None, :, None] + np.arange(4.0)[:, None, None]
    return Evaluation("family", "test", "hash", TASKS, returns, **fields)


ADAPTING = result([0.0, 10.0, 20.0, 30.0])
ORACLE = result([25.0])
RESULTS = {"maml": [ADAPTING], "oracle": [ORACLE]}


def dashed_lines(axes):
    return [line for line in axes.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize("order", [1, -1])
def test_curves_have_a_dashed_line_over_the_whole_range(order):
    axes = adaptation_curves(dict(list(RESULTS.items())[::order])).figure.axes[0]
    (line,) = dashed_lines(axes)
    assert line.get_label() == "Oracle"
    assert set(line.get_ydata()) == {26.5}
    assert line.get_xdata() == [0, 1]  # of the width of the axes
    assert line.get_transform().contains_branch_seperately(axes.transAxes)[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    assert axes.get_xlabel() == "adaptations"
    assert axes.get_xlim()[0] < 0 < 3 < axes.get_xlim()[1]


@pytest.mark.parametrize("protocol", ["k_step", "few_episode", "ood", "continual"])
def test_an_agent_that_cannot_adapt_has_a_figure_alone(tmp_path, protocol):
    draw_evaluation(protocol, {"oracle": {"": ORACLE}}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_robustness_figure_has_one_dashed_curve():
    names = ["nominal", *(f"action_delay {delay}" for delay in (1, 2, 4))]
    results = {MethodPart("maml", name): [ADAPTING] for name in names}
    results |= {MethodPart("oracle", name): [ORACLE] for name in names}
    (axes,) = robustness_curves(results).figure.axes
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["MAML, adapted", "MAML, unadapted", "Oracle"]
    assert [line.get_label() for line in dashed_lines(axes)] == ["Oracle"]


def test_a_robustness_figure_has_no_perturbation_of_the_name_of_a_method():
    method = "maml, action_delay 1"
    names = ("nominal", "motor_strength 0.8")
    results = {MethodPart(method, name): [ADAPTING] for name in names}
    (axes,) = robustness_curves(results).figure.axes
    assert axes.get_xlabel() == "strength of motors (share)"


def test_a_matrix_of_forgetting_needs_adaptation():
    sequences = Evaluation(
        "family", "test", "hash", np.zeros((2, 1)), np.arange(6.0).reshape(2, 3, 1)
    )
    figure = forgetting_matrices({"maml": [sequences], "oracle": [ORACLE]}).figure
    assert [axes.get_title() for axes in figure.axes] == ["MAML", ""]  # and the scale


def test_forgetting_and_its_matrix_are_means_over_seeds():
    """Of a sequence of two tasks; the first one is forgotten by 2 in one seed and by 0 in the
    other."""

    def seed(last: float) -> Evaluation:
        first_task, second_task = [0.0, 5.0, last], [0.0, 1.0, 4.0]
        returns = np.array([first_task, second_task])[..., None]
        return Evaluation("family", "test", "hash", TASKS[:2], returns)

    seeds = [seed(3.0), seed(5.0)]
    found = transfer("maml", seeds)
    assert (found.forgetting, found.backward_transfer) == (1.0, -1.0)
    assert (found.plasticity, found.average) == (4.5, 4.0)
    rows = forgetting_matrices({"maml": seeds}).rows
    assert [row[3] for row in rows] == [0, 0, 5, 1, 4, 4]
    title = forgetting_matrices({"maml": seeds}).figure.get_suptitle()
    assert title == "family: 2 test tasks, 1 episode each"
    assert transfer("maml", seeds[::-1]) == found


def test_returns_by_task_are_drawn_once():
    maml, oracle = returns_by_task({"maml": ADAPTING, "oracle": ORACLE}).figure.axes
    assert [line.get_label() for line in maml.lines] == ["adaptations: 0", "adaptations: 3"]
    assert [line.get_label() for line in oracle.lines] == ["adaptations: 0"]


def test_a_terminal_table_has_one_row():
    console = Console(file=io.StringIO(), width=160)
    console.print(evaluation_table({"oracle": ORACLE, "maml": ADAPTING}))
    rows = [re.findall(r"[^│\s][^│]*", line) for line in console.file.getvalue().splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows if row and "│" not in row[0]]
    (oracle,) = [row for row in cells if row[0] == "oracle"]
    assert oracle[1:3] == ["0", "26.5"]
    assert len([row for row in cells if row[0] in ("0", "1", "2", "3")]) == 3


def test_few_tasks_have_rows_of_their_own():
    """The first task is there twice, with returns 0 and 1 before adaptation; a task that was not
    played to the end has no row."""
    tasks = np.array([[0.5, 1.0], [0.5, 1.0], [0.123456, -2.0], [0.0, 0.0]])
    returns = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [3.0, np.nan]])[..., None]
    found = Evaluation("family", "custom", "hash", tasks, returns)
    assert found.distinct_tasks.tolist() == [[0.5, 1.0], [0.123456, -2.0]]
    table = task_table({"maml": found, "oracle": result([25.0])})
    cells = [[*column.cells] for column in table.columns]
    assert [column.header for column in table.columns][2:] == ["0", "1"]
    assert cells == [
        ["maml", "", "oracle", "", "", ""],
        ["0.5, 1", "0.1235, -2", "-1", "-0.3333", "0.3333", "1"],
        ["0.5", "2.0", "25.0", "26.0", "27.0", "28.0"],
        ["10.5", "12.0", "", "", "", ""],
    ]


def test_of_many_steps_some_have_columns():
    """The return of task b after step k is 100 b + k."""
    returns = (np.arange(101) + np.array([[0], [100]]))[..., None].astype(float)
    found = Evaluation("family", "custom", "hash", TASKS[:2], returns)
    table = task_table({"maml": found, "oracle": result([25.0])})
    columns = [int(column.header.rpartition(" ")[2]) for column in table.columns[2:]]
    assert columns == [0, 14, 29, 43, 57, 71, 86, 100]
    assert [[*column.cells][1] for column in table.columns[2:]] == [f"{100 + k}.0" for k in columns]
    assert [*table.columns[2].cells][2:] == ["25.0", "26.0", "27.0", "28.0"]
    assert [*table.columns[3].cells][2:] == [""] * 4
    assert table.title == "return by task, at 8 of 101 numbers of adaptations"


def test_one_task_and_many_tasks_have_no_rows_of_their_own():
    one = Evaluation("family", "custom", "hash", TASKS[:1], ADAPTING.returns[:1])
    assert task_table({"maml": one}) is None
    assert task_table(dict.fromkeys("abcde", ADAPTING)).row_count == 20
    assert task_table(dict.fromkeys("abcdef", ADAPTING)) is None


def test_table_rows_have_empty_cells():
    row = method_row(MethodPart("oracle", ""), [ORACLE], 4)
    assert row.cells[0].mean == 26.5
    assert row.cells[1:] == [None, None, None]


def test_the_only_scores_are_the_final_ones():
    final = final_scores(RESULTS)
    assert final["maml"].tolist() == [[30.0, 31.0, 32.0, 33.0]]
    assert final["oracle"].tolist() == [[25.0, 26.0, 27.0, 28.0]]


def test_methods_are_compared_at_the_last_x_that_they_share():
    """A method evaluated after fewer adaptations limits the others, one without any does not."""
    final = final_scores(RESULTS | {"short": [result([0.0, 10.0])]})
    assert [values[0, 0] for values in final.values()] == [30.0 - 20.0, 25.0, 10.0]


def test_improvement_uses_the_only_scores():
    (found,) = improvements({MethodPart(name, ""): seeds for name, seeds in RESULTS.items()})
    assert (found.method, found.other, found.probability) == ("maml", "oracle", 1.0)
    assert (found.difference, found.low, found.high) == (5.0, 5.0, 5.0)  # on each of the tasks


def test_profiles_use_the_only_scores():
    axes = profiles(RESULTS).figure.axes[0]
    (oracle,) = [line for line in axes.lines if line.get_label() == "Oracle"]
    levels, shares = oracle.get_data()
    assert shares.tolist() == [np.mean(ORACLE.scores[:, 0] > level) for level in levels]


SIZE = "-tasks_5-episodes_2"
"""What is in the names of the evaluations below."""


@pytest.fixture
def runs(tmp_path):
    """A run of MAML, and one of an oracle whose results have one x, both evaluated."""
    settings = {"iterations": 2, "num_tasks": 2, "num_episodes": 3, "env.horizon": 6}
    settings |= {"agent.policy.hidden": [8], "tracking.mode": "disabled"}
    folders = []
    for method in ("maml_trpo", "oracle"):
        config = metarl.load_config(f"point_nav/{method}", **settings)
        folders.append(train(config, tmp_path / method).directory)
    for folder in folders:
        for protocol in ("k_step", "few_episode"):
            evaluate_run(folder, protocol=protocol, tasks=5, episodes=2, steps=3)
            cut_results(folder / "evaluation" / f"{protocol}-test{SIZE}.json", "oracle", 1)
    return folders


def cut_results(path, method, count):
    """Keep the first values of x of a method's results in a result file."""
    content = json.loads(path.read_text())
    for part in content["methods"].get(method, {"parts": {}})["parts"].values():
        part["x"] = part["x"][:count]
        part["returns"] = [task[:count] for task in part["returns"]]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("order", [1, -1])
def test_results_with_fewer_x_are_put_together(runs, order):
    found = by_label(results_by_method(read_summaries(runs[::order]), f"k_step-test{SIZE}"))
    assert {name: seeds[0].x for name, seeds in found.items()} == {
        "maml_trpo": (0, 1, 2, 3),
        "oracle": (0,),
    }
    shapes = {name: pooled_scores(seeds).shape for name, seeds in found.items()}
    assert shapes == {"maml_trpo": (1, 5, 4), "oracle": (1, 5, 1)}


def test_results_at_other_x_are_refused(runs):
    path = runs[1] / "evaluation" / f"k_step-test{SIZE}.json"
    content = json.loads(path.read_text())
    content["methods"]["oracle"]["parts"][""]["x"] = [3]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"3 adaptations, .*, oracle on 5 tasks .*, 3 adaptations"):
        results_by_method(read_summaries(runs), f"k_step-test{SIZE}")


@pytest.mark.parametrize("order", [1, -1])
def test_a_report_shows_both(runs, tmp_path, order):
    page, card = write_report(runs[::order], tmp_path / "out")[:2]
    text = page.read_text()
    table = text.partition("Adaptation, test tasks")[2]
    (row,) = re.findall(r'<th scope="row">Oracle</th><td>1</td>\n((?:<td.*</td>\n){4})</tr>', table)
    assert row.count('<td class="main"></td>') == 3
    results = card.read_text().partition("## Results")[2].partition("few_")[0]
    (line,) = re.findall(r"^\| oracle \| 1 \|(.*)\|$", results, re.M)
    assert [cell.strip() != "" for cell in line.split("|")] == [True, False, False, False]
    assert text.count("--steps 3 --seed 0") == 2  # as was asked, though the oracle has one result


def test_of_a_task_of_many_numbers_the_first_ones_are_shown():
    assert task_text(np.array([0.5, -1.25, 3])) == "0.5, -1.25, 3"
    assert task_text(np.arange(550.0)) == "0, 1, ... (550 numbers)"
