"""metarl.core.schema: sections of a config, their errors of one line, and their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from metarl.core.errors import ConfigError
from metarl.core.schema import Section, build, one_of
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import bounds, by_path, keys, plain


class Circle(Section):
    shape: Literal["circle"] = "circle"
    """Which shape."""
    radius: Annotated[float, Field(gt=0)] = 1.0
    """Its size."""


class Square(Section):
    shape: Literal["square"] = "square"
    """Which shape."""
    side: float = 2.0
    """The length of an edge."""
    filled: bool = False
    """Whether it is drawn
    solid."""


class Picture(Section):
    """Where one of two shapes is drawn."""

    title: str
    """What it is called."""
    drawn: Annotated[Circle | Square, one_of("shape", {"circle": Circle, "square": Square})] = (
        Circle()
    )
    """What is in it."""
    copies: Annotated[int, Field(ge=1, le=9)] = 1
    """How often it is drawn."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Of its parts."""
    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest brightness."""
    note: str | None = None
    """A remark; null for none."""
    pages: Annotated[int, Field(ge=1, le=9)] | None = None
    """How many it takes; null for as many as needed."""


def refusal(cls: type, **values: Any) -> str:
    """Return the error of a section."""
    with pytest.raises(ConfigError) as error:
        cls(**values)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- one of several sections ---


def test_the_tag_tells_which():
    assert Picture(title="a").drawn == Circle()
    assert Picture(title="a", drawn={}).drawn == Circle()
    assert Picture(title="a", drawn={"radius": 3}).drawn == Circle(radius=3.0)
    square = {"side": 4, "shape": "square", "filled": True}
    assert Picture(title="a", drawn=square).drawn == Square(side=4.0, filled=True)
    assert Picture(title="a", drawn=Square()).drawn == Square()


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (
            {"shape": "sqare"},
            "drawn.shape: expected one of circle, square, got 'sqare' (nearest: square)",
        ),
        ({"shape": 7}, "drawn.shape: expected one of circle, square, got 7"),
        (
            {"side": 1.0},
            "drawn.side: unknown key where drawn.shape is circle (known where it is square)",
        ),
        (
            {"shape": "square", "sid": 1.0},
            "drawn.sid: unknown key where drawn.shape is square (nearest: side)",
        ),
        ({"shape": "square", "zzz": 1.0}, "drawn.zzz: unknown key where drawn.shape is square"),
        ({"shape": "square", "side": "long"}, "drawn.side: expected number, got 'long'"),
        ({"shape": "square", "filled": 1}, "drawn.filled: expected true or false, got 1"),
        ({"radius": 0}, "drawn.radius: expected more than 0, got 0"),
        ("square", "drawn: expected keys with values, got 'square'"),
        (["square"], "drawn: expected keys with values, got ['square']"),
        (None, "drawn: expected keys with values, got None"),
    ],
)
def test_a_bad_choice_is_refused_by_its_path(drawn, expected):
    assert refusal(Picture, title="a", drawn=drawn) == expected


# --- values ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"copies": True}, "copies: expected whole number, got True"),
        ({"copies": 2.0}, "copies: expected whole number, got 2.0"),
        ({"copies": "2"}, "copies: expected whole number, got '2'"),
        ({"copies": 0}, "copies: expected between 1 and 9, got 0"),
        ({"copies": 10}, "copies: expected between 1 and 9, got 10"),
        ({"range": [True, 1]}, "range[0]: expected number, got True"),
        ({"range": [0, "1"]}, "range[1]: expected number, got '1'"),
        ({"range": [0, float("nan")]}, "range[1]: expected number, got nan"),
        ({"range": [float("-inf"), 0]}, "range[0]: expected number, got -inf"),
        ({"range": [0]}, "range: expected a list of 2 numbers, got [0]"),
        ({"range": [0, 1, 2]}, "range: expected a list of 2 numbers, got [0, 1, 2]"),
        ({"range": 3}, "range: expected a list of 2 numbers, got 3"),
        ({"sizes": [1, 0]}, "sizes[1]: expected at least 1, got 0"),
        ({"sizes": [1, True]}, "sizes[1]: expected whole number, got True"),
        (
            {"sizes": "12"},
            "sizes: expected a list of whole numbers, such as \"[32, 32]\", got '12'",
        ),
        (
            {"sizes": {"a": 1}},
            "sizes: expected a list of whole numbers, such as \"[32, 32]\", got {'a': 1}",
        ),
        ({"note": 3}, "note: expected text or null, got 3"),
        ({"pages": 0}, "pages: expected between 1 and 9, got 0"),
        ({"pages": "2"}, "pages: expected whole number or null, got '2'"),
        ({"title": None}, "title: expected text, got None"),
        ({"titel": "a"}, "titel: unknown key (nearest: title)"),
        ({"zzz": "a"}, "zzz: unknown key"),
    ],
)
def test_a_bad_value_is_refused_by_its_path(values, expected):
    assert refusal(Picture, **{"title": "a", **values}) == expected


def test_a_missing_key_is_named():
    assert refusal(Picture) == "title: missing"


def test_the_bounds_themselves_are_allowed():
    """And a whole number for a number, a list for a tuple."""
    picture = Picture(title="a", copies=9, range=[0, 1], sizes=[1], note=None)
    assert (picture.copies, picture.range, picture.sizes) == (9, (0.0, 1.0), (1,))
    assert type(picture.range[0]) is float
    assert Picture(title="a", copies=1).copies == 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"ge": 1}, "at least 1"),
        ({"gt": 0}, "more than 0"),
        ({"le": 2}, "at most 2"),
        ({"lt": 2}, "less than 2"),
        ({"ge": 0, "le": 1}, "between 0 and 1"),
        ({"gt": 0, "le": 1}, "more than 0, at most 1"),
        ({"ge": 0, "lt": 1}, "at least 0, less than 1"),
        ({}, ""),
    ],
)
def test_bounds_in_words(limits, expected):
    assert bounds(Field(**limits).metadata) == expected


def test_a_section_does_not_change():
    """A copy with other values does, and is checked."""
    picture = Picture(title="a", copies=3)
    with pytest.raises(ValidationError, match="frozen"):
        picture.copies = 4
    assert picture.replace(copies=4) == Picture(title="a", copies=4)
    assert picture.copies == 3
    with pytest.raises(ConfigError, match="copies: expected between 1 and 9, got 0"):
        picture.replace(copies=0)


def test_a_section_is_written_and_read_again():
    picture = Picture(title="a", drawn=Square(side=5.0), sizes=(2, 3))
    values = plain(picture)
    assert values == {
        "title": "a",
        "drawn": {"shape": "square", "side": 5.0, "filled": False},
        "copies": 1,
        "sizes": [2, 3],
        "range": [0.0, 1.0],
        "note": None,
        "pages": None,
    }
    assert Picture(**values) == picture
    assert by_path(values)["drawn.side"] == 5.0


# --- keys ---


def test_keys_are_those_of_the_choice():
    """By default of the first one; of an instance its own, with its values."""
    first, square = (
        {key.path: key for key in keys(Picture, like=like)}
        for like in (None, Picture(title="a", drawn=Square(side=5.0)))
    )
    assert list(first)[:3] == ["title", "drawn.shape", "drawn.radius"]
    assert list(square)[:4] == ["title", "drawn.shape", "drawn.side", "drawn.filled"]
    assert first["title"].default is MISSING
    assert first["drawn.radius"].default == 1.0
    assert first["drawn.radius"].bounds == "more than 0"
    assert first["copies"].bounds == first["pages"].bounds == "between 1 and 9"
    assert square["title"].default == "a"
    assert square["drawn.side"].default == 5.0
    assert square["drawn.filled"].doc == "Whether it is drawn solid."


def test_docstrings_are_found_in_base_classes_and_in_local_ones():
    class Frame(Square):
        side: float = 3.0
        """The length of the frame's edge."""
        width: float = 0.1
        """Its width."""

    docs = {key.path: key.doc for key in keys(Frame)}
    assert docs["side"] == "The length of the frame's edge."
    assert docs["width"] == "Its width."
    assert docs["shape"] == "Which shape."


def test_without_source_code_there_are_no_docstrings():
    names: dict[str, Any] = {"__name__": "typed_in", "Section": Section}
    code = 'class Typed(Section):\n    size: int = 1\n    """Its size."""'
    exec(code, names)  # noqa: S102 (as an interactive session does)
    (key,) = keys(names["Typed"])
    assert (key.path, key.doc) == ("size", "")


# --- dataclasses, such as task families ---


@dataclass(frozen=True)
class Ranges:
    """Mappings, whose keys are the author's."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value by name."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Anything by name."""
    width: int = 2
    """Has to be even."""

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width: expected an even number, got {self.width}")


def test_a_dataclass_is_built_from_checked_values():
    assert build(Ranges, {}) == Ranges()
    assert build(Ranges, {"width": 4}) == Ranges(width=4)
    for values, expected in (
        ({"width": 3}, "width: expected an even number, got 3"),
        ({"width": True}, "width: expected whole number, got True"),
        ({"widht": 4}, r"widht: unknown key \(nearest: width\)"),
    ):
        with pytest.raises(ConfigError, match=f"^{expected}$"):
            build(Ranges, values)


def test_a_mapping_is_read_and_written():
    values = {"ranges": {"length": [1, 0.2]}, "extras": {"a": {"b": None}, "c": "text"}}
    built = build(Ranges, values)
    assert built.ranges == {"length": (1.0, 0.2)}
    assert built.extras == values["extras"]
    again = plain(built)
    assert again == {"ranges": {"length": [1.0, 0.2]}, "extras": values["extras"], "width": 2}
    assert build(Ranges, again) == built
    assert by_path(again)["ranges.length"] == [1.0, 0.2]
    listed = {key.path: key for key in keys(Ranges)}
    assert list(listed) == ["ranges", "extras", "width"]
    assert listed["ranges"].default == {}
    assert listed["ranges"].doc == "Lowest and highest value by name."
    assert type_name(listed["ranges"].type) == "names with a list of 2 numbers each"
    assert type_name(listed["extras"].type) == "names with a value each"


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([1, 2], "ranges: expected names with a list of 2 numbers each, got [1, 2]"),
        ({"length": 1}, "ranges.length: expected a list of 2 numbers, got 1"),
        ({"length": [1]}, "ranges.length: expected a list of 2 numbers, got [1]"),
        ({"length": [1, 2, 3]}, "ranges.length: expected a list of 2 numbers, got [1, 2, 3]"),
        ({"length": [1, "x"]}, "ranges.length[1]: expected number, got 'x'"),
        ({3: [1, 2]}, "ranges: a name: expected text, got 3"),
    ],
)
def test_a_bad_mapping_is_refused_by_its_path(ranges, expected):
    with pytest.raises(ConfigError) as error:
        build(Ranges, {"ranges": ranges})
    assert str(error.value) == expected
