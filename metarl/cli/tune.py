"""The command `metarl tune`. Slow imports are in the bodies of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metarl.cli.flags import ConfigsTarget, ConfigTarget, KeyCommand, short_flags
from metarl.cli.group import FILE, cli, config_argument, print_table
from metarl.cli.parser import print_error

MAX_ROWS = 10


@cli.command(cls=KeyCommand, target=ConfigsTarget, short_help="Search hyper-parameters.")
@config_argument()
@click.option(
    "--space",
    type=FILE,
    required=True,
    metavar="FILE",
    help="YAML: keys with min and max, or values. Also a sweep of Weights & Biases.",
)
@click.option("--trials", default=20, help="Trials, including those that are done.")
@click.option("--jobs", default=1, help="Trials at a time, each on one thread.")
@click.option(
    "--pruner", default="median", metavar="NAME", help="median, hyperband or none: early stops."
)
@click.option("--out", type=FILE, required=True, metavar="DIR", help="Folder of the trials.")
def tune(
    target: ConfigTarget,
    overrides: dict[str, Any],
    space: Path,
    trials: int,
    jobs: int,
    pruner: str,
    out: Path,
) -> int:
    """Search the values of a CONFIG with the highest return on validation tasks.

    The command can be stopped and repeated at any time, also with more trials. Optuna's own tools
    read DIR/study.db. `--SECTION.KEY VALUE` replaces a value of all trials.
    """
    from rich.table import Table

    from metarl.core.parsing import format_value
    from metarl.training.many_runs import log_file
    from metarl.training.progress import format_return
    from metarl.training.tracking_environment import check_environment
    from metarl.training.tuning.tune import trial_folder
    from metarl.training.tuning.tune import tune as search

    check_environment()
    with short_flags():
        found = search(
            target.name or "",
            space,
            out,
            trials=trials,
            jobs=jobs,
            pruner=pruner,
            overrides=overrides,
            on_progress=lambda text: click.echo(text, err=True),
        )
    if found.stopped:
        return print_error("stopped; the same command goes on", 130)
    rows = [row for row in found.trials if row.value is not None and row.state != "failed"]
    rows.sort(key=lambda row: (row.state != "complete", -(row.value or 0.0), row.number))
    if rows:
        shown = rows[:MAX_ROWS]
        notes = any(row.note for row in shown)  # such as where a trial was pruned
        keys = list(rows[0].values)  # of which trials of an earlier call may have another order
        table = Table("trial", "return on validation tasks", *keys, *["note"] * notes)
        for row in shown:
            values = [
                f"{value:.4g}" if isinstance(value, float) else format_value(value)
                for value in map(row.values.__getitem__, keys)
            ]
            table.add_row(str(row.number), format_return(row.value), *values, *[row.note] * notes)
        print_table(table)
    for file in found.files:
        click.echo(file)
    failed = [row for row in found.trials if row.state == "failed"]
    for row in failed:
        log = log_file(trial_folder(out, row.number))
        print_error(f"trial {row.number}: {row.note} (see {log})", 1)
    unfinished = [row for row in found.trials if row.state == "running" and row.number < trials]
    for row in unfinished:
        print_error(f"trial {row.number}: not finished: {row.note}; the same command goes on", 1)
    return 1 if found.best is None or unfinished else 0
