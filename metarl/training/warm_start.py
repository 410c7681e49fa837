"""Warm start: a run that begins from the parameters of another run (`--init-from`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.agents import MetaAgent
from metarl.agents.warm_start import WarmStart, other_meaning, take_parameters
from metarl.config import Config
from metarl.core.errors import UserError
from metarl.core.parsing import printable
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.identity import settings_digest
from metarl.runs.origin import Origin
from metarl.runs.packed import checksum
from metarl.runs.run import Run

FLAG = "--init-from"
MAX_NAMES = 3
"""Number of tensors that are named in a line."""


def warm_start(config: Config, source: str | Path) -> tuple[MetaAgent, Origin]:
    """Return the initial agent of a run that begins from another run, and its origin.

    Args:
        config: the config of the new run.
        source: the folder of the other run, for its latest checkpoint; or FOLDER:CHECKPOINT, with
            `best`, `average` or the number of an iteration.

    Raises:
        ConfigError: if the device of `config` is not available.
        UserError: if the other run or its checkpoint cannot be read, or its parameters do not fit
            the agent of `config`; names the first one that does not.
    """
    run, name, state = load_source(source)
    try:
        found = take_parameters(config.agent, config.make_agent().state_dict(), state.agent)
    except UserError as error:
        kind, own = run.config.agent.kind, config.agent.kind
        hint = "" if kind == own else f" (its agent is of the kind {kind}, the new one of {own})"
        raise UserError(f"{FLAG}: {source}: {error}{hint}") from error
    changed = other_meaning(*(each.to_dict()["agent"] for each in (config, run.config)))
    origin = Origin(
        source=printable(str(source)),
        experiment=experiment_of(run, name, state),
        parameters=checksum({each: found.state[each] for each in found.taken})[:16],
        remark=remark(found, changed),
    )
    return config.make_agent(found.state), origin


def check_same_origin(begun: Run, config: Config, source: str | Path | None) -> None:
    """Check that a run may go on with a `source` that is given again: that it is its own.

    A source that is gone, or was trained further, is the same if it is given by the same text.

    Raises:
        UserError: if the run began from another source, or from none.
    """
    origin = begun.origin
    own, given = origin and origin.source, source and printable(str(source))
    if own == given:
        return
    if origin and source and warm_start(config, source)[1].parameters == origin.parameters:
        return
    begin, now = (f"with {FLAG} {each}" if each else f"without {FLAG}" for each in (own, given))
    raise UserError(
        f"{begun.directory}: was begun {begin}, not {now}; choose another folder with --out"
    )


def load_source(source: str | Path) -> tuple[Run, str, Checkpoint]:
    """Return the run, the name of the checkpoint, and the checkpoint of RUN or RUN:CHECKPOINT.

    Raises:
        UserError: if there is no such run or checkpoint, or it cannot be read.
    """
    folder, name = Path(source), "latest"
    head, colon, tail = str(source).rpartition(":")
    if colon and not folder.is_dir():
        folder, name = Path(head), tail
    try:
        run = Run.open(folder)
        return run, name, run.load(name)
    except UserError as error:
        raise UserError(f"{FLAG}: {error}") from error


def experiment_of(run: Run, name: str, state: Checkpoint) -> str:
    """Return METHOD-DIGEST:ITERATION of a checkpoint of a run, see `Origin`. The checkpoint before
    the first iteration of a run that was itself warm started has the origin of that run."""
    origin = run.origin
    if state.iteration == 0 and origin is not None:
        return origin.experiment
    which = f"average-{state.iteration}" if name == "average" else str(state.iteration)
    return f"{printable(run.config.method)}-{settings_digest(run.config, origin)}:{which}"


def remark(found: WarmStart, changed: Sequence[str]) -> str:
    """Return what begins anew, what was not taken, and what the parameters meant before, as
    text."""
    parts = [f"{len(found.taken)} tensors taken"]
    if found.anew:
        parts.append(f"{named(found.anew)} begin anew")
    if found.left:
        parts.append(f"{named(found.left)} left out")
    parts += [f"agent.{each}" for each in changed]
    return printable("; ".join(parts))


def named(names: tuple[str, ...]) -> str:
    """Return the first names, and the number of the others, as text."""
    shown, others = names[:MAX_NAMES], len(names) - MAX_NAMES
    return ", ".join(shown) + (f" and {others} more" if others > 0 else "")
