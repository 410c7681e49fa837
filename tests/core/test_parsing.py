"""YAML by the core schema of YAML 1.2, read as plain data and written so that it reads back."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.core.errors import UserError
from metarl.core.parsing import MAX_DEPTH, MAX_VALUES, dump_yaml, read_numbers, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", 10),
        ("0o14", 12),
        ("0x1F", 31),
        ("-12", -12),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5e3", 500.0),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("2001-12-14", "2001-12-14"),
        ("on", "on"),
        ("yes", "yes"),
        ("N", "N"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("NULL", None),
        ("", None),
        ("'010'", "010"),
        ("<<", "<<"),
        ("=", "="),
        ("&a [1, 2]", [1, 2]),
        ("[&a {b: 1}, *a]", [{"b": 1}, {"b": 1}]),
        ("!!str 010", "010"),
        ("%YAML 1.1\n---\non", "on"),
    ],
)
def test_scalars_have_the_types_of_yaml_1_2(text, expected):
    found = read_yaml(text, "a.yaml")
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\nseed: 2\n\nlr: 3", "key 'lr' is given twice, on lines 1 and 4"),
        ("env:\n  a: 1\n  a: 1", "key 'a' is given twice, on lines 2 and 3"),
        ("x: &b [1]\ny: *b\nx: *b", "key 'x' is given twice, on lines 1 and 3"),
        ("1: a\n0x1: b", "key 1 is given twice, on lines 1 and 2"),
        ("? [1]\n: a", "expected plain keys"),
        ("!!python/object/apply:os.system ['exit 3']", "could not determine a constructor"),
        ("!!bool maybe", "'maybe'"),
        ("!!float 1:30", "could not convert string to float"),
        ("9" * 5000, "Exceeds the limit"),
        ("a: [1,", "line 1: while parsing a flow node, expected the node content"),
        ("a:\n\tb: 1", "line 2: while scanning for the next token, found character '\\t' that"),
        ("a:\n\tb: 1", "; indent with spaces"),
        ("--- 1\n--- 2\n", "expected a single document"),
        ("\x1b", "special characters are not allowed"),
        ("*a", "found undefined alias"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_source(text, message):
    with pytest.raises(UserError) as refusal:
        read_yaml(text, "a.yaml")
    assert str(refusal.value).startswith("a.yaml: not readable as YAML: ")
    assert message in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_depth_and_number_of_values_are_bounded():
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert read_yaml(deep[1:-1], "x")
    with pytest.raises(UserError, match="x: expected at most 20 levels"):
        read_yaml(deep, "x")
    with pytest.raises(UserError, match="x: expected at most 20 levels"):
        read_yaml("[" * 100_000, "x")
    with pytest.raises(UserError, match="x: expected at most 10000 values"):
        read_yaml(f"[{'1, ' * (MAX_VALUES + 1)}]", "x")
    with pytest.raises(UserError, match="x: expected at most 10000 values"):
        read_yaml("&a [*a]", "x")


SPECIAL_TEXTS = st.sampled_from(
    [
        *("010", "0o7", "0x1", "1e-3", "1e5", ".5", "1:30", "1_000", ".inf", ".NaN", "-.INF"),
        *("null", "~", "", "on", "yes", "true", "False", "<<", "=", "?", "-", "- a", "a: b"),
        *("a #b", " a", "a ", "a\nb", "a\n", "\n", "\t", "# a", "&a", "*a", "!a", "%a", "@a"),
        *("'", '"', "\\", "[", "{", "---", "...", "\ufeff", "\x85", "\u2028", "\x7f", "\0"),
        *("é", "\N{BULLET} ü", "\N{GRINNING FACE}", "x " * 500, "x" * 1000),
    ]
)
TEXTS = SPECIAL_TEXTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FLOATS = st.sampled_from([1e-05, 1e16, 1e22, -0.0, 5e-324, 1.7976931348623157e308])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | FLOATS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
    max_leaves=12,
)


def exact(value):
    """A value in a form that compares types, NaN, the sign of zero, and the order of keys."""
    if isinstance(value, dict):
        return [(key, exact(inside)) for key, inside in value.items()]
    if isinstance(value, list):
        return [exact(inside) for inside in value]
    return (type(value), repr(value))


@given(VALUES)
@settings(max_examples=500, deadline=None, database=None, derandomize=True)
def test_written_values_read_back_as_they_were(value):
    assert exact(read_yaml(dump_yaml(value), "x")) == exact(value)


KEYS = st.text("abcdefgh_", min_size=1, max_size=10)


@given(st.dictionaries(KEYS, SCALARS, min_size=1))
@settings(max_examples=200, deadline=None, database=None, derandomize=True)
def test_each_key_has_a_line_of_its_own_in_its_order(values):
    lines = dump_yaml(values).splitlines()
    assert [line.partition(":")[0] for line in lines] == list(values)


def test_a_value_that_occurs_twice_is_written_twice():
    shared = [1]
    assert dump_yaml({"b": shared, "a": shared}) == "b:\n- 1\na:\n- 1\n"


@pytest.mark.parametrize(
    "text", ["1 -2.5 3e-1", "1,-2.5,0.3", "[1, -2.5, .3]", "(1; -2.5; 0.3)", " 1,\t-2.5, 0.3, "]
)
def test_numbers_are_read_however_they_are_separated(text):
    assert read_numbers(text) == [1, -2.5, 0.3]


@pytest.mark.parametrize("text", ["", " ", "[]", ",", "a", "1 b", "1,2 # three"])
def test_other_texts_are_no_numbers(text):
    with pytest.raises(ValueError, match="could not convert"):
        read_numbers(text)
