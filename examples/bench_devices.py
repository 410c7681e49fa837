"""Time an iteration of every kind of agent, with the learner on the CPU, and on a GPU if any.

    python -m examples.bench_devices
    python -m examples.bench_devices half_cheetah_vel/rl2 --write docs/performance.md

prints a Markdown table. With `--write` it also replaces the one between the two comments
`bench_devices` of a page; without a GPU it then measures nothing. Every config and device is
measured in a process of its own, one after another: run the program on a machine with nothing else
running.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import metarl
from examples.command import run_script
from metarl.core.parallel import available_cores
from metarl.reporting.benchmark import Bench, bench

CONFIGS = (
    "half_cheetah_vel/maml_trpo_gymnasium",
    "half_cheetah_vel/maml_trpo_tuned",
    "half_cheetah_vel/rl2",
    "half_cheetah_vel/varibad",
    "half_cheetah_vel/pearl",
)
LEARNS_AT_ONCE = {"half_cheetah_vel/pearl": {"agent.update.warmup_iterations": 0}}
SAMPLING = "physics", "policy inference", "other sampling"
"""Parts of an iteration that are not the learner's."""
BEGIN, END = "<!-- bench_devices -->", "<!-- end of bench_devices -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", default=CONFIGS)
    parser.add_argument("--repeats", type=int, default=3, help="timed iterations")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page with the two comments")
    args = parser.parse_args(argv)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if args.write and len(devices) == 1:
        print(f"no NVIDIA GPU: {args.write} stays as it is")
        return
    around = text_around(args.write.read_text()) if args.write else None
    lines = []
    for line in table(measured(args.configs, devices, args.repeats)):
        print(line, flush=True)
        lines.append(line)
    if around is not None:
        before, after = around
        args.write.write_text("\n".join([before, machine(), "", *lines, after]))


def measured(
    configs: Iterable[str], devices: Sequence[str], repeats: int
) -> Iterator[tuple[str, Bench]]:
    """Yield the name of each config with its times on each device."""
    for name in configs:
        for device in devices:
            values: dict[str, Any] = LEARNS_AT_ONCE.get(name, {})
            config = metarl.load_config(name, **values, device=device)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                yield name, pool.submit(bench, config, repeats).result()


def table(rows: Iterable[tuple[str, Bench]]) -> Iterator[str]:
    """Yield the lines of a Markdown table of times."""
    yield "| config | learner on | seconds of an iteration | of its physics | learner's share |"
    yield "|---|---|---|---|---|"
    for name, found in rows:
        learner = found.iteration_seconds - sum(found.sections[part] for part in SAMPLING)
        cells = (
            f"`{name}`",
            found.device,
            f"{found.iteration_seconds:.2f}",
            f"{found.iteration_seconds / found.physics_seconds:.2f}",
            f"{learner / found.iteration_seconds:.0%}",
        )
        yield f"| {' | '.join(cells)} |"


def machine() -> str:
    """Return a sentence about this machine, its GPU and the versions."""
    return (
        f"{available_cores()} CPU cores and one {torch.cuda.get_device_name()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}:"
    )


def text_around(page: str) -> tuple[str, str]:
    """Return the text of a page up to the first of the two comments, with it, and from the second
    on."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"--write: expected a page with {BEGIN} and, below it, {END}")
    return before + begin, end + after


if __name__ == "__main__":
    run_script(main)
