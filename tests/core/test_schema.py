"""metarl.core.schema: a choice of dataclasses, told apart by their first field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

import pytest

from metarl.core.errors import ConfigError
from metarl.core.schema import build
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import flat, keys, plain


@dataclass(frozen=True)
class Circle:
    shape: Literal["circle"] = "circle"
    """Which shape."""
    radius: float = 1.0
    """Its size."""


@dataclass(frozen=True)
class Square:
    shape: Literal["square"] = "square"
    """Which shape."""
    side: float = 2.0
    """The length of an edge."""
    filled: bool = False
    """Whether it is drawn solid."""


@dataclass(frozen=True)
class Picture:
    """Where one of two shapes is drawn."""

    title: str
    """What it is called."""
    drawn: Circle | Square = field(default_factory=Circle)
    """What is in it."""
    frame: Circle | None = None
    """What is around it."""


def test_the_first_field_tells_which():
    assert build(Picture, {"title": "a"}) == Picture("a", Circle())
    assert build(Picture, {"title": "a", "drawn": {}}) == Picture("a", Circle())
    assert build(Picture, {"title": "a", "drawn": {"radius": 3}}).drawn == Circle(radius=3.0)
    square = {"side": 4, "shape": "square", "filled": True}
    assert build(Picture, {"title": "a", "drawn": square}).drawn == Square(side=4.0, filled=True)
    assert build(Picture, {"title": "a", "drawn": Square()}).drawn == Square()


def test_an_optional_dataclass_is_no_choice():
    assert build(Picture, {"title": "a", "frame": None}).frame is None
    assert build(Picture, {"title": "a", "frame": {"radius": 2}}).frame == Circle(radius=2.0)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"shape": "sqare"}, "drawn.shape: expected one of circle, square, got 'sqare' (nearest: "),
        ({"shape": 7}, "drawn.shape: expected one of circle, square, got 7"),
        ({"side": 1.0}, "drawn.side: unknown key where drawn.shape is circle"),
        (
            {"shape": "square", "sid": 1.0},
            "drawn.sid: unknown key where drawn.shape is square (nearest: side)",
        ),
        ({"shape": "square", "side": "long"}, "drawn.side: expected number, got 'long'"),
        ({"shape": "square", "filled": 1}, "drawn.filled: expected true or false, got 1"),
        ("square", "drawn: expected keys with values, got 'square'"),
        (["square"], "drawn: expected keys with values, got ['square']"),
    ],
)
def test_a_bad_choice_is_refused_by_its_path(drawn, expected):
    with pytest.raises(ConfigError) as error:
        build(Picture, {"title": "a", "drawn": drawn})
    assert str(error.value).startswith(expected)


def test_what_is_built_is_written_and_built_again():
    picture = Picture("a", Square(side=5.0))
    values = plain(picture)
    assert values == {
        "title": "a",
        "drawn": {"shape": "square", "side": 5.0, "filled": False},
        "frame": None,
    }
    assert build(Picture, values) == picture
    assert flat(values)["drawn.side"] == 5.0


def test_keys_are_those_of_the_choice():
    """By default of the first one; the key that tells has all choices for its type."""
    first, square = (
        {key.path: key for key in keys(Picture, like=like)}
        for like in (None, Picture("a", Square(side=5.0)))
    )
    assert list(first) == ["title", "drawn.shape", "drawn.radius", "frame.shape", "frame.radius"]
    assert list(square)[:4] == ["title", "drawn.shape", "drawn.side", "drawn.filled"]
    for listed, default in ((first, "circle"), (square, "square")):
        assert listed["drawn.shape"].type == Literal["circle", "square"]
        assert listed["drawn.shape"].default == default
        assert listed["title"].default is MISSING
    assert square["drawn.side"].doc == "The length of an edge."
    assert square["drawn.side"].default == 2.0, "that of the class, not of the instance"


@dataclass(frozen=True)
class Ranges:
    """Mappings, whose keys are the author's."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value by name."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Anything by name."""


def test_a_mapping_is_read_and_written():
    values = {"ranges": {"length": [1, "2e-1"]}, "extras": {"a": [1, {"b": None}], "c": "text"}}
    built = build(Ranges, values)
    assert built.ranges == {"length": (1.0, 0.2)}
    assert built.extras == values["extras"]
    again = plain(built)
    assert again == {"ranges": {"length": [1.0, 0.2]}, "extras": values["extras"]}
    assert build(Ranges, again) == built
    assert flat(again)["ranges.length"] == [1.0, 0.2]
    listed = {key.path: key for key in keys(Ranges)}
    assert list(listed) == ["ranges", "extras"]
    assert listed["ranges"].default == {}
    assert type_name(listed["ranges"].type) == "names with a list of 2 numbers each"
    assert type_name(listed["extras"].type) == "names with a value each"


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([1, 2], "at.ranges: expected names with a list of 2 numbers each, got [1, 2]"),
        ({"length": 1}, "at.ranges.length: expected a list of 2 numbers, got 1"),
        ({"length": [1]}, "at.ranges.length: expected a list of 2 numbers, got [1]"),
        ({"length": [1, 2, 3]}, "at.ranges.length: expected a list of 2 numbers, got [1, 2, 3]"),
        ({"length": [1, "x"]}, "at.ranges.length[1]: expected number, got 'x'"),
        ({3: [1, 2]}, "at.ranges: a name: expected text, got 3"),
    ],
)
def test_a_bad_mapping_is_refused_by_its_path(ranges, expected):
    with pytest.raises(ConfigError) as error:
        build(Ranges, {"ranges": ranges}, "at")
    assert str(error.value) == expected
