"""metarl.reporting.config_reference: docs/config.md is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.config_files import config_names, load_config
from metarl.core.schema_keys import keys
from metarl.reporting.config_reference import grouped_keys, page

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_what_the_command_prints():
    command = "python -m metarl.reporting.config_reference > docs/config.md"
    message = f"docs/config.md is stale: {command}"
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == page(), message


def test_every_key_has_a_text_and_is_in_a_part_once():
    for title, found in grouped_keys():
        paths = [key.path for key in found]
        assert len({*paths}) == len(paths) > 0, title
        assert all(key.doc for key in found), title


@pytest.mark.parametrize(
    "name", ["point_nav/promp", "point_nav/reptile", "point_nav/rl2", "point_nav/varibad"]
)
def test_the_keys_of_a_config_are_there(name):
    assert name in config_names()
    known = {key.path for _, found in grouped_keys() for key in found}
    config = load_config(name)
    assert {key.path for key in keys(type(config), like=config)} - known == {"env"}
