"""metarl.reporting.task_reference: docs/tasks.md is what the code says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from metarl.core.schema_keys import field_docs, keys
from metarl.envs import FAMILIES, PointNav, make_family
from metarl.reporting.task_reference import EXTERNAL_SPACE, ends_early, family_section, page

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_what_the_command_prints():
    message = "docs/tasks.md is stale: python -m metarl.reporting.task_reference > docs/tasks.md"
    assert (ROOT / "docs/tasks.md").read_text(encoding="utf-8") == page(), message


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_there_with_all_its_fields_and_what_they_mean(name):
    text = (ROOT / "docs/tasks.md").read_text(encoding="utf-8").split(f"\n## {name}\n")[1]
    text = text.split("\n## ")[0]
    docs = field_docs(FAMILIES[name])
    for key in keys(FAMILIES[name]):
        assert docs[key.path]
        assert f"\n| `{key.path}` |" in text


@dataclass(frozen=True)
class Falling(PointNav):
    """Ends where it says."""

    def terminated(self):
        """When the point has fallen
        off the table."""


def test_what_ends_an_episode_is_in_the_words_of_the_code():
    assert ends_early(Falling) == "When the point has fallen off the table."
    assert ends_early(FAMILIES["half_cheetah_dir"]) == "never"
    assert ends_early(PointNav) == "at the goal, unless `ends_at_goal` is false"
    assert ends_early(FAMILIES["gymnasium"]) == "as its environment does"


def test_nothing_is_asked_of_an_environment_that_may_not_be_installed():
    text = family_section(make_family("metaworld", python="/no/such/python"))
    assert f"| **Observation and action** | {EXTERNAL_SPACE} |" in text


def test_bars_do_not_break_the_tables():
    assert r"-\|position" not in family_section(PointNav())  # outside of tables they stay
    assert "reward -|position - goal|" in family_section(PointNav())
