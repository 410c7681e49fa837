"""Measures methods on the same tasks: by episodes of experience, under noise, and on sequences.

    python -m examples.agents RUN [RUN ...] --out docs/results/agents.json
    python -m examples.agents --tables docs/results/agents.json
    python -m examples.agents --figure docs/results/objectives.json
    python -m examples.agents --overall docs/results/agents.json

The first command evaluates runs and adds the means of all test tasks to the file; runs of one
method on one family are its seeds. The second one prints the tables of docs/comparison.md, and of
docs/objectives_measured.md from docs/results/objectives.json. The third one draws the figure of
docs/objectives_measured.md beside the file. The last one puts families together: it prints the
table of docs/comparison.md, and draws it beside the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.agents.figure import draw
from examples.agents.measure import (
    MEASUREMENTS,
    UNADAPTED,
    measure,
    read,
    read_complete,
    tasks_text,
)
from examples.agents.overall import draw_overall, overall, overall_table
from examples.agents.tables import tables
from examples.command import run_script
from metarl.core.errors import UserError
from metarl.evaluation.compare import RANDOM
from metarl.runs.atomic_io import make_output_folder, write_atomically
from metarl.runs.run import Run


def main() -> None:
    """Evaluate runs, print the tables, or draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="file to add results to, after each measurement")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of a file")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the figure of a file")
    parser.add_argument("--overall", type=Path, metavar="FILE", help="put families together")
    parser.add_argument("--deterministic", action="store_true", help="measure mean actions")
    choices = (*MEASUREMENTS, UNADAPTED)
    parser.add_argument(
        "--measure",
        nargs="+",
        choices=choices,
        default=MEASUREMENTS,
        help="what to measure; unadapted is disturbed without adaptation, in a row of its own",
    )
    args = parser.parse_args()
    if (args.runs and not args.out) or not any((args.runs, args.tables, args.figure, args.overall)):
        parser.error("expected RUN ... --out FILE, or one of --tables, --figure, --overall FILE")
    for file in (args.tables, args.figure, args.overall):
        if file and not file.exists():
            parser.error(f"{file}: there is no such file")
    if args.tables:
        print("\n".join(tables(read_complete(args.tables))))
    if args.figure:
        print(*draw(read_complete(args.figure), args.figure.with_suffix(".png")), sep="\n")
    if args.overall:
        together = overall(read_complete(args.overall))
        print(*together.scales, "", *overall_table(together), "", sep="\n")
        path = args.overall.with_name(f"{args.overall.stem}-overall.png")
        print(*draw_overall(together, path), sep="\n")
    if args.out:
        make_output_folder(args.out.parent)
    for folder in args.runs:
        check_measured_alike(folder, args.deterministic, read(args.out))
    for folder in args.runs:
        config = Run.open(folder).config
        family = tasks_text(config)
        for measurement in args.measure:
            against = [] if RANDOM in read(args.out).get(family, {}) else [RANDOM]
            found = measure(folder, measurement, args.deterministic, against)
            stored = read(args.out)
            methods = stored.setdefault(family, {})
            for method, result in found.items():
                methods.setdefault(method, {}).setdefault(str(config.seed), {}).update(result)
            write_atomically(args.out, (json.dumps(stored, allow_nan=False) + "\n").encode())
        print(folder)


def check_measured_alike(folder: Path, deterministic: bool, stored: Mapping[str, Any]) -> None:
    """Check that all agents on a family are measured with the same kind of actions.

    Raises:
        UserError: if the results in the file have the other kind; names run, flag and family.
    """
    family = tasks_text(Run.open(folder).config)
    for method, seeds in stored.get(family, {}).items():
        for seed in seeds.values():
            if seed.get("deterministic", deterministic) != deterministic:
                wanted = "without" if deterministic else "with"
                raise UserError(
                    f"{folder}: {method} on {family} is measured {wanted} --deterministic in the "
                    f"file; measure all agents on a family alike, or choose another --out"
                )


if __name__ == "__main__":
    run_script(main)
