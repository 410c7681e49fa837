"""Measure the meta-gradients and write the report."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from examples.command import run_script
from examples.estimators.tables import (
    BATCH,
    FAST,
    LONG_EPISODES,
    LR,
    NUMBER,
    Effort,
    determinism_table,
    few_episodes_table,
    horizon_table,
    limit_table,
    long_table,
    played_tables,
    policy_gradient_table,
)
from metarl.core.parallel import single_threaded_math
from metarl.runs.atomic_io import make_output_folder


def report(effort: Effort, seed: int = 0) -> str:
    """Compute everything and write it down in Markdown."""
    rng = np.random.default_rng(seed)
    with_baseline, without_baseline = played_tables(effort, rng)
    template = Path(__file__).with_name("report.md").read_text(encoding="utf-8")
    return template.format(
        lr=LR,
        number=NUMBER,
        last_task=effort.num_tasks - 1,
        limit=limit_table(effort),
        horizon=horizon_table(effort),
        determinism=determinism_table(),
        with_baseline=with_baseline,
        without_baseline=without_baseline,
        policy_gradient=policy_gradient_table(effort, rng),
        few_episodes=few_episodes_table(effort),
        long=long_table(effort, rng),
        long_episodes=LONG_EPISODES,
        batch=BATCH,
        root=f"{math.sqrt(BATCH):.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the meta-gradients' bias and variance.")
    parser.add_argument("--out", type=Path, help="where to write the report; printed in any case")
    parser.add_argument("--seed", type=int, default=0, help="of the played episodes (default: 0)")
    parser.add_argument("--fast", action="store_true", help="too few episodes, to try the program")
    arguments = parser.parse_args()
    if arguments.out is not None:
        make_output_folder(arguments.out.parent)
    with single_threaded_math():
        text = report(FAST if arguments.fast else Effort(), arguments.seed)
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
