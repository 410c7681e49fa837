"""The commands beside experiments: measure speed, install, check a task family, list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metarl.cli.completion import complete_family
from metarl.cli.family_target import FamilyTarget
from metarl.cli.flags import ConfigTarget, KeyCommand
from metarl.cli.group import FILE, cli, config_argument, given, print_table, refuse_flags
from metarl.cli.parser import Choice, Command
from metarl.core.errors import UserError, nearest


@cli.command(cls=KeyCommand, target=ConfigTarget, short_help="Time an iteration.")
@config_argument()
@click.option("--repeats", default=3, help="Timed iterations.")
@click.option("--json", type=FILE, metavar="FILE", help="Write the numbers there too.")
def bench(target: ConfigTarget, overrides: dict[str, Any], repeats: int, json: Path | None) -> int:
    """Time one meta-iteration by its parts, and the physics limit beside it."""
    from metarl.reporting import benchmark

    config = target.make(overrides)
    if json and not json.resolve().parent.is_dir():
        raise UserError(f"--json: there is no folder {json.resolve().parent}")
    if json and json.is_dir():
        raise UserError(f"--json: expected a file, got the folder {json}")
    result = benchmark.bench(config, repeats, lambda text: click.echo(text, err=True))
    print_table(benchmark.bench_table(result))
    if json:
        benchmark.write_json(result, json)
    return 0


@cli.command(cls=Command, short_help="Install Meta-World.")
@click.argument("package", type=Choice(["metaworld"]), metavar="metaworld")
def setup(package: str) -> int:
    """Make a Python environment with Meta-World and its dependencies, which conflict with ours, in
    METARL_HOME (by default ~/.cache/metarl). Safe to repeat."""
    from metarl.envs.external import meta_world_setup

    meta_world_setup.setup()
    return 0


@cli.command("check-env", cls=KeyCommand, target=FamilyTarget, short_help="Check a task family.")
@click.argument(
    "target",
    expose_value=False,
    help="A family's name, package.module:Class, or a config, whose section `env` is checked.",
    shell_complete=complete_family,
)
def check_env(target: FamilyTarget, overrides: dict[str, Any]) -> int:
    """Check that a task family keeps the contract that training relies on.

    TARGET may be a config too: its section `env` is checked, and the other sections are not read.
    `metarl check-env TARGET --help` shows the fields of that family, each of which is a flag.
    """
    from metarl.envs.contract import check_family
    from metarl.reporting.tables import checks, summary_line

    results = check_family(target.make(overrides))
    print_table(checks(results))
    click.echo(summary_line(target.name or "", results))
    # If all checks were skipped, the family has not been checked.
    outcomes = {result.outcome for result in results}
    return 0 if "pass" in outcomes and "FAIL" not in outcomes else 1


@cli.command("list", cls=Command, short_help="List families, configs, pretrained or runs.")
@click.argument("kind", type=Choice(["families", "configs", "pretrained", "runs"]))
@click.option("--runs", type=FILE, default=Path("runs"), metavar="DIR", help="The folder of runs.")
def show_list(kind: str, runs: Path) -> int:
    """List the task families, the configs, the agents that come with metarl, or the runs."""
    from metarl.reporting import tables

    if kind != "runs":
        refuse_flags(["runs"], f"on the list of {kind}")
    elif given("runs") and not runs.is_dir():
        known = [path.name for path in runs.parent.glob("*/")] if runs.parent.is_dir() else []
        raise UserError(f"--runs: expected a folder of runs, got {runs}{nearest(runs.name, known)}")
    print_table(tables.runs(runs) if kind == "runs" else getattr(tables, kind)())
    return 0
