"""Reports: what is on the page, in a real browser where there is one, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import metarl
from metarl.config_files import make_config
from metarl.core.errors import StorageError, UserError
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.continual import forgetting
from metarl.reporting.pooling import (
    MethodPart,
    by_label,
    comparable,
    config_differences,
    pooled_scores,
    results_by_method,
)
from metarl.reporting.report import MAX_EVENTS, embed_video, write_report
from metarl.reporting.report_lead import format_number, lead, title
from metarl.reporting.report_sections import improvements, make_section, method_row
from metarl.reporting.summary import read_summaries
from metarl.reporting.training_figures import interpolate, moving_mean
from metarl.rollout.failures import Failure
from metarl.runs.logs import RunLogs
from metarl.runs.printing import count_text
from metarl.runs.result import Evaluation
from metarl.runs.result_files import read_results
from metarl.runs.run import Run
from metarl.training.loop import train
from tests.browser import DESK, PHONE, accessibility_violations, overflow

pytestmark = pytest.mark.all_formats
TINY = {
    "iterations": 3,
    "num_tasks": 2,
    "num_episodes": 3,
    "env.horizon": 6,
    "agent.policy.hidden": [8],
    "tracking.mode": "disabled",
}
PAPER = 720
"""Width of A4 between its margins, pixels."""
NAME = "k_step-test-tasks_5-episodes_2-steps_1"
TROUBLED = "k_step-test-tasks_6-episodes_2-steps_1"


def make_run(folder, name="point_nav/maml_trpo", **overrides):
    return train(metarl.load_config(name, **{**TINY, **overrides}), folder).directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one method, one of another whose label is no friend of HTML, evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    made = [
        make_run(folder / "a0"),
        make_run(folder / "a1", seed=1),
        make_run(folder / "b", "point_nav/reptile", method="<script>alert(1)</script>"),
    ]
    for run in made:
        evaluate_run(run, tasks=5, episodes=2, steps=1, against=["random"])
    for protocol in ("continual", "robust", "few_episode", "ood"):
        evaluate_run(made[0], protocol=protocol, tasks=5, episodes=2, steps=1)
    (made[0] / "videos").mkdir()
    (made[0] / "videos" / "adaptation.mp4").write_bytes(b"not a real video")
    return made


@pytest.fixture(scope="module")
def files(runs):
    return write_report(runs)


@pytest.fixture(scope="module")
def page(files):
    return files[0].read_text()


def test_the_page_stands_alone_and_its_figures_beside_it(files, runs, page):
    folder = runs[0] / "report"
    assert files[0] == folder / "report.html"
    assert {f"learning.{ending}" for ending in ("png", "pdf", "svg", "csv")} <= {
        file.name for file in files
    }
    assert all(file.parent == folder and file.stat().st_size > 0 for file in files)
    assert sorted(folder.iterdir()) == sorted(files)
    # Nothing is fetched: the only addresses are names, such as that of the SVG format.
    fetched = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']*)""", page)
    assert fetched == []
    assert "url(http" not in page


def test_the_contents_lead_to_every_section(page):
    contents = re.findall(r'<li><a href="#([^"]*)">([^<]*)</a></li>', page)
    assert contents == re.findall(r'<h2 id="([^"]*)">([^<]*)</h2>', page)
    assert ("diagnostics", "Diagnostics of training") in contents


def test_labels_are_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_what_is_on_the_page(page):
    for text in (
        "k_step-test",
        "few_episode-test",
        "continual-test",
        "backward transfer",
        "robust-test",
        "ood-test",
        "probability of improvement",
        "agent.outer.update",
        "data:video/mp4;base64,",
        "a0-repeated --protocol k_step --split test --tasks 5 --episodes 2 --steps 1 --seed 0",
    ):
        assert text in page, text
    # learning (2), diagnostics, and what five evaluations are shown by
    assert page.count("<svg") == 3 + 3 + 3 + 3 + 1 + 1


def test_seeds_are_pooled_and_baselines_are_shown_once(runs):
    found = by_label(comparable(results_by_method(read_summaries(runs), NAME)))
    scores = {name: pooled_scores(seeds) for name, seeds in found.items()}
    assert {name: values.shape for name, values in scores.items()} == {
        "maml_trpo": (2, 5, 2),
        "<script>alert(1)</script>": (1, 5, 2),
        "random": (1, 5, 2),
    }
    returns = json.loads((runs[1] / "evaluation" / f"{NAME}.json").read_text())
    second = returns["methods"]["maml_trpo"]["parts"][""]["mean"]
    assert scores["maml_trpo"][1].mean(0).tolist() == pytest.approx(second)


def test_configs_differ_where_they_do(runs):
    found = config_differences(read_summaries(runs))
    assert found["seed"] == [0, 1, 0]
    assert found["agent.outer.update"] == ["trpo", "trpo", "reptile"]
    assert "num_tasks" not in found


def test_the_model_card_says_what_the_policy_is(files):
    card = next(file for file in files if file.suffix == ".md").read_text()
    assert "# a0" in card
    assert "`point_nav`" in card
    assert "| maml_trpo | 2 |" in card
    assert "agent.inner.lr: 0.5" in card


def test_a_report_of_a_run_that_was_not_evaluated(svg_only, tmp_path):
    files = write_report([make_run(tmp_path / "run")], tmp_path / "out")
    page = files[0].read_text()
    assert f"Not evaluated yet: metarl evaluate {tmp_path / 'run'}" in page
    assert re.search(
        r'<p class="lead">Trained for 3 iterations \(216 env steps\); the return', page
    )


def test_a_folder_may_have_a_name_in_another_encoding(svg_only, tmp_path):
    run = make_run(tmp_path / os.fsdecode(b"r\xfcn"))
    files = write_report([run], tmp_path / "out")
    assert "r?n" in files[0].read_text()


def test_a_title_names_the_first_methods():
    assert title(["a", "b", "c"]) == "a, b, c"
    assert title(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_returns_of_a_table_have_equally_many_decimals(runs):
    section = make_section(read_summaries(runs), NAME)
    largest = max(abs(cell.mean) for row in section.rows for cell in row.cells if cell)
    assert section.decimals == (2 if largest < 10 else 1)
    assert format_number(9.876, 1) == "9.9"
    assert format_number(-0.04, 1) == "0.0"
    assert [format_number(each) for each in (9.876, 10.26, -0.0512)] == ["9.88", "10.3", "-0.0512"]


def test_numbers_of_things():
    assert count_text(1, "adaptations") == "1 adaptation"
    assert count_text(1, "episodes of experience") == "1 episode of experience"
    assert count_text(3, "adaptations") == "3 adaptations"


def test_writing_again_replaces(svg_only, runs, files):
    assert write_report(runs)[0].read_text() == files[0].read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE], ids=["desk", "phone"])
def test_a_browser_shows_it(files, open_page, width, scheme):
    """Nothing runs off the screen, every figure has its size and a text, no text has become an
    element, and everybody can use the page."""
    page = open_page(files[0], width=width, scheme=scheme)
    assert overflow(page) <= 0
    figures = page.eval_on_selector_all(
        "figure svg", "all => all.map(each => [each.clientWidth, each.getAttribute('aria-label')])"
    )
    assert len(figures) == 14
    assert min(size for size, _ in figures) > 200
    assert all(len(text) > 50 for _, text in figures)
    assert page.locator("td script").count() == 0
    assert accessibility_violations(page) == []


def test_the_summary_and_the_main_figure_come_first_and_use_the_width(files, open_page):
    page = open_page(files[0])
    assert page.locator("h1").inner_text() == "2D navigation: MAML-TRPO, <script>alert(1)</script>"
    summary = page.locator(".lead").inner_text()
    assert re.match(r"On 5 test tasks of 2D navigation, .* has a mean return of -[\d.]+ ", summary)
    assert "For comparison: " in summary
    first, second = (page.locator("figure").nth(number).bounding_box() for number in (0, 1))
    assert "Mean return against" in page.locator("figure").first.inner_text()
    assert first["y"] + first["height"] < 900  # on the first screen
    assert (first["y"], first["height"]) == (second["y"], second["height"])
    assert page.locator(".figures").first.bounding_box()["width"] > 0.9 * DESK


def test_a_printed_page_is_light_and_whole(files, open_page):
    """Nothing is scrolled on paper, and a browser shrinks a page to half its size at most."""
    page = open_page(files[0], width=PAPER, scheme="dark")
    page.emulate_media(media="print")
    scrolled = "all => all.map(each => getComputedStyle(each).overflowX)"
    assert {*page.eval_on_selector_all(".scroll", scrolled)} == {"visible"}
    cut = "all => all.map(each => each.getBoundingClientRect().right)"
    assert max(page.eval_on_selector_all("table, figure, pre", cut)) < 2 * PAPER
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"


def test_figures_are_dark_on_a_dark_page(files, open_page):
    """Their texts are light, and there is no white ground."""
    page = open_page(files[0], scheme="dark")
    look = """each => [getComputedStyle(each.querySelector("text")).fill,
        getComputedStyle(each.querySelector("path")).fill,
        getComputedStyle(each.closest("figure")).backgroundColor]"""
    text, ground, card = page.locator("figure svg").first.evaluate(look)
    assert (text, ground, card) == ("rgb(230, 232, 236)", "none", "rgb(26, 30, 37)")


def test_the_controls_of_a_video_are_below_its_picture(open_page, tmp_path, files):
    """The box is higher than the picture, which is at its top: captions are at the bottom of the
    picture, and a browser draws the controls at the bottom of the box."""
    wide = tmp_path / "run" / "videos" / "wide.mp4"
    wide.parent.mkdir(parents=True)
    header = bytes(84) + (640 << 16).to_bytes(4, "big") + (360 << 16).to_bytes(4, "big")
    wide.write_bytes(b"\0\0\0\x08ftyp" + (8 + len(header)).to_bytes(4, "big") + b"tkhd" + header)
    assert embed_video(wide)["ratio"] == 0.5625
    box = open_page(files[0]).locator("video").bounding_box()
    assert box["height"] - 0.5625 * box["width"] == pytest.approx(72, abs=1)


def test_tables_say_what_their_columns_are(page):
    head = page[page.index("<thead>") : page.index("</thead>")]
    names = re.findall(r"<th[^>]*>([^<]*)</th>", head)
    about = "adaptations: mean return, below it 95% interval and IQM"
    assert names == ["method", "seeds", about, "0", "1"]
    assert re.search(r'<td class="main">[-\d.]+<small>[-\d.]+ to [-\d.]+</small><small>IQM', page)


def test_runs_of_different_families_are_refused(runs, tmp_path):
    other = make_run(tmp_path / "other", "tabular_mdp/maml_trpo")
    with pytest.raises(UserError, match=r"share a report: .* of point_nav, .*other of tab"):
        write_report([runs[0], other])


def test_a_run_without_iterations_is_refused(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="copy: nothing was trained yet"):
        write_report([copy])


def test_a_damaged_result_is_named(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    (copy / "evaluation" / "k_step-test-mine.json").write_text('{"returns": [1]}')
    with pytest.raises(UserError, match=r"k_step-test-mine\.json: not a result file"):
        write_report([copy])


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("robust-test", {}, "robust-test.json: expected results of the protocol robust, got those"),
        ("continual-test-mine", {}, "expected results of the protocol continual, got those"),
        ("k_step-test", {"overrides": [1]}, r"overrides: expected keys with values, got \[1\]"),
        ("k_step-test", {"perturbations": {"a": 1}}, "perturbations: expected lists of strengths"),
        ("k_step-test", {"protocol": 5}, "protocol: expected a text, got 5"),
    ],
)
def test_a_result_file_with_other_content_than_its_name_is_refused(
    runs, tmp_path, name, change, error
):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    content = json.loads((copy / "evaluation" / f"{NAME}.json").read_text())
    (copy / "evaluation" / f"{name}.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(UserError, match=error):
        read_summaries([copy])


@pytest.mark.parametrize("value", ["x", 1.5, [1]])
def test_a_result_file_has_a_whole_number_of_iterations_and_parts_that_agree(runs, tmp_path, value):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    path = copy / "evaluation" / f"{NAME}.json"
    content = json.loads(path.read_text())
    own, other = content["methods"].values()
    path.write_text(json.dumps({**content, "methods": {"maml_trpo": {**own, "iteration": value}}}))
    with pytest.raises(UserError, match="iteration: expected a whole number, got"):
        read_summaries([copy])
    other["parts"] = {"another": other["parts"][""]}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="expected the same parts of all methods"):
        read_summaries([copy])


def test_an_untrained_agent_with_the_returns_of_a_run_has_a_row_all_the_same(runs, tmp_path):
    """As where all rewards are 0."""
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    path = copy / "evaluation" / f"{NAME}.json"
    content = json.loads(path.read_text())
    own = content["methods"]["maml_trpo"]
    content["methods"]["random"]["parts"] = own["parts"]
    path.write_text(json.dumps(content))
    rows = make_section(read_summaries([copy]), NAME).rows
    assert [row.name for row in rows] == ["maml_trpo", "random"]


@pytest.mark.parametrize("name", ["mine.json", "my-notes.json"])
def test_a_file_of_the_users_beside_the_results_is_named_and_left_out(runs, tmp_path, capsys, name):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    (copy / "evaluation" / name).write_text('{"returns": [1]}')
    (summary,) = read_summaries([copy])
    known = [*Run.open(runs[0]).evaluations()]
    assert [*summary.evaluations] == [*Run.open(copy).evaluations()] == known
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith(f"metarl: warning: {copy / 'evaluation' / name}: left out: result ")


def test_evaluations_on_other_tasks_are_not_put_together(runs, tmp_path):
    """Fewer tasks for one seed than for another would count as if they were the same."""
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy)
    _, file = evaluate_run(copy, tasks=3, episodes=2, steps=1)
    same = file.with_name(f"{NAME}.json")  # as files of before are named
    file.replace(same)
    with pytest.raises(UserError, match=rf"{NAME}: a0 was evaluated on 5 tasks .*, copy on 3"):
        write_report([runs[0], copy], tmp_path / "out")
    evaluate_run(copy, tasks=5, episodes=2, steps=2)[1].replace(same)
    with pytest.raises(UserError, match=r"1 adaptation, .*, copy on 5 tasks .*, 2 adaptations"):
        write_report([runs[0], copy], tmp_path / "out")
    for name, more in (("deterministic actions", {"deterministic": True}), ("seed 1", {"seed": 1})):
        evaluate_run(copy, tasks=5, episodes=2, steps=1, **more)[1].replace(same)
        with pytest.raises(UserError, match=rf"copy on 5 tasks .*, {name}"):
            write_report([runs[0], copy], tmp_path / "out")
    evaluate_run(copy, tasks=5, episodes=3, steps=1)[1].replace(same)
    with pytest.raises(UserError, match=r"2 episodes each, seed 0, copy on 5 tasks .*, 3 episodes"):
        write_report([runs[0], copy], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def copied(run, copy):
    """Copy a run with one evaluation; return the copy, the file of results, what is in it, and the
    result in that."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation"))
    path = copy / "evaluation" / f"{NAME}.json"
    path.parent.mkdir()
    shutil.copy(run / "evaluation" / path.name, path)
    content = json.loads(path.read_text())
    (result,) = content["methods"]["maml_trpo"]["parts"].values()
    return copy, path, content, result


def test_numbers_that_cannot_be_drawn_are_refused(svg_only, runs, tmp_path):
    copy, path, content, result = copied(runs[0], tmp_path / "copy")
    result["tasks"] = [[5e-324, 1e17]] * 5
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="numbers that no axis can show"):
        write_report([copy], tmp_path / "out")


def test_success_rates_are_on_the_page(svg_only, runs, tmp_path):
    copy, path, content, result = copied(runs[0], tmp_path / "copy")
    won = [[[True, False], [True, True]]] * 4 + [[[False, False], [True, True]]]
    path.write_text(json.dumps(content | {"methods": {"maml_trpo": {"parts": {"": result}}}}))
    assert ", success and IQM" not in write_report([copy], tmp_path / "out")[0].read_text()
    result["success"] = won
    path.write_text(json.dumps(content))
    page, card = write_report([copy], tmp_path / "out")[:2]
    assert ", success and IQM" in page.read_text()
    for text in (page, card):
        assert "success 40%" in text.read_text()
        assert "success 100%" in text.read_text()


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_left(runs, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(runs, blocked / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_later_is_no_invalid_input(runs, tmp_path):
    (tmp_path / "report.html" / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(runs, tmp_path)


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        write_report([tmp_path])


# --- what went wrong ---


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A run with episodes left out and updates skipped, and an event that is no friend of
    HTML in its record; evaluated."""
    data = {
        "env": {"family": "tests.faulty:FaultyNav", "share": 0.1},
        "on_failure": "skip_update",
        "method": "maml",
    }
    folder = tmp_path_factory.mktemp("troubled") / "run"
    settings = {**TINY, "iterations": 5, "agent.outer.update": "adam"}
    run = train(make_config(data, "test", settings), folder)
    # As if nothing had been left of the third iteration.
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    lines[2] |= {"return_before": None, "return_after": None, "adaptation_gain": None}
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.record(5, [Failure("warning", "<script>alert(2)</script>")])
    path = run.failures_file
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    evaluate_run(folder, tasks=6, episodes=2, steps=1, against=["random"])
    return run


def test_a_page_says_what_went_wrong(svg_only, troubled):
    files = write_report([troubled.directory])
    page = files[0].read_text()
    events, lines = troubled.failures(), troubled.metrics()
    episodes = sum(each["kind"] == "episode" for each in events)
    skipped = sum(line["skipped_update"] for line in lines)
    assert episodes > MAX_EVENTS
    counts = f"{episodes} episodes left out, {skipped} updates skipped, 1 warnings"
    assert f"<p>run: {counts}. The first:</p>" in page
    assert "<script>alert(2)" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert page.count("<td>skip_update</td>") == MAX_EVENTS - 1
    assert re.search(r"<p>maml: \d+ episodes.* left out \(first: task \d \[.*\)</p>", page)
    card = next(file for file in files if file.suffix == ".md").read_text()
    assert f"| Trouble | {counts} |" in card
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    "entry",
    [
        {"iteration": 1},
        {"iteration": 1, "kind": "episode"},
        {"iteration": 1, "kind": "episode", "reason": "a reason"},
        {"iteration": 1, "kind": ["episode"], "reason": "a reason", "handled": "stop"},
        {"iteration": 1, "kind": "episode", "reason": "a reason", "handled": "stop", "task": 3},
        {"kind": "episode", "reason": "a reason", "handled": "stop"},
    ],
)
def test_entries_of_failures_that_lack_a_key_are_left_out(tmp_path, entry):
    logs = RunLogs(tmp_path)
    whole = {"iteration": 2, "kind": "update", "reason": "a reason", "handled": "stop"}
    logs.log_failures([whole, entry, {**whole, "task": [0.5]}])
    assert logs.failures() == [whole, {**whole, "task": [0.5]}]


def test_a_page_of_a_healthy_run_says_nothing_of_it(page, files):
    card = next(file for file in files if file.suffix == ".md").read_text()
    assert "left out" not in page + card
    assert "Trouble" not in card


def test_curves_leave_out_what_there_is_not():
    """Means over those of the last values that there are, and lines between them."""
    nan = float("nan")
    smooth = moving_mean(np.array([1.0, nan, 3.0, nan, nan, 8.0]), 2)
    np.testing.assert_array_equal(smooth, [1.0, 1.0, 3.0, 3.0, nan, 8.0])
    grid, axis = np.array([0.0, 1.0, 4.0, 5.0]), np.arange(6.0)
    np.testing.assert_array_equal(interpolate(grid, axis, smooth), [1.0, 1.0, 5.5, 8.0])
    assert np.isnan(interpolate(grid, axis, np.full(6, nan))).all()


def test_tasks_that_one_method_lost_are_pooled_for_none(troubled, tmp_path):
    """Otherwise the means, and pairs of methods, would be over different tasks."""
    copy = tmp_path / "copy"
    shutil.copytree(troubled.directory, copy)
    path = copy / "evaluation" / f"{TROUBLED}.json"
    content = json.loads(path.read_text())
    found = {name: each["parts"][""] for name, each in content["methods"].items()}
    found["random"]["returns"][3][1] = [None, None]
    path.write_text(json.dumps(content))
    results = read_results(path)
    pooled = by_label(comparable(results_by_method(read_summaries([copy]), TROUBLED)))
    scores = {name: pooled_scores(seeds) for name, seeds in pooled.items()}
    assert {values.shape for values in scores.values()} == {(1, 5, 2)}
    kept = [0, 1, 2, 4, 5]
    for name in ("maml", "random"):
        assert np.array_equal(scores[name][0], results[name][""].by_task[kept])
    for task in range(6):
        found["random"]["returns"][task][0] = [None, None]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="maml: no task is left"):
        comparable(results_by_method(read_summaries([copy]), TROUBLED))


def test_a_sequence_is_left_out_whole():
    """Otherwise forgetting would be computed from tasks of different sequences."""
    returns = np.arange(20.0)[:, None, None] + np.zeros((20, 6, 1))
    returns[[3, 4, 6], 2] = np.nan
    tasks = np.arange(20.0)[:, None]
    lossy = Evaluation("f", "test", "hash", tasks, returns, sequence_length=5)
    (kept,) = comparable({"a": [lossy]})["a"]
    assert np.array_equal(kept.mean, lossy.mean)
    assert kept.tasks[:, 0].tolist() == [*range(10, 20)]
    assert len(forgetting(kept).average) == 2


def test_a_seed_that_tells_of_no_success_had_none():
    """Some environments report a success only once there is one."""
    tasks, returns = np.arange(4.0)[:, None], np.zeros((4, 1, 2))
    rare = np.zeros((4, 1, 2), bool)
    rare[0, 0, 0] = True
    one, none = (Evaluation("f", "test", "hash", tasks, returns, success=x) for x in (rare, None))
    seeds = comparable({"a": [one, none, none], "b": [none]})
    assert method_row(MethodPart("a", ""), seeds["a"], 1).cells[0].success == 1 / 24
    assert method_row(MethodPart("b", ""), seeds["b"], 1).cells[0].success == 0
    assert comparable({"b": [none]})["b"][0].success is None


def test_tasks_that_a_baseline_lost_are_told(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    path = copy / "evaluation" / f"{NAME}.json"
    content = json.loads(path.read_text())
    content["methods"]["random"] = json.loads(json.dumps(content["methods"]["maml_trpo"]))
    (part,) = content["methods"]["random"]["parts"].values()
    place = {"task_index": 3, "task": part["tasks"][3], "adaptation_step": 1, "step": 0}
    part["returns"][3][1] = [None, None]
    part["failures"] = [
        {"kind": "episode", "reason": "it fell", **place, "episode": each} for each in (0, 1)
    ]
    path.write_text(json.dumps(content))
    section = make_section(read_summaries([copy]), NAME)
    lost, common = section.notes
    assert lost.startswith("random, beside copy: 2 episodes and 1 of 5 tasks left out (first: ")
    assert common == (
        "All returns are over 4 of 5 tasks, those that every method and seed has played to the end"
    )
    assert section.num_tasks == 4


def test_a_baseline_that_is_one_of_the_runs_is_not_counted_twice(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    path = copy / "evaluation" / f"{NAME}.json"
    content, other = (
        json.loads((each / "evaluation" / f"{NAME}.json").read_text()) for each in (copy, runs[1])
    )
    (entry,) = (x for label, x in other["methods"].items() if label != "random")
    content["methods"]["the other run"] = entry
    path.write_text(json.dumps(content))
    alone = [row.name for row in make_section(read_summaries([copy]), NAME).rows]
    assert "the other run" in alone
    both = make_section(read_summaries([copy, runs[1]]), NAME)
    assert "the other run" not in [row.name for row in both.rows]


def test_only_methods_on_the_same_tasks_are_compared_in_pairs():
    """Of the parts of `ood`, task i of one has nothing to do with task i of the other."""
    tasks, returns = np.arange(4.0)[:, None], np.arange(4.0)[:, None, None]
    one, other = (Evaluation("f", "test", name, tasks, returns) for name in ("in", "out"))
    parts = (MethodPart(method, part) for part in ("in", "out") for method in ("a", "b"))
    results = {key: [one if key.part == "in" else other] for key in parts}
    pairs = [(each.method, each.other) for each in improvements(results)]
    assert pairs == [("a, in", "b, in"), ("a, out", "b, out")]


def test_two_parts_of_a_method_are_compared_run_by_run():
    """The runs differ by far more than the parts do, which gain 1, 2, 3 and 2 in each run."""
    tasks, gain = np.arange(4.0)[:, None], np.array([1.0, 2.0, 3.0, 2.0])

    def part(each):
        returns = [100.0 * run + tasks[:, 0] + each for run in range(3)]
        return [Evaluation("f", "test", "hash", tasks, x[:, None, None]) for x in returns]

    gains = {("a", "on"): gain, ("a", "off"): 0 * gain, ("b", "off"): 0 * gain}
    results = {MethodPart(*names): part(each) for names, each in gains.items()}
    found = {(each.method, each.other): each for each in improvements(results)}
    paired = found["a, on", "a, off"]
    assert (paired.probability, paired.difference) == (1.0, 2.0)
    expected = stats.t.interval(0.95, 3, 2.0, stats.sem(gain))
    assert (paired.low, paired.high) == pytest.approx(expected)
    assert paired.verdict == "better"
    other = found["a, on", "b, off"]
    assert other.verdict == "undecided"
    assert other.probability == pytest.approx(2 / 3)  # all of the same number, and of a lower one
    assert other.high - other.low > 400


def test_a_scatter_says_how_many_results_it_leaves_out(runs, monkeypatch):
    def caption() -> str:
        return make_section(read_summaries(runs), NAME).figures[f"{NAME}-tasks"].caption

    assert "Drawn are" not in caption()
    monkeypatch.setattr(metarl.reporting.report_sections, "MAX_SCATTERS", 1)
    assert caption().endswith(" Drawn are the 1 best of 2 results.")


def test_drifting_tasks_are_not_drawn_where_they_were_before(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    evaluate_run(copy, protocol="drift", tasks=5, episodes=2, steps=1)
    name = "drift-test-tasks_5-episodes_2-steps_1"
    section = make_section(read_summaries([copy]), name)
    assert section.figures.keys() == {name, f"{name}-profile"}
    (pair,) = section.improvements
    assert {pair.method, pair.other} == {"maml_trpo, adapting", "maml_trpo, not adapting"}


def test_the_summary_names_the_tasks_of_its_row(runs):
    summaries = read_summaries([runs[0]])
    section = make_section(summaries, "ood-test-tasks_5-episodes_2-steps_1")
    rows = {row.name.partition(", ")[2]: row for row in section.rows}
    (best,) = (row for part, row in rows.items() if part == "out of distribution")
    text = lead(summaries, [replace(section, rows=[best])], {best.name: "maml"})
    assert text.startswith("On 5 ood tasks of 2D navigation, maml (1 seed) has a mean return of")


def test_the_summary_is_of_the_runs_whatever_the_names_of_baselines(runs):
    summaries = read_summaries([runs[0]])
    section = make_section(summaries, NAME)
    own = next(row for row in section.rows if row.method == "maml_trpo")
    cells = [cell and cell._replace(mean=cell.mean + 1) for cell in own.cells]
    better = replace(own, name="maml_trpo, other", method="maml_trpo, other", cells=cells)
    texts = {row.name: row.name for row in (own, better)}
    text = lead(summaries, [replace(section, rows=[own, better])], texts)
    assert "tasks of 2D navigation, maml_trpo (1 seed) has a mean return of" in text
