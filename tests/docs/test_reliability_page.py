"""docs/reliability.md names a test for each promise, and docs/tracking.md for some."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_test_that_the_pages_name_is_there():
    """Written `tests/file.py::name`, and `::name` for another one of the same file, or `test_name`
    for one of tests/reliability/test_failures.py."""
    path, found = None, 0
    page = "\n".join((ROOT / f"docs/{name}.md").read_text() for name in ("reliability", "tracking"))
    for file, name in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", page):
        path = file or path
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
        found += 1
    assert found > 20
    failures = (ROOT / "tests/reliability/test_failures.py").read_text()
    names = re.findall(r"`(test_\w+)`", page)
    assert len(names) > 15
    assert [name for name in names if f"def {name}(" not in failures] == []
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / file).is_file(), file
