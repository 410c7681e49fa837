"""Parsing of untrusted text into plain data; text that is not valid raises an error of one line."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from metarl.core.errors import UserError, shown

MAX_VALUES = 10_000  # values of a YAML text: with aliases, few bytes can give any number of values
MAX_DEPTH = 20  # levels of nesting of a YAML text


class CoreSchema(BaseResolver):
    """The types of unquoted scalars in the core schema of YAML 1.2 (section 10.3.2).

    The schema has no merge keys: `<<` is text.
    """

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loadumper=loader or loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        """The YAML version, 1.2, even if a directive of the text names another version."""
        return (1, 2)


for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    ("int", r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", "-+.0123456789"),
    ("float", r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z", "-+."),
):
    CoreSchema.add_implicit_resolver_base(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


class ShallowComposer(Composer):
    """Refuses text that is nested deeper than `MAX_DEPTH`, which would take minutes to parse."""

    levels = 0

    def compose_sequence_node(self, anchor: Any) -> Any:
        with self._nested():
            return super().compose_sequence_node(anchor)

    def compose_mapping_node(self, anchor: Any) -> Any:
        with self._nested():
            return super().compose_mapping_node(anchor)

    @contextlib.contextmanager
    def _nested(self) -> Iterator[None]:
        self.levels += 1
        if self.levels > MAX_DEPTH:
            raise UserError(f"expected at most {MAX_DEPTH} levels of nesting")
        yield
        self.levels -= 1


class PlainConstructor(SafeConstructor):
    """Constructs plain values; raises an error at a duplicate or a non-scalar key."""

    def check_mapping_key(
        self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any
    ) -> bool:
        if not isinstance(key_node, ScalarNode):
            raise ConstructorError(problem="expected plain keys", problem_mark=key_node.start_mark)
        if key in mapping:
            first = next(each for each, _ in node.value if self.construct_object(each) == key)
            lines = f"{first.start_mark.line + 1} and {key_node.start_mark.line + 1}"
            raise ConstructorError(problem=f"key {shown(key)} is given twice, on lines {lines}")
        return True


class PlainRepresenter(SafeRepresenter):
    """Writes repeated values in full, without aliases, and each text on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_number(self, data: float) -> ScalarNode:
        node = self.represent_float(data)
        if "." not in node.value:  # YAML 1.1 parses 1e-05 as text
            node.value = node.value.replace("e", ".0e")
        return node


PlainRepresenter.add_representer(str, PlainRepresenter.represent_text)
PlainRepresenter.add_representer(float, PlainRepresenter.represent_number)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = CoreSchema
    yaml.Composer = ShallowComposer
    yaml.Constructor = PlainConstructor
    yaml.Representer = PlainRepresenter
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.width = sys.maxsize
    return yaml


def read_yaml(text: str, source: str) -> Any:
    """Return the content of a YAML 1.2 text as plain values.

    Args:
        text: one document; the content of an empty document is None.
        source: name of the text in error messages.

    Raises:
        UserError: if the text is not valid YAML, has a duplicate key, is nested deeper than
            `MAX_DEPTH`, or has more than `MAX_VALUES` values; names the source.
    """
    try:
        data = _yaml().load(text)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except Exception as error:  # ruamel.yaml raises many types of errors at a wrong tag or number
        raise UserError(f"{source}: not readable as YAML: {error_summary(error)}") from error
    check_size(data, source)
    return data


def dump_yaml(data: Any) -> str:
    """Return plain values as a YAML text that `read_yaml` parses to equal values.

    Keys keep their order. Each key is on a line of its own.
    """
    text = io.StringIO()
    _yaml().dump(data, text)
    return text.getvalue()


def check_size(data: Any, source: str) -> None:
    """Check the number of nested values, which is infinite where an alias contains itself.

    Raises:
        UserError: if there are more than `MAX_VALUES` values; names the source.
    """
    count, level = 0, [data]
    while level:
        below: list[Any] = []
        for value in level:
            inside = [*value, *value.values()] if isinstance(value, Mapping) else value
            below += inside if isinstance(inside, list | tuple | set) else []
            if count + len(below) > MAX_VALUES:
                raise UserError(f"{source}: expected at most {MAX_VALUES} values")
        count, level = count + len(below), below


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: if the file cannot be read, or is not valid JSON; names the file.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {error_summary(error)}") from error


def error_summary(error: BaseException) -> str:
    """Return the message of an error, or its type if the message is empty, as one line of at most
    about 200 characters. That of the operating system is without number and file, and that of a
    YAML parser is the line and the problem."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        parts = filter(None, (error.context, error.problem))
        text = f"line {error.problem_mark.line + 1}: {', '.join(parts)}"
        text += "; indent with spaces" if "'\\t'" in text else ""
    text = " ".join(text.split()) or type(error).__name__
    return printable(text if len(text) <= 200 else f"{text[:200]}...")


def printable(text: str) -> str:
    """Return text with each control character, which could control a terminal, as U+FFFD."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def quoted(value: Any) -> str:
    """Return a value as one word of the shell."""
    return shlex.quote(printable(str(value)))


def shell_path(path: Path | str) -> str:
    """Return a path as one word of the shell that is no flag."""
    text = str(path)
    return quoted(f"./{text}" if text.startswith("-") else text)


def read_numbers(text: str) -> list[float]:
    """Return the numbers of a text, separated by spaces, commas or semicolons, perhaps in brackets.

    Raises:
        ValueError: if there are none, or something else is among them.
    """
    words = re.split(r"[\s,;]+", text.strip().lstrip("[(").rstrip("])").strip(" ,;"))
    return [float(word) for word in words]


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is an int or float, not a bool, of magnitude below 1e300."""
    return type(value) in (int, float) and abs(value) < 1e300


def format_value(value: Any) -> str:
    """Return the YAML text of a config value."""
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
