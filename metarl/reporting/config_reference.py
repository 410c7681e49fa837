"""The reference page of the keys of configs, generated from the code.

    python -m metarl.reporting.config_reference > docs/config.md

A test compares that file with the output of the command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING

from pydantic import BaseModel

from metarl.agents import KINDS, agent_config_class
from metarl.config import Config
from metarl.core.parsing import format_value
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import Choice, Key, keys
from metarl.reporting.task_reference import markdown_row

HEAD = """\
# Config keys

<!-- Written by: python -m metarl.reporting.config_reference > docs/config.md -->

Every key of a config, with its default. In a YAML file the parts of a key are nested (`agent:`,
below it `inner:`, below it `lr: 0.1`); it is a flag too (`--agent.inner.lr 0.1`).
A config of metarl holds what differs from the defaults, and `metarl train CONFIG --help` shows
these keys with its values. The keys of `env` are the fields of the [task family](tasks.md).
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the reference as Markdown."""
    sections = [f"## {title}\n\n{table(found)}" for title, found in grouped_keys()]
    return "\n".join([HEAD, "\n\n".join(sections), ""])


def grouped_keys() -> Iterator[tuple[str, list[Key]]]:
    """Yield the title and the keys of each part of a config: those of the run, of its sections, and
    of each kind of agent."""
    parts: dict[str, list[Key]] = {"The run": []}
    for key in keys(Config):
        if key.path == "env":  # a family, with fields of its own
            continue
        section, dot, _ = key.path.partition(".")
        parts.setdefault(f"`{section}`" if dot else "The run", []).append(key)
    for title, found in parts.items():
        if title == "`agent`":
            for kind in KINDS:
                yield from choices(agent_config_class(kind), f"`agent`, `kind: {kind}`", "agent.")
        else:
            yield title, found


def choices(cls: type[BaseModel], title: str, prefix: str) -> Iterator[tuple[str, list[Key]]]:
    """Yield the keys of a section, and those of the other choices of its tagged unions."""
    found = {key.path: key for key in keys(cls, prefix)}
    others: list[tuple[str, list[Key]]] = []
    for name, field in cls.model_fields.items():
        for choice in (each for each in field.metadata if isinstance(each, Choice)):
            default = type(field.get_default(call_default_factory=True))
            for tag in choice.names:
                section = type(choice.func({choice.tag: tag}))  # pyright: ignore[reportCallIssue]
                if section is not default:
                    path = f"{prefix}{name}"
                    own = [key for key in keys(section, f"{path}.") if key.path not in found]
                    others.append((f"`{path}`, `{choice.tag}: {tag}`", own))
    yield title, [*found.values()]
    yield from others


def table(found: Iterable[Key]) -> str:
    """Return keys as a table."""
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for key in found:
        default = "" if key.default is MISSING else f"`{format_value(key.default)}`"
        kind = ", ".join(filter(None, (type_name(key.type), key.bounds)))
        lines.append(markdown_row(f"`{key.path}`", kind, default, key.doc))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
