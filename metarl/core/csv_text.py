"""Tables as the content of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any


def csv_content(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows, the head first, as the content of a CSV file, with Unix line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
