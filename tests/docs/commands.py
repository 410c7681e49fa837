"""The commands of a page, as a reader types them, made small enough for a test."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

ANY = ["--env.horizon=6", "--tracking.mode=disabled"]
TRAINING = [*ANY, "--iterations=2", "--num-tasks=4", "--num-episodes=2"]
ADAPTATION = ["--episodes=2", "--steps=1"]
SMALL = {
    "train": [*TRAINING, "--agent.policy.hidden=[4]"],
    "compare": [*TRAINING, *ADAPTATION, "--seeds=1", "--tasks=2"],
    "tune": [
        *TRAINING,
        "--agent.policy.hidden=[4]",
        "--evaluation.tasks=2",
        "--trials=2",
        "--jobs=1",
    ],
    "evaluate": [*ANY, *ADAPTATION],
    "render": [*ANY, *ADAPTATION, "--fps=2"],
    "bench": ["--env.horizon=6", "--num-tasks=2", "--num-episodes=2"],
}
"""The flags that are put behind those of a page; the last value of a flag counts."""


def blocks(page: str, language: str = "") -> list[str]:
    """Return the code blocks of a language in a page of Markdown, those without one by default."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page: blocks whose first line is a comment with the file's name."""
    for language, ending in (("yaml", "yaml"), ("python", "py")):
        for text in blocks(page, language):
            if name := re.match(rf"# (\w+\.{ending})\n", text):
                (folder / name[1]).write_text(text)


def commands(page: str) -> Iterator[str]:
    """Yield each command of a page; blocks of output begin with other words."""
    programs = ("metarl ", "printf ", "tar ", "mkdir ", "make ", "pip ", "wandb ")
    for block in blocks(page):
        if block.startswith(programs):
            yield from block.splitlines()


def small(command: str, number: int) -> list[str]:
    """Return the arguments of a command of metarl with small settings.

    Args:
        command: the command.
        number: its number on the page; a run that goes on has more iterations each time.
    """
    _, name, *rest = shlex.split(command, comments=True)
    flags = SMALL.get(name, [])
    # Whose networks have their size, or other settings
    if any(word.startswith("pretrained/") or word.endswith("/rl2") for word in rest):
        flags = [flag for flag in flags if not flag.startswith("--agent")]
    if name == "train" and {"--resume", "--continue"} & {*rest}:
        flags = [*(SMALL["train"] if "--continue" in rest else []), f"--iterations={number + 2}"]
        flags += ["--tracking.mode=disabled"]
    elif name == "evaluate" and not {"--task", "--task-file"} & {*rest}:
        flags = [*flags, "--tasks=2"]
    if "few_episode" in rest:  # which has no number of adaptations
        flags = [flag for flag in flags if not flag.startswith("--steps")]
    return [name, *rest, *flags]
