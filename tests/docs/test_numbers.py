"""The numbers in the docs are those of the stored results, digit for digit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import digits, forgetting, references, sinusoid
from examples.agents.figure import draw
from examples.agents.measure import read_complete
from examples.agents.overall import overall, overall_table
from examples.agents.scores import evaluation
from examples.agents.tables import number, tables
from examples.reproduce import figures, measure
from examples.reproduce.published import BUDGETS, PUBLISHED
from metarl.core.statistics import mean_interval
from metarl.envs import Bandit
from metarl.envs.references import bandit
from metarl.reporting.pooling import pooled_interval

ROOT = Path(__file__).parents[2]
STORED = json.loads((ROOT / "docs/results/reproduction.json").read_text())
AGENTS = json.loads((ROOT / "docs/results/agents.json").read_text())
PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in PAGE if re.match(r"\|[^|]*\|? ?`\w+/\w+` \[\d\]", line)]
TRIALS = [line for line in ROWS if re.match(r"\| `\w+/(rl2|varibad|pearl)`", line)]
"""Rows of agents whose episodes of a trial are measured."""
TITLES = {
    "half_cheetah_vel": "half_cheetah_vel, goal_high: 3.0",
    "ant_dir": "ant_dir, frame_skip: 2",
    "ant_vel": "ant_vel, frame_skip: 2",
}
"""Titles of the families of these rows in the results of all agents, if not their names."""
UNCHECKED = ("half_cheetah_dir/demo",)
"""Rows of docs/results.md that `python -m examples.docs_check` repeats."""
AVERAGED = "the same, mean of the last quarter of the checkpoints"


def means(family: str, method: str) -> str:
    results = measure.evaluations(family, STORED[family][method])
    return " | ".join(f"{each:.1f}" for each in np.mean([one.mean for one in results], axis=0))


def test_the_table_of_the_reproduction_is_that_of_the_stored_results():
    page = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8").splitlines()
    start = page.index(figures.table(STORED)[0])
    table = figures.table(STORED)
    assert page[start : start + len(table)] == table


def test_the_page_of_results_has_rows():
    assert (len(ROWS), len(TRIALS)) == (25, 9)


@pytest.mark.parametrize("row", TRIALS, ids=lambda row: row.split("`")[1])
def test_a_row_of_trials_is_that_of_the_stored_results(row):
    family, kind, seeds, returns = re.fullmatch(
        r"\| `(\w+)/(\w+)` \[(\d)\] \| [\d.]+M \| (.*) \|", row
    ).groups()
    stored = AGENTS[TITLES.get(family, family)][kind]
    assert len(stored) == int(seeds)
    runs = [evaluation(family, parts["few_episode"]) for parts in stored.values()]
    means = np.mean([run.mean for run in runs], axis=0)[:3]  # before, after one and two episodes
    assert returns == " | ".join(f"{x:,.0f}" if abs(x) >= 500 else f"{x:.1f}" for x in means)


@pytest.mark.parametrize(
    "row", [each for each in ROWS if each not in TRIALS], ids=lambda row: row.split("`")[1]
)
def test_a_row_of_results_is_that_of_the_stored_results(row):
    config, seeds, steps, returns = re.fullmatch(
        r"\|.*`(\w+/\w+)`.*\[(\d)\] \| ([\d.]+)M \| (.*) \|", row
    ).groups()
    if config in UNCHECKED:
        return
    family, method = config.split("/")
    if f"{method}, whole budget" in STORED[family]:
        method += ", whole budget"
    stored = STORED[family][method]
    assert len(stored["seeds"]) == int(seeds)
    millions = max(stored["env_steps"]) / 1e6
    assert f"{millions:.{1 if millions < 10 else 0}f}" == steps
    assert returns == means(family, method)
    following = PAGE[PAGE.index(row) + 1]
    if AVERAGED in following:
        assert following == f"| | {AVERAGED} | | {means(family, f'{method}, averaged')} |"


def test_the_untrained_row_of_results():
    assert f"| | untrained | 0 | {means('half_cheetah_dir', 'random')} |" in PAGE


def test_the_table_of_methods_is_that_of_the_stored_results():
    stored = json.loads((ROOT / "docs/results/methods-point_nav.json").read_text())
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert "\n".join(methods_table("point_nav", stored)) in page


def methods_table(family: str, rows: dict[str, Any]) -> list[str]:
    """The lines of the table, the best return after one step first. The cells of adaptations that
    an agent cannot make are empty, and such agents come last."""
    results = {method: measure.evaluations(family, row) for method, row in rows.items()}
    returns = {method: np.array([each.mean for each in seeds]) for method, seeds in results.items()}
    lines = [
        "| Method | 0 | 1 | 95% interval | by seed | 2 | 3 | Command |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def rank(method: str) -> float:
        by_seed = returns[method]
        return -by_seed[:, 1].mean() if by_seed.shape[1] > 1 else np.inf

    for name in sorted(rows, key=rank):
        by_seed, command = returns[name], rows[name]["command"]
        code = f"`{command}`" if command else "untrained"
        if by_seed.shape[1] == 1:
            lines.append(f"| {name} | {by_seed.mean():.1f} | | | | | | {code} |")
            continue
        low, high = pooled_interval(results[name])[1]
        means = [f"{value:.1f}" for value in by_seed.mean(0)]
        seeds = ", ".join(f"{value:.1f}" for value in by_seed[:, 1])
        lines.append(
            f"| {name} | {means[0]} | **{means[1]}** | {low:.1f} to {high:.1f} | {seeds} | "
            f"{means[2]} | {means[3]} | {code} |"
        )
    return lines


def test_the_table_of_sinusoids_is_that_of_the_stored_results():
    stored = json.loads((ROOT / "docs/results/sinusoid.json").read_text())
    assert sinusoid.table(stored["mse"]) in (ROOT / "docs/library.md").read_text(encoding="utf-8")


def test_the_table_of_digits_is_that_of_the_stored_results():
    stored = json.loads((ROOT / "docs/results/digits.json").read_text())
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    assert "\n".join(digits.table(stored)) in page


def test_the_exact_values_of_optima_md_are_those_of_the_references():
    """`python -m examples.docs_check optima` repeats the simulated ones too."""
    page = (ROOT / "docs/optima.md").read_text(encoding="utf-8").splitlines()
    assert set(references.gridworld_table()) <= set(page)
    row = next(line for line in page if line.startswith("| 5, 10 |"))
    exact = bandit.oracle(Bandit()), bandit.bayes_optimal(Bandit())
    assert row.split(" | ")[1:3] == [f"{value:.3f}" for value in exact]


ROBUST = {
    "nothing": "nominal",
    "noise of observations 0.1": "observation_noise 0.1",
    "0.2": "observation_noise 0.2",
    "0.4": "observation_noise 0.4",
    "actions 1 step late": "action_delay 1",
    "2 steps": "action_delay 2",
    "4 steps": "action_delay 4",
    "motors of 0.4 of their strength": "motor_strength 0.4",
}


@pytest.mark.parametrize("family", ["point_nav", "half_cheetah_body"])
def test_a_table_of_domain_randomisation_is_that_of_the_stored_results(family):
    stored = json.loads((ROOT / "docs/results/robust.json").read_text())[family]
    page = (ROOT / "docs/objectives_measured.md").read_text(encoding="utf-8")
    assert "\n".join(robust_row(stored, words) for words in ROBUST) in page


def robust_row(stored: dict[str, Any], words: str) -> str:
    without, with_them = (
        np.array(stored[f"trained {x}"][ROBUST[words]]) for x in ("without", "with")
    )
    cells = [f"{x.mean():.1f} ({interval(x)})" for x in (without, with_them)]
    change = with_them - without
    cells.append(f"{change.mean():+.1f} ({interval(change, '+')})")
    return f"| {' | '.join([words, *cells])} |"


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("family", ["point_nav", "half_cheetah_vel"])
def test_a_table_of_forgetting_is_that_of_the_stored_results(family, memory):
    stored = json.loads((ROOT / f"docs/results/continual/{family}.json").read_text())
    rows = {name: seeds for name, seeds in stored.items() if ("rl2" in name) == memory}
    page = (ROOT / "docs/objectives_measured.md").read_text(encoding="utf-8")
    assert len(rows) > 1
    assert "\n".join(forgetting.table(rows)) in page


def interval(scores: np.ndarray, sign: str = "") -> str:
    low, high = mean_interval(scores)
    return f"{low:{sign}.1f} to {high:{sign}.1f}"


DRIFT = {
    "trained without drift": ("maml_trpo", "adapting"),
    "trained with drift": ("maml_trpo_drift", "adapting"),
    "trained without drift, not adapting": ("maml_trpo", "not adapting"),
}


@pytest.mark.parametrize("words", DRIFT)
def test_a_row_of_drift_is_that_of_the_stored_results(words):
    method, part = DRIFT[words]
    stored = np.array(json.loads((ROOT / "docs/results/drift.json").read_text())[method][part])
    scores = np.moveaxis(stored, 2, 0)  # (versions before, seeds, tasks)
    cells = [f"{each.mean():.1f} ({interval(each)})" for each in scores]
    page = (ROOT / "docs/objectives_measured.md").read_text(encoding="utf-8")
    assert f"| {' | '.join([words, *cells])} |" in page


@pytest.mark.parametrize(
    ("name", "file", "least"),
    [("comparison", "agents", 8), ("objectives_measured", "objectives", 3)],
)
def test_the_tables_of_methods_side_by_side_are_those_of_the_stored_results(name, file, least):
    stored = json.loads((ROOT / f"docs/results/{file}.json").read_text())
    page = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    shown = "\n".join(tables(stored)).split("\n\n")
    assert len(shown) > least
    for table in shown:
        assert table.strip() in page


def test_the_table_over_families_is_that_of_the_stored_results():
    found = overall(read_complete(ROOT / "docs/results/agents.json"))
    page = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    assert len(found.scales) > 1
    assert "\n".join(overall_table(found)) in page
    for scale in found.scales:
        assert scale in page


def test_the_figure_of_objectives_is_that_of_the_stored_results(tmp_path):
    stored = json.loads((ROOT / "docs/results/objectives.json").read_text())
    *_, numbers = draw(stored, tmp_path / "objectives.png")
    assert numbers.read_bytes() == (ROOT / "docs/results/objectives.csv").read_bytes()


def test_the_results_in_short_are_those_of_the_stored_results():
    rows = {
        "gradient (MAML-TRPO on 2D navigation; CAVIA)": (
            20,
            ("maml_trpo_tuned", "cavia_gymnasium", "cavia_gymnasium"),
        ),
        "memory (RL2)": (1, ("rl2", "rl2", "rl2")),
        "belief (VariBAD)": (1, ("varibad", "varibad", "varibad")),
        "latent variable (PEARL), less than a sixth of the env steps": (2, ("pearl",) * 3),
        "oracle, which observes the task (one seed)": (
            0,
            ("oracle", "oracle_gymnasium", "oracle_gymnasium"),
        ),
    }
    families = ("point_nav", "half_cheetah_dir", "half_cheetah_vel, goal_high: 3.0")
    for name, (episodes, methods) in rows.items():
        cells = []
        for family, method in zip(families, methods, strict=True):
            seeds = AGENTS[family][method].values() if method else []
            results = [evaluation(family, seed["few_episode"]) for seed in seeds]
            means = [each.mean[each.x.index(episodes)] for each in results]
            cells.append(number(float(np.mean(means))) if means else "")
        line = f"| {name} | {episodes} | {' | '.join(cells)} |".replace("|  |", "| |")
        assert line in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_paper_s_figures_in_short_are_those_of_the_stored_results():
    """The first three numbers of each row; those of RL2 are of docs/methods.md."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {
        "2D navigation": "point_nav",
        "HalfCheetah, direction": "half_cheetah_dir",
        "HalfCheetah, 0 to 2 m/s": "half_cheetah_vel",
        "Ant, 0 to 3 m/s": "ant_vel",
        "Ant, direction": "ant_dir",
    }

    def cell(score: float, steps: float) -> str:
        millions = f"{steps / 1e6:.{0 if steps >= 1e7 or steps % 1e6 == 0 else 1}f}M"
        return f"{score:.{0 if abs(score) >= 200 else 1}f} ({millions})"

    for title, family in rows.items():
        cells = [cell(PUBLISHED[family].maml[1], BUDGETS[family])]
        maml, ppo, cavia = map(STORED[family].get, ("maml_trpo_tuned", "cavia_ppo", "cavia_tuned"))
        for stored in (maml, ppo or cavia):
            if stored is None:
                cells.append("")
                continue
            scores = [one.mean[1] for one in measure.evaluations(family, stored)]
            cells.append(cell(float(np.mean(scores)), max(stored["env_steps"])))
        assert f"| {title} | {' | '.join(cells)} |".replace("|  |", "| |") in page
    for number_of_rl2 in ("123.0", "609"):
        assert f"RL2, three seeds, with sampled actions | 12M | {number_of_rl2} (" in (
            ROOT / "docs/methods.md"
        ).read_text(encoding="utf-8")
        assert f"| {number_of_rl2} (12M) |" in page
