"""The tables of `metarl list` and `metarl check-env`."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import stat
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium.spaces import Box, Discrete
from rich.markup import escape
from rich.table import Table

from metarl.config_files import MEASURED, config_folder, config_names, load_config
from metarl.core.errors import UserError
from metarl.core.parsing import printable, read_json
from metarl.envs import FAMILIES, TaskFamily, make_family
from metarl.envs.contract import UNAVAILABLE, Check
from metarl.reporting.hub import card_results
from metarl.runs.pretrained import pretrained_names
from metarl.runs.run import Run
from metarl.training.progress import format_count, format_return

CONFIGS_CAPTION = (
    "steps: environment steps of the whole training, at most. minutes: of one core of a server "
    "(AMD EPYC or Intel Xeon), some of them twice as fast as others, most of them for an earlier "
    "version's conjugate gradient, which took longer. return: on the test tasks "
    "after one adaptation (oracles: without; rl2, varibad and pearl: after one episode, on "
    "robots with deterministic actions), mean and 95% interval over runs and tasks; "
    "docs/reproduction.md, docs/comparison.md. Empty: not measured. Settings: metarl train CONFIG "
    "--dry-run."
)


def empty_table(*columns: str, names: int = 1) -> Table:
    """Return a table without rows, in the common style; its first `names` columns have names."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        # A name stays on one line, to be copied; other texts are continued below, never cut.
        longest = max(map(len, column.split()))
        made.add_column(column, no_wrap=index < names, overflow="fold", min_width=longest)
    return made


def families() -> Table:
    """Return a table of the task families."""
    made = empty_table("family", "task", "horizon", "obs", "action", "source", "what to do")
    for name, cls in FAMILIES.items():
        family = make_family(name)
        try:
            sizes = str(family.observation_space.shape[0]), action_text(family)
        except UNAVAILABLE:
            sizes = "?", "?"
        made.add_row(
            name,
            escape(space_text(family.task_space)),
            str(family.horizon),
            *sizes,
            family.source,
            escape(first_paragraph(cls)),
        )
    return made


def first_paragraph(cls: type) -> str:
    """Return the first paragraph of a class's docstring on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def space_text(space: Box) -> str:
    """Return the bounds of a vector as text, equal neighbours once: `6 x [0, 1]`."""
    bounds = zip(space.low.tolist(), space.high.tolist(), strict=True)
    runs = [(low, high, len(list(run))) for (low, high), run in itertools.groupby(bounds)]
    return ", ".join(
        (f"{number} x " if number > 1 else "") + f"[{low:g}, {high:g}]"
        for low, high, number in runs
    )


def action_text(family: TaskFamily) -> str:
    """Return the number of dimensions of an action, or `1 of n` for n choices."""
    space = family.action_space
    return f"1 of {space.n}" if isinstance(space, Discrete) else str(family.action_dim)


def configs() -> Table:
    """Return a table of the configs that come with the package, with their cost and return."""
    made = empty_table("config", "steps", "minutes", escape("return [runs]"))
    measured = read_json(config_folder() / MEASURED)
    for name in config_names():
        try:
            config = load_config(name)
        except UserError as error:
            made.add_row(name, "", "", cell(f"not valid: {error}"))
            continue
        steps = config.iterations * config.sampling.max_steps(config.env.horizon)
        made.add_row(name, format_count(steps), *map(escape, measured_cells(measured.get(name))))
    made.caption, made.caption_justify, made.caption_style = CONFIGS_CAPTION, "left", "none"
    return made


def measured_cells(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the minutes of a core that the runs of a config took, and their return, as text; ''
    for a config that was not measured."""
    if row is None:
        return "", ""
    times = sorted({min(row["core_minutes"]), max(row["core_minutes"])})
    mean, low, high = (
        f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        for value in (row["return"], *row["interval"])
    )
    return "-".join(map(str, times)), f"{mean} ({low} to {high}) [{row['seeds']}]"


def pretrained() -> Table:
    """Return a table of the agents that come with metarl, with the results of their cards."""
    made = empty_table("agent", "method", "before -> after", "size", "what to do")
    for name, folder in pretrained_names().items():
        config = Run.open(folder).config
        means = card_results((folder / "README.md").read_text(encoding="utf-8"))
        made.add_row(
            name,
            cell(config.method),
            " -> ".join(map(format_return, means)),
            size_text(folder_size(folder)),
            escape(first_paragraph(type(config.env))),
        )
    return made


def runs(folder: Path) -> Table:
    """Return a table of the runs in a folder."""
    made = empty_table(
        "run", "family", "method", "seed", "iterations", "before -> after", "age", "size", names=3
    )
    for column in made.columns[-2:]:  # a number and its unit
        column.no_wrap = True
    reasons = []
    for path in sorted(folder.glob("*/config.yaml")):
        try:
            run = Run.open(path.parent)
            lines = run.metrics()
        except (UserError, ValueError) as error:
            made.add_row(cell(path.parent.name), "not readable")
            reasons.append(f"{path.parent.name}: {error}")
            continue
        last = lines[-1] if lines else None
        made.add_row(
            cell(path.parent.name),
            cell(run.config.env.name),
            cell(run.config.method),
            str(run.config.seed),
            "package" if run.packaged else f"{len(lines)}/{run.config.iterations}",
            f"{format_return(last['return_before'])} -> {format_return(last['return_after'])}"
            if last
            else "",
            age_text(time.time() - path.stat().st_mtime),
            size_text(folder_size(path.parent)),
        )
    if reasons:
        made.caption = "\n".join(map(cell, reasons))
    return made


def cell(text: str) -> str:
    """Return a text without Rich markup and without control characters."""
    return escape(printable(text))


def checks(results: Sequence[Check]) -> Table:
    """Return a table of the checks of a task family."""
    made = empty_table("check", "outcome", "reason")
    styles = {"pass": "green", "FAIL": "bold red", "skipped": "yellow"}
    for result in results:
        outcome = f"[{styles[result.outcome]}]{result.outcome}[/]"
        made.add_row(result.name, outcome, escape(result.reason))
    return made


def summary_line(name: str, results: Sequence[Check]) -> str:
    """Return the number of checks with each outcome on one line, or why nothing was checked."""
    counts = Counter(result.outcome for result in results)
    if counts["skipped"] == len(results):
        return f"{name}: not checked: {results[0].reason}"
    words = (("pass", "passed"), ("FAIL", "failed"), ("skipped", "skipped"))
    return f"{name}: " + ", ".join(f"{counts[key]} {word}" for key, word in words if counts[key])


def age_text(seconds: float) -> str:
    """Return a duration as text, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_text(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def folder_size(folder: Path) -> int:
    """Return the size of all files below a folder, bytes."""
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # training replaces files
            status = file.stat()
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size
