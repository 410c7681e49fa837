"""Aggregates over families: their scale, their order, and what they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metarl.reporting.aggregates import (
    aggregate,
    draw_improvements,
    draw_statistics,
    normalised,
)
from metarl.reporting.comparison_tables import aggregate_table
from metarl.reporting.style import COLOURS, Drawing, arrange, figure_bytes, method_styles
from metarl.runs.result import Evaluation

TASKS = np.array([[1.0], [2.0]])


def result(*columns: list[float]) -> Evaluation:
    """The returns of two tasks at each x, one episode each."""
    return Evaluation("family", "test", "hash", TASKS, np.array(columns).T[:, :, None])


RANDOM = [result([-10.0, -30.0], [0.0, 0.0])]  # -20 before adaptation
ORACLE = [result([20.0, 40.0])]  # 30
MAML = [result([0.0, 0.0], [5.0, 5.0]), result([0.0, 0.0], [5.0, 30.0])]


def test_0_is_the_untrained_agent_and_1_the_oracle():
    found = normalised("mine", {"maml": MAML, "oracle": ORACLE, "random": RANDOM})
    np.testing.assert_allclose(found.scores["maml"], [[0.5, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(found.scores["oracle"], [[0.8, 1.2]])
    np.testing.assert_allclose(found.scores["random"], [[0.4, 0.4]])
    assert found.scale == (
        "mine: 0 is the untrained agent before adaptation (-20.0), 1 is Oracle (30.0)"
    )


def test_without_an_oracle_1_is_the_best_method():
    found = normalised("mine", {"random": RANDOM, "maml": MAML, "worse": MAML[:1]})
    assert found.scores["maml"].mean() == pytest.approx(1.0)
    assert "1 is MAML (11.2)" in found.scale


def test_methods_are_compared_at_the_last_x_that_they_share():
    longer = [result([0.0, 0.0], [5.0, 5.0], [30.0, 30.0])]
    found = normalised("mine", {"maml": longer, "oracle": ORACLE, "random": RANDOM})
    np.testing.assert_allclose(found.scores["maml"], [[0.5, 0.5]])


def test_repeated_tasks_count_as_often_as_they_were_played():
    """So a family with two tasks, each played twenty times, weighs as much as one with forty."""

    def repeated(value):
        tasks, returns = np.repeat(TASKS, 20, axis=0), np.full((40, 2, 1), value)
        return [Evaluation("f", "test", "hash", tasks, returns, num_all_tasks=2)]

    found = normalised("f", {"maml": repeated(1.0), "random": repeated(0.0)})
    assert found.scores["maml"].shape == (1, 40)
    assert found.has_all_tasks


def test_the_scale_has_the_means_of_the_tables():
    """Those over distinct tasks, of which one was played three times and the other twice."""
    tasks = np.repeat(TASKS[:2], [3, 2], axis=0)

    def played(first, second):
        returns = np.repeat([first, second], [3, 2]).reshape(5, 1, 1).repeat(2, axis=1)
        return [Evaluation("f", "test", "hash", tasks, returns, num_all_tasks=2)]

    found = normalised("f", {"maml": played(100.0, 0.0), "random": played(-50.0, 0.0)})
    assert found.scale.endswith("before adaptation (-25.0), 1 is MAML (50.0)")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ({"maml": MAML}, "the results lack an untrained agent"),
        ({"oracle": [result([-40.0, -40.0])], "random": RANDOM}, r"Oracle \(-40.0\) is not above"),
        # The untrained agent gains by adaptation; that is no return of a trained one.
        (
            {"maml": [result([-40.0, -40.0])], "random": [result([-30.0, -30.0], [0.0, 0.0])]},
            r"MAML \(-40.0\) is not above the untrained agent \(-30.0\)",
        ),
    ],
)
def test_what_cannot_be_normalised_is_said(results, reason):
    with pytest.raises(ValueError, match=f"mine: not normalised: .*{reason}"):
        normalised("mine", results)


@pytest.fixture(scope="module")
def found():
    better = [result([0.0, 0.0], [25.0, 25.0])]
    one = {"maml": MAML, "rl2": better, "oracle": ORACLE, "random": RANDOM}
    other = one | {"rl2": better * 2, "extra": better}
    return aggregate({"one": one, "other": other, "odd": {"maml": MAML}})


def test_aggregates_are_of_the_methods_of_all_families_the_best_first(found):
    assert found.methods == ["oracle", "rl2", "maml", "random"]
    assert found.seeds == [1, 1, 2, 1]
    # By hand: of eight scores of maml, four times 1/2 and 1, without the two lowest and highest.
    np.testing.assert_allclose(found.statistics[0, 2], [0.5, 0.625, 0.375])
    np.testing.assert_allclose(found.statistics[:, 1], [[0.9, 0.9, 0.1]] * 3)  # nothing varies
    assert (found.statistics[1] <= found.statistics[2]).all()
    assert [text.split(":")[0] for text in found.scales] == ["one", "other", "odd"]
    assert "not normalised" in found.scales[2]
    assert found.left_out == "Left out, since not every family has them: extra (not in one)."


def test_a_method_has_its_colour_at_any_rank(found):
    order = ["maml", "rl2", "oracle", "random"]  # of the first family
    expected = [COLOURS[order.index(name)] for name in found.methods]
    profile = found.drawings["aggregate-profiles"].figure.axes[0]
    assert [line.get_color() for line in profile.lines] == expected
    values = found.drawings["aggregate"].figure.axes[0]
    assert [line.get_color() for line in values.lines] == expected


def test_aggregates_are_drawn_with_their_numbers(found):
    drawings = found.drawings
    rows = drawings["aggregate-improvement"].rows
    (row,) = [row for row in rows if row[:2] == ("rl2", "maml")]
    assert row[2] == pytest.approx(0.75)  # 25 against 5 or 5 wins; against 5 or 30 wins half
    profile = [row for row in drawings["aggregate-profiles"].rows if row[0] == "rl2"]
    assert {share for _, level, share, *_ in profile if level < 0.89} == {1.0}
    axes = drawings["aggregate"].figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "Oracle",
        "RL²",
        "MAML",
        "Random",
    ]
    assert "bootstrap over seeds and tasks" in drawings["aggregate"].caption


def test_one_seed_on_all_tasks_has_no_interval():
    """It is a number without brackets in the table, and NaN or nothing in the figures."""

    def on_all_tasks(value):
        return [replace(result([0.0, 0.0], [value, 2 * value]), num_all_tasks=2)]

    found = aggregate({"one": {"maml": on_all_tasks(4.0), "random": on_all_tasks(1.0)}})
    assert np.isnan(found.statistics[1:]).all()
    assert aggregate_table(found)[1:] == [
        ["maml", "1", "1.00", "1.00", "0.17"],
        ["random", "1", "0.25", "0.25", "0.75"],
    ]
    for drawing in found.drawings.values():
        assert figure_bytes(drawing, "csv", "name")
        assert figure_bytes(drawing, "svg", "name")


def test_without_a_common_method_there_is_nothing_to_aggregate():
    one, other = {"maml": MAML, "random": RANDOM}, {"rl2": MAML, "random": RANDOM}
    assert aggregate({"one": one, "other": other}) is None
    assert aggregate({"one": {"maml": MAML}}) is None


def width_of_axes(drawing: Drawing) -> float:
    arrange(drawing.figure)
    return drawing.figure.axes[0].get_position().width * drawing.figure.get_figwidth()


def test_long_names_leave_the_axes_their_room():
    statistics, chances = np.full((3, 2, 3), 0.5), np.full((3, 2, 2), 0.5)
    widths = []
    for names in (["maml_trpo", "mine"], ["maml_trpo", "mine" * 12]):
        drawings = (
            draw_statistics(names, method_styles(names), statistics, "A"),
            draw_improvements(names, chances, "A"),
        )
        widths.append([width_of_axes(drawing) for drawing in drawings])
    assert np.min(np.divide(widths[1], widths[0])) > 0.8
