"""Command-line flags for the keys of a config, a task family or a run."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from metarl.cli.parser import HINTS, Command, check_rendering_library, join_numbers
from metarl.config_upgrade import ALIASES, renamed_key
from metarl.core.errors import ConfigError, UserError, shown
from metarl.core.parsing import format_value, read_yaml, shell_path
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import Key

if TYPE_CHECKING:
    from metarl.config import Config

EVERYDAY = {
    "iterations": "iterations",
    **ALIASES,
    **{name: name for name in ("seed", "device", "threads", "checkpoint_every")},
}
"""The keys with short flags, by name of the flag, in the order of the help."""

SHORT_NAMES = {path: name for name, path in EVERYDAY.items()}

DYNAMIC_FLAG = re.compile(r"--([A-Za-z_][\w-]*(?:\.[\w-]+)+)(?:=.*)?", re.DOTALL)
"""`--section.key VALUE`. The valid keys may depend on another key, such as `outer.update`."""


class RunTarget:
    """The argument of a command is the folder of a run; all keys of its config can be overridden.

    Attributes:
        name: the argument; None without one.
        directory: the run's folder.
    """

    sections = ""
    """Beginning of the keys that are accepted without being listed."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.directory = Path(name or "")

    def keys(self) -> list[Key]:
        """List the keys whose flags are in the help text."""
        return [
            Key("device", str, MISSING, "cpu or cuda, instead of the run's."),
            Key("threads", int, MISSING, "Number of threads, 0 for one per core."),
        ]

    def known_keys(self) -> list[Key]:
        """List the keys that can be meant by an unknown flag: the run's keys in sections, if
        there is a run."""
        from metarl.config import config_keys
        from metarl.runs.run import Run

        with contextlib.suppress(UserError):
            known = config_keys(Run.open(self.directory).config)
            return [key for key in known if "." in flag_of(key.path)]
        return self.keys()


class ConfigTarget(RunTarget):
    """The argument of a command is a config, whose file is read once."""

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """The plain values of the file."""
        from metarl.config_files import RUN_CONFIG, read_config
        from metarl.runs.pretrained import pretrained_names

        try:
            return read_config(self.name or "")
        except ConfigError as error:
            is_run = (self.directory / RUN_CONFIG).is_file()
            if not is_run and self.name not in pretrained_names():
                raise
            folder = shell_path(self.directory)
            going_on = f"metarl train --resume {folder} continues it, " if is_run else ""
            raise ConfigError(
                f"{self.name}: is a run, not a config; {going_on}"
                f"metarl train CONFIG --init-from {folder} begins from its parameters"
            ) from error

    def keys(self) -> list[Key]:
        """List the keys and values of the config, or of a default config if it is not valid."""
        from metarl.config import config_keys

        config = None
        if self.name is not None:
            with contextlib.suppress(ConfigError):
                config = self.make({})
        return config_keys(config)

    def make(self, overrides: Mapping[str, Any]) -> Config:
        """Return the config with overrides by dotted key.

        Raises:
            ConfigError: if a key or a value is invalid; names the flag or the key.
        """
        from metarl.config_files import make_config

        with short_flags():
            return make_config(self.data, self.name or "", overrides)


class ConfigsTarget(ConfigTarget):
    """The arguments of a command are configs whose runs are trained side by side; the keys have the
    values of the first one."""

    def keys(self) -> list[Key]:
        from metarl.training.many_runs import USUAL

        of_first = super().keys()
        return [replace(key, default=USUAL.get(key.path, key.default)) for key in of_first]


class KeyCommand(Command):
    """A command with a flag for each key of the config, family or run that is its argument.

    The callback has the arguments `target` and `overrides`, the given values by dotted key.
    """

    def __init__(self, *args: Any, target: type[RunTarget], **settings: Any) -> None:
        settings["context_settings"] = {"token_normalize_func": normalize}
        super().__init__(*args, **settings)
        self.target = target

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        check_rendering_library()
        args = join_numbers(args, self.params)
        target = self.target(first_argument(args, self.params))
        if not ctx.resilient_parsing:
            check_renamed(args, self.params)
        keys = target.keys()
        options = [KeyOption(key) for key in keys]
        if unlisted := unlisted_keys(args, keys, target.sections):
            known = {key.path: key for key in target.known_keys()}
            options += [KeyOption(known.get(key.path, key), True) for key in unlisted]
        ctx.meta[__name__] = options
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption:
            ctx.meta[HINTS] = [flag_of(key.path) for key in target.known_keys()]
            raise
        values = {option.key.path: ctx.params.pop(option.name) for option in options}
        source = ctx.get_parameter_source
        given = {key for key in values if source(key) is ParameterSource.COMMANDLINE}
        ctx.params["target"] = target
        ctx.params["overrides"] = {key: values[key] for key in values if key in given}
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        options = ctx.meta.get(__name__, [])
        everyday = [option for option in options if option.key.path in SHORT_NAMES]
        everyday.sort(key=lambda option: [*EVERYDAY].index(SHORT_NAMES[option.key.path]))
        others = [option for option in options if option not in everyday]
        others.sort(key=lambda option: option.section != "env")
        return [*everyday, *super().get_params(ctx), *others]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one group of the flags without a section, and one group for each section."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class KeyOption(click.Option):
    """The flag of a key, with the docstring of the key as help text.

    Attributes:
        key: the key.
        section: the group of the flag in the help text.
    """

    def __init__(self, key: Key, hidden: bool = False) -> None:
        default = "" if key.default is MISSING else f"  [default: {format_value(key.default)}]"
        kind = f"{type_name(key.type)}{', ' * bool(key.bounds)}{key.bounds}"
        super().__init__(
            ["key", flag_of(key.path)],
            type=KeyType(key),
            metavar="VALUE",
            help=f"{key.doc} {kind.capitalize()}.{default}",
            hidden=hidden,
        )
        self.name = key.path
        self.key = key
        section = key.path.rpartition(".")[0] or "config"
        self.section = "Options" if key.path in SHORT_NAMES else section


class KeyType(click.ParamType):
    """The type of a flag's value: YAML, or plain text for keys of type text, or of text or null."""

    name = "value"

    def __init__(self, key: Key) -> None:
        self.key = key

    def convert(self, value: str, param: Any, ctx: Any) -> Any:
        if type_name(self.key.type) == "text":
            return value
        flag = flag_of(self.key.path)
        try:
            found = read_yaml(value, flag)
        except UserError as error:
            raise ConfigError(f"{flag}: not readable: {shown(value)}") from error
        is_text = type_name(self.key.type) == "text or null" and found is not None
        return value if is_text and not isinstance(found, str) else found

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        kind = self.key.type
        values = get_args(kind) if get_origin(kind) is Literal else ()
        words = ("true", "false") if kind is bool else map(str, values)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def normalize(name: str) -> str:
    """Return the canonical name of a flag, without the leading dashes."""
    path = name.replace("-", "_")
    return SHORT_NAMES.get(path, path).replace("_", "-")


@contextlib.contextmanager
def short_flags() -> Iterator[None]:
    """Name keys by their short flags in the errors that the block raises."""
    try:
        yield
    except ConfigError as error:
        flag, _, reason = str(error).partition(": ")
        if not flag.startswith("--"):
            raise
        raise ConfigError(f"{flag_of(flag[2:])}: {reason}") from None


def flag_of(path: str) -> str:
    """Return the flag of a key: its short name if it has one, with dashes for underscores."""
    return f"--{normalize(path)}"


def first_argument(argv: Sequence[str], params: Iterable[click.Parameter]) -> str | None:
    """Return the first word that is neither a flag nor the value of a flag; None without one."""
    switches = {"--", "-h", "--help"}
    for param in params:
        switches.update(param.opts if getattr(param, "is_flag", False) else ())
    words = iter(argv)
    for word in words:
        if not word.startswith("--") and word != "-h":
            return word
        if "=" not in word and word not in switches:
            next(words, None)
    return None


def unlisted_keys(argv: Sequence[str], keys: Iterable[Key], sections: str = "") -> list[Key]:
    """Return the keys of `--section.name` arguments that are not among the listed keys.

    Args:
        argv: the arguments of a command.
        keys: the listed keys.
        sections: the required beginning of the path of a key.
    """
    listed = {flag_of(key.path) for key in keys}
    matches = filter(None, map(DYNAMIC_FLAG.fullmatch, argv))
    paths = dict.fromkeys(match[1].replace("-", "_") for match in matches)
    return [
        Key(path, Any, MISSING, "")
        for path in paths
        if path.startswith(sections) and flag_of(path) not in listed
    ]


def check_renamed(argv: Sequence[str], params: Iterable[click.Parameter]) -> None:
    """Check that no flag, except the flags of `params`, has the earlier name of a renamed key.

    Raises:
        UserError: if there is such a flag; names the new flag.
    """
    flags = [word.partition("=")[0] for word in argv if word.startswith("--")]
    own = {"--help"}.union(*(param.opts for param in params))
    for path in [flag[2:].replace("-", "_") for flag in flags if flag not in own]:
        if path not in EVERYDAY and (name := renamed_key(path)):
            raise UserError(f"--{path.replace('_', '-')}: is called {flag_of(name)} now")
