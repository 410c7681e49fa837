"""Errors of a family's own code, told on one line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path


def first_line(message: object) -> str:
    """Return the first line of a message, without the colours of a terminal."""
    plain = re.sub(r"\x1b\[\d+m", "", str(message))
    return plain.strip().partition("\n")[0]


def located(error: Exception) -> str:
    """Return the type, the first line and the place of an error that was caught.

    The place is the innermost one outside installed packages; the innermost of all if everything is
    installed, the family too.
    """
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([each for each in frames if "site-packages" not in each.filename] or frames)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
    return f"{type(error).__name__}: {first_line(error)} ({place})"
