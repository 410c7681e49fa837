"""The style of figures: colours for everybody, limits, names, and files that stay the same."""

from __future__ import annotations

import csv
import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from metarl.config_files import config_names
from metarl.envs import FAMILIES
from metarl.reporting import names
from metarl.reporting.figures import adaptation_curves
from metarl.reporting.pooling import MethodPart, part_styles
from metarl.reporting.score_figures import profiles, returns_by_task
from metarl.reporting.style import (
    COLOURS,
    DARK_COLOURS,
    FORMATS,
    PALETTE,
    Drawing,
    drawing_style,
    figure_bytes,
    legend_below,
    limit_axis,
    method_style,
    page_svg,
    save_drawing,
)
from metarl.runs.result import Evaluation

# Linear RGB as seen with deuteranopia and protanopia (Machado, Oliveira and Fernandes 2009,
# severity 1).
pytestmark = pytest.mark.all_formats
VISION = {
    "trichromacy": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.119192, 0.9503041],
    ]
)
WHITE = TO_XYZ.sum(axis=1)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour."""
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB: about 2 of distance is the least that one sees."""
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as the accessibility guidelines (WCAG 2) define it."""
    low, high = sorted(float(TO_XYZ[1] @ linear(each)) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_lab_knows_black_and_white():
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], atol=1e-3)
    np.testing.assert_allclose(lab(linear("#000000")), [0, 0, 0], atol=1e-3)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("colours", "page"), [(COLOURS, "#ffffff"), (DARK_COLOURS, "#15181d")])
def test_everybody_tells_the_colours_apart(vision, colours, page):
    seen = [lab(VISION[vision] @ linear(colour)) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 25
    assert min(contrast(colour, page) for colour in colours) > 3


def test_no_style_repeats_within_twelve_methods():
    """Where the colour is the same, line and marker are not."""
    styles = [method_style(number) for number in range(13)]
    for one, other in combinations(styles[:12], 2):
        assert one.colour != other.colour or (one.line != other.line and one.marker != other.marker)
    assert styles[12] == styles[0]


def axes_with(typical, drawn):
    axes = Figure().subplots()
    return axes, limit_axis(axes, np.array(typical), np.array(drawn))


def test_one_value_far_away_does_not_squash_the_others():
    axes, note = axes_with([0.0, 10.0], [0.0, 10.0, 12.0, -4000.0])
    low, high = axes.get_ylim()
    assert -13 < low < -10 < 12 < high < 14
    assert note == "cut off: down to -4000"


def test_values_near_the_typical_ones_are_all_shown():
    axes, note = axes_with([0.0, 10.0], [-9.0, 19.0, np.nan])
    assert axes.get_ylim()[0] < -9 < 19 < axes.get_ylim()[1]
    assert note == ""
    assert axes_with([1.0, 1.0], [5.0])[1] == ""  # nothing tells how far is far
    assert axes_with([], [np.nan])[1] == ""


def curves(*finals, episodes=1):
    """Two methods: one with seeds that end at `finals`, one that ends at 8."""
    tasks = np.arange(3.0)[:, None]

    def result(final):
        returns = np.broadcast_to(np.array([0.0, final])[None, :, None], (3, 2, episodes))
        return Evaluation("half_cheetah_vel", "test", "hash", tasks, returns + tasks[:, :, None])

    return {"maml_trpo": [result(each) for each in finals], "mine": [result(8.0)]}


def test_one_seed_of_three_does_not_squash_the_rest_of_a_figure():
    axes = adaptation_curves(curves(10, 11, -9000)).figure.axes[0]
    assert axes.get_ylim()[0] > -20
    assert axes.get_title(loc="right").startswith("cut off: down to -")
    assert adaptation_curves(curves(10, 11, 12)).figure.axes[0].get_title(loc="right") == ""


def test_differences_within_wide_bands_are_not_drawn_large():
    """The bands of both methods are -3 to 23 or wider, their means 1 apart."""
    tasks = np.arange(4.0)[:, None]
    noise = np.array([-10.0, 10, -10, 10])[:, None, None]
    results = {
        name: [
            Evaluation("half_cheetah_vel", "test", "hash", tasks, noise + np.full((4, 2, 1), at))
        ]
        for name, at in (("one", 10.0), ("two", 11.0))
    }
    axes = adaptation_curves(results).figure.axes[0]
    low, high = results["one"][0].interval[0]
    assert axes.get_ylim()[0] < low < high < axes.get_ylim()[1]
    assert axes.get_title(loc="right") == ""


@pytest.mark.parametrize("scores", [[1, 1, 1, 3], [2, 2]])
def test_a_profile_goes_from_all_to_none(scores):
    tasks = np.arange(len(scores))[:, None]
    result = Evaluation("bandit", "test", "hash", tasks, np.array(scores, float)[:, None, None])
    shares = [row[2] for row in profiles({"mine": [result]}).rows]
    assert (shares[0], shares[-1]) == (1, 0)


def test_a_seed_far_from_the_others_is_in_the_profile_or_in_the_note_above_it():
    """Medians over seeds are 1 and 3: what is at most 2 away is shown."""
    seeds = [(1, 3), (1, 3), (5, 3)]
    shares = {}
    for far in (5, 1000):
        scores = np.array([*seeds[:2], (far, 3)], float)[:, :, None, None]
        results = [Evaluation("bandit", "test", "hash", np.array([[0], [1]]), x) for x in scores]
        drawing = profiles({"mine": results})
        note = drawing.figure.axes[0].get_title(loc="right")
        shares[note] = drawing.rows[-1][2]
    assert shares == {"": 0, "cut off: up to 1000": pytest.approx(1 / 6)}


def test_twelve_methods_are_drawn_in_their_styles():
    methods = {f"method {number}": curves(10)["mine"] for number in range(12)}
    lines = adaptation_curves(methods).figure.axes[0].lines
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == 12


def test_parts_of_a_method_share_its_colour_and_differ_in_the_line():
    keys = [MethodPart(method, part) for method in ("mine", "maml") for part in ("in", "out")]
    styles = part_styles(keys, ["maml", "rl2"])
    assert styles["maml, in"] == method_style(0)
    assert styles["mine, in"] == method_style(2)
    for method in ("maml", "mine"):
        one, other = styles[f"{method}, in"], styles[f"{method}, out"]
        assert one.colour == other.colour
        assert (one.line, one.filled) != (other.line, other.filled)


def test_labels_are_names_and_axes_have_units():
    axes = adaptation_curves(curves(10)).figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["MAML-TRPO", "mine"]
    assert axes.get_ylabel() == "mean return (band: 95% interval)"
    (task_axes,) = returns_by_task({"mine": curves(1)["mine"][0]}).figure.axes
    assert task_axes.get_xlabel() == "goal velocity (m/s)"


def test_many_values_of_x_leave_room_between_their_labels():
    returns = np.arange(26.0)[None, :, None] + np.zeros((3, 26, 1))
    result = Evaluation("point_nav", "test", "hash", np.arange(3.0)[:, None], returns)
    axes = adaptation_curves({"maml": [result]}).figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*map(str, range(0, 26, 2))]
    assert axes.get_xticks().tolist() == [*range(0, 26, 2)]


def test_a_legend_is_below_the_axes():
    figure = adaptation_curves(curves(10)).figure
    figure.draw_without_rendering()
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    assert axes.get_legend() is None


def test_twelve_long_labels_fit_below_a_figure():
    figure = Figure(figsize=(5, 3.3), layout="constrained")
    axes = figure.subplots()
    for number in range(12):
        axes.plot([0, 1], label=f"MAML-TRPO (agent.inner.lr: 0.{number:02})")
    legend_below(figure, [axes])
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x0 >= 0
    assert axes.get_window_extent().height > 150


def test_maps_of_tasks_share_one_scale():
    tasks = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    results = {
        name: Evaluation("point_nav", "test", "hash", tasks, np.full((4, 2, 1), value))
        for name, value in (("one", 1.0), ("two", 5.0))
    }
    one, two, scale = returns_by_task(results).figure.axes
    assert one.collections[0].get_clim() == two.collections[0].get_clim() == (1, 5)
    assert scale.get_ylabel() == "mean return"
    assert (one.get_xlabel(), one.get_ylabel()) == ("goal x", "goal y")


def test_the_files_of_a_figure_have_real_text_and_its_numbers(tmp_path):
    files = save_drawing(adaptation_curves(curves(10, 12)), tmp_path / "figure.png")
    assert [file.name for file in files] == [f"figure.{ending}" for ending in FORMATS]
    png, pdf, svg, numbers = (file.read_bytes() for file in files)
    assert png.startswith(b"\x89PNG")
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf  # a TrueType font, whose text can be selected and edited
    assert b">MAML-TRPO</text>" in svg
    rows = list(csv.DictReader(numbers.decode().splitlines()))
    first = next(row for row in rows if (row["method"], row["x"]) == ("maml_trpo", "1"))
    assert (first["seeds"], float(first["mean"])) == ("2", 12.0)  # mean of 10 + 1 and 12 + 1
    assert len(rows) == 4


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    def files(folder):
        folder.mkdir()
        made = save_drawing(adaptation_curves(curves(10, 12)), folder / "figure.png")
        return [file.read_bytes() for file in made]

    one, other = files(tmp_path / "one"), files(tmp_path / "other")
    assert one == other
    assert not re.search(rb"20\d\d-\d\d-\d\d|CreationDate", b"".join(one))


def test_a_figure_on_a_page_follows_its_colours_and_shares_no_ids():
    drawing = adaptation_curves(curves(10))
    with drawing_style():
        svg = figure_bytes(drawing, "svg")
    found = [page_svg(svg, name, 'a <b> "c"') for name in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in found]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text in found:
        assert not any(colour in text for colour in PALETTE)
        assert "var(--series-0)" in text
        assert 'aria-label="a &lt;b&gt; &quot;c&quot;"' in text
        used = set(re.findall(r'(?:url\(#|href="#)([^")]*)', text))
        assert used <= ids[0] | ids[1]


def test_a_label_that_names_a_colour_stays_as_it_is():
    figure = Figure()
    figure.subplots().set_title(f"stroke: {COLOURS[0]}")
    with drawing_style():
        svg = figure_bytes(Drawing(figure, "", (), ()), "svg")
    assert f">stroke: {COLOURS[0]}</text>" in page_svg(svg, "name", "")


def test_everything_that_comes_with_the_package_has_a_name():
    for config in config_names():
        method = config.split("/")[1]
        assert names.method_text(method) != method, config
    assert set(FAMILIES) <= set(names.FAMILIES)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("maml_trpo", "MAML-TRPO"),
        ("maml_trpo_tuned", "MAML-TRPO, tuned"),
        ("maml_trpo (agent.inner.lr: 0.1)", "MAML-TRPO (agent.inner.lr: 0.1)"),
        ("rl2, nominal", "RL², nominal"),
        ("rl2, action_delay 4", "RL², action delay 4"),
        ("random (untrained)", "Random (untrained)"),
        ("mine", "mine"),
        ("mine_tuned", "mine_tuned"),
        ("<script>\n", "<script>\n"),
    ],
)
def test_names_of_methods(label, text):
    assert names.method_text(label) == text


def test_two_methods_never_have_the_same_name():
    assert names.method_texts(["maml", "MAML"]) == {"maml": "maml", "MAML": "MAML"}
    assert names.method_texts(["maml", "rl2"]) == {"maml": "MAML", "rl2": "RL²"}


def test_headings_are_not_called_forward_and_backward():
    """Tasks of ant_dir are the one or the other, by `plane`."""
    forward, heading = "direction (+1 forward, -1 backward)", "heading (rad)"
    both, plane = np.array([[1.0], [-1.0]]), np.array([[1.0], [-3.1]])
    assert names.task_texts("ant_dir", both) == [forward]
    assert names.task_texts("ant_dir", plane) == [heading]
    assert names.task_texts("half_cheetah_dir", both) == [forward]
    assert names.task_texts("humanoid_dir", plane) == [heading]


def test_names_of_evaluations():
    assert names.evaluation_text("k_step-test") == "Adaptation, test tasks"
    assert names.evaluation_text("few_episode-validation-tasks_5-trials_1-deterministic_true") == (
        "Episodes of experience, validation tasks (5 tasks, 1 trial, deterministic actions)"
    )
    assert names.evaluation_text("k_step-custom-tasks_2_5f3a9c1e") == (
        "Adaptation, tasks of your own (tasks 2 5f3a9c1e)"
    )
    name = "k_step-test-agent.inner.lr_1e-05-env.goal_low_-1.5-env.reward_dense-2"
    assert names.evaluation_text(name) == (
        "Adaptation, test tasks (agent.inner.lr 1e-05, env.goal_low -1.5, env.reward dense, 2)"
    )
