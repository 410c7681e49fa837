"""import metarl: its names, for completion and type checkers."""

import importlib.metadata
from pathlib import Path

import pytest

import metarl


def test_all_names_are_there():
    names = {name for name in dir(metarl) if not name.startswith("_")}
    assert names == {*metarl.__all__, "adaptation", "envs"}
    for name in [*names, "__version__"]:
        assert getattr(metarl, name) is not None
    assert metarl.__version__ == importlib.metadata.version("metarl-torch")
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        _ = metarl.evaluat  # pyright: ignore


def test_its_types_are_for_others_too():
    assert (Path(metarl.__file__).parent / "py.typed").is_file()
