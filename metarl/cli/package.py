"""The command `metarl package`. Slow imports are in the bodies of functions."""

from __future__ import annotations

from pathlib import Path

import click

from metarl.cli.commands import checkpoint_option
from metarl.cli.completion import complete_run
from metarl.cli.group import FILE, cli
from metarl.cli.parser import Command


@cli.command(cls=Command, short_help="Pack trained weights.")
@click.argument("run", type=FILE, help="A run's folder.", shell_complete=complete_run)
@click.option("--out", type=FILE, required=True, metavar="DIR", help="A new folder.")
@checkpoint_option
@click.option(
    "--license",
    "license_id",
    default="unknown",
    metavar="ID",
    help="License of the weights, as the Hugging Face hub writes it, such as apache-2.0.",
)
@click.option("--name", help="Name on the card.  [default: that of the folder]")
def package(run: Path, out: Path, checkpoint: str, license_id: str, name: str | None) -> int:
    """Write the weights of a run as safetensors, with its config and a model card.

    The folder is read in place of a run's folder, and can be uploaded to the Hugging Face hub as it
    is. The card has the results of the evaluations of this checkpoint in the run's folder.
    """
    from metarl.reporting import package as writer

    files = writer.package(run, out, checkpoint=checkpoint, license_id=license_id, name=name)
    for path in files:
        click.echo(path)
    return 0
