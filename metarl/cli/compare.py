"""The command `metarl compare`. Slow imports are in the bodies of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metarl.cli.commands import (
    check_flags_of,
    deterministic_option,
    episodes_option,
    experience_option,
    perturbations_option,
    protocol_option,
    steps_option,
    trials_option,
)
from metarl.cli.completion import complete_names
from metarl.cli.flags import ConfigsTarget, ConfigTarget, KeyCommand, short_flags
from metarl.cli.group import FILE, cli, print_files, print_table
from metarl.cli.parser import print_error


@cli.command(cls=KeyCommand, target=ConfigsTarget, short_help="Compare methods over seeds.")
@click.argument(
    "configs",
    nargs=-1,
    required=True,
    help="YAML files, or names of metarl list configs.",
    shell_complete=complete_names("metarl.config_files:config_names", "file"),
)
@click.option(
    "--seeds", default=3, help="Number of seeds of each config, counted up from the config's seed."
)
@click.option(
    "--env-steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Env steps of each training, at most. [default: as each config has]",
)
@click.option("--jobs", default=1, help="Runs at a time, each on one thread.")
@click.option("--out", type=FILE, required=True, metavar="DIR", help="Folder of the runs.")
@protocol_option
@click.option("--split", default="test", metavar="NAME", help="train, validation, test or ood.")
@click.option("--tasks", default=40, help="Tasks of the split.")
@episodes_option
@steps_option
@trials_option
@experience_option
@perturbations_option
@deterministic_option
def compare(
    target: ConfigTarget,
    overrides: dict[str, Any],
    configs: tuple[str, ...],
    out: Path,
    seeds: int,
    env_steps: int | None,
    jobs: int,
    **evaluation: Any,
) -> int:
    """Train and evaluate each CONFIG with several seeds, and put all into a report and a table of
    each task family, and into aggregates over the families.

    Finished runs are not repeated: the command can be stopped and repeated at any time, also with
    further configs or seeds. `--SECTION.KEY VALUE` replaces a value of all configs.

    With `--sampler.kind ray` the runs are spread over a Ray cluster, one for each of
    `--sampler.workers` slots; DIR must be on a disk that all nodes share.
    """
    from rich.table import Table

    from metarl.reporting import comparison, comparison_tables
    from metarl.training.tracking_environment import check_environment

    check_environment()
    check_flags_of(evaluation["protocol"])
    with short_flags():
        found = comparison.compare(
            configs,
            out,
            seeds=seeds,
            env_steps=env_steps,
            jobs=jobs,
            evaluation={key: value for key, value in evaluation.items() if value is not None},
            overrides=overrides,
            on_progress=lambda text: click.echo(text, err=True),
        )
    if found.stopped:
        return print_error("stopped; the same command goes on", 130)
    for family, section in found.sections.items():
        click.echo(f"{family}: {section.about}")
        table = Table(*("method", "seeds", *(f"{section.x_label}: {x}" for x in section.x)))
        texts = comparison_tables.cell_texts(section)
        for row, cells in zip(section.rows, texts, strict=True):
            table.add_row(row.name, str(row.seeds), *cells)
        print_table(table)
    if found.sections and found.aggregates is None:
        click.echo(comparison_tables.no_aggregates(found.sections))
    if found.aggregates is not None:
        click.echo(comparison_tables.SCALE_NOTE)
        for line in (*found.aggregates.scales, found.aggregates.left_out):
            if line:
                click.echo(line)
        columns, *rows = comparison_tables.aggregate_table(found.aggregates)
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        print_table(table)
    print_files(found.files)
    for outcome in found.failed:
        print_error(f"{outcome.job.folder}: {outcome.error} (see {outcome.job.log})", 1)
    return 1 if found.failed else 0
