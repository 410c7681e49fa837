"""docs/reliability.md names a test for each promise."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_page_names_is_there():
    """Written `tests/file.py::name`, and `::name` for another one of the same file."""
    path, found = None, 0
    for file, name in re.findall(
        r"`(tests/[\w/]+\.py)?::(\w+)`", (ROOT / "docs/reliability.md").read_text()
    ):
        path = file or path
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
        found += 1
    assert found > 20
