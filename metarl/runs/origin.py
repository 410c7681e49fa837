"""The origin of a run that was warm started: another run, from whose parameters it began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError
from metarl.core.parsing import read_json

KEY = "init_from"
"""The key of the origin in `provenance.json`, and among the settings of a run."""


@dataclass(frozen=True)
class Origin:
    """The origin of the initial parameters of a run.

    Attributes:
        source: the other run and its checkpoint, as they were given.
        experiment: METHOD-DIGEST:ITERATION, the method, the settings and the iteration of the other
            run. Runs have the same that began from the same iteration, whatever the other's seed.
        parameters: digest of the parameters.
        remark: what else of the state begins anew, and what was not taken, as text.
    """

    source: str
    experiment: str
    parameters: str
    remark: str

    def __str__(self) -> str:
        return f"{self.source} ({self.experiment})"

    def to_dict(self) -> dict[str, str]:
        """Return the content of `provenance.json` under `KEY`."""
        return asdict(self)


def read_origin(path: Path) -> Origin | None:
    """Return the origin in a `provenance.json`; None if the run was not warm started.

    Raises:
        UserError: if the file cannot be read, or the origin in it is damaged.
    """
    content = read_json(path) if path.exists() else {}
    values: Any = content.get(KEY) if isinstance(content, Mapping) else None
    if values is None:
        return None
    names = {field.name for field in fields(Origin)}
    if not isinstance(values, Mapping) or values.keys() != names:
        raise UserError(f"{path}: {KEY}: expected {', '.join(sorted(names))}")
    for name, text in values.items():
        if not isinstance(text, str) or not text.isprintable():
            raise UserError(f"{path}: {KEY}.{name}: expected printable text")
    return Origin(**values)
