"""Whatever a user or an untrusted file gives, no traceback: one line that names the mistake.

METARL_FUZZ=50 tries 50 times as much, and other things at each run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarl.cli.main import main
from metarl.config_files import config_names, find_config
from metarl.core.parsing import dump_yaml, read_yaml

FACTOR = int(os.environ.get("METARL_FUZZ", "1"))
TINY = ["--iterations=2", "--num-tasks=2", "--num-episodes=2", "--env.horizon=5"]
TINY += ["--agent.policy.hidden=[4]", "--tracking.mode=disabled", "--checkpoint-every=1"]
LITTLE = ["--tasks=1", "--episodes=1", "--steps=1"]


def tries(number):
    return settings(
        max_examples=number * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, evaluated. The current folder is the one with it, and nothing else."""
    folder = tmp_path_factory.mktemp("fuzz")
    with contextlib.chdir(folder):
        assert call("train", "point_nav/maml_trpo", *TINY, "--out", "run") == 0
        assert call("evaluate", "run", "--tasks=2", "--episodes=2", "--steps=1") == 0
        shutil.copytree("run", "spare")
        yield folder / "run"


def call(*words):
    """Run a command; return its exit code."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(list(map(str, words)))
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 2), words
    if code:
        lines = error.getvalue().splitlines()
        assert [line.startswith("metarl: error: ") for line in lines].count(True) == 1, lines
        assert all(line.isprintable() for line in lines)
    return code


def scalars():
    names = st.sampled_from(
        ["inf", "-inf", ".nan", "1e999", "null", "~", "$\\frac{", "[/red]", "{{x}}"]
    )
    odd = st.sampled_from([10**12, -(10**12), 10**400, -1, 0, 1, 2, float("inf"), float("nan")])
    texts = st.text(max_size=20) | st.sampled_from(
        ["x" * 10_000, "a:b", "os:system", "../../x", ":"]
    )
    return st.none() | st.booleans() | odd | st.floats() | names | texts


def junk():
    """Any plain value, nested."""

    def more(inside):
        keys = st.text(max_size=5) | st.integers()
        return st.lists(inside, max_size=3) | st.dictionaries(keys, inside, max_size=3)

    return st.recursive(scalars(), more, max_leaves=6)


def places(data, path=()):
    """List the places of nested values, by path."""
    found = [path] if path else []
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            found += places(data[key], (*path, key))
    return found


@st.composite
def changed(draw, data):
    """A copy of nested values with one or two of them replaced, removed, or with company."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.integers(1, 2))):
        *way, key = draw(st.sampled_from(places(data) or [("x",)]))
        inside = data
        for step in way:
            inside = inside[step]
        deed = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if deed == "replace":
            inside[key] = draw(junk())
        elif deed == "remove":
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=8))] = draw(junk())
    return data


def damaged(content):
    """Bytes like these: cut short, or with pieces changed, put in, or taken out."""

    def damage(changes):
        text = bytearray(content)
        for place, length, piece in changes:
            start = int(place * len(text))
            text[start : start + length] = piece
        return bytes(text)

    change = st.tuples(
        st.floats(0, 1), st.sampled_from([0, 1, 4, 100, 10**6]), st.binary(max_size=8)
    )
    return st.lists(change, min_size=1, max_size=3).map(damage)


# --- configs ---

# Not those whose environments have to be asked: each would start a process.
CONFIGS = [name for name in config_names() if not name.startswith(("cartpole", "metaworld"))]
BOMB = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
)


@tries(150)
@given(data=st.data(), name=st.sampled_from(CONFIGS))
def test_changed_configs(run, data, name):
    values = read_yaml(find_config(name).read_text(), name)
    file = run.parent / "config.yaml"
    file.write_text(dump_yaml(data.draw(changed(values))), "utf-8")
    call("train", file, "--dry-run", "--out", "new")


@tries(100)
@given(st.binary(max_size=60) | damaged(b"env: {family: point_nav}\nseed: &x 1\n? [*x, !!int 3]\n"))
def test_any_bytes_as_a_config(run, content):
    file = run.parent / "config.yaml"
    file.write_bytes(content)
    call("train", file, "--dry-run", "--out", "new")


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB + "\nenv: *a59",
        "env: &x [*x]",
        "env: &x {family: *x}",
        "[" * 1000,
        "env: " + "{a: " * 500 + "}" * 500,
        "seed: 2001-13-41",
        "seed: !!bool maybe",
        "seed: !!timestamp x",
        "seed: !!python/object/apply:os.system [exit 3]",
        "seed: " + "9" * 10_000,
        "? {a: b}\n: c",
        "a: \x1b[31m",
        "\ufeff",
        "--- 1\n--- 2\n",
    ],
    ids=lambda text: text[-30:],
)
def test_hostile_yaml(run, text):
    file = run.parent / "config.yaml"
    file.write_text(text, "utf-8")
    assert call("train", file, "--dry-run", "--out", "new") == 2
    assert call("train", "point_nav/maml_trpo", f"--seed={text}", "--dry-run", "--out=new") == 2


# --- command lines ---

# Of characters that a command line can hold.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
NUMBERS = st.sampled_from(["-1", "0", "1", "2", "1000000000000", "9" * 5000, "1e3", "nan", "²", ""])
PATHS = st.sampled_from(
    ["run", "spare", "run/config.yaml", ".", "/", "", "nowhere", "x" * 5000, "[/a]"]
)
FLAGS = {
    "train": [
        "--out",
        "--resume",
        "--continue",
        "--agent.inner.lr",
        "--inner.lr",
        "--env.horizon",
        "--env.family",
        "--agent.policy.hidden",
        "--agent.outer.update",
        "--num-tasks",
        "--seed",
        "--method",
        "--device",
        "--env.x.y",
    ],
    "evaluate": [
        "--protocol",
        "--split",
        "--tasks",
        "--episodes",
        "--steps",
        "--against",
        "--seed",
        "--agent.inner.test-lr-schedule",
        "--checkpoint",
        "--device",
    ],
    "render": ["--task", "--checkpoint", "--seed", "--device", "--steps"],
    "report": ["--out", "--help"],
    "list": ["--runs"],
    "check-env": ["--env.horizon", "--env.family"],
    "bench": ["--repeats", "--json"],
}
LAST = {  # so that nothing takes long
    "train": ["--dry-run"],
    "evaluate": LITTLE,
    "render": ["--out", "film.avi"],
    "report": ["--nothing"],
    "list": [],
    "check-env": ["--env.nothing=1"],
    "bench": ["--repeats", "0"],
}
FIRST = st.sampled_from(["point_nav/maml_trpo", "runs", "configs", "point_nav", "os:path"])


@tries(200)
@given(data=st.data(), command=st.sampled_from([*FLAGS, *FLAGS, "", "nothing", "--version"]))
def test_any_command_line(run, data, command):
    values = WORDS | NUMBERS | PATHS | FIRST
    flags = st.sampled_from(FLAGS.get(command, ["--help"]))
    pair = st.tuples(flags, values)
    joined = pair.map(lambda words: ("=".join(words),))
    words = data.draw(st.lists(pair | joined | st.tuples(values), max_size=5))
    first = data.draw(st.lists(FIRST | PATHS, max_size=1))
    flat = [word for each in words for word in each]
    call(*([command] if command else []), *first, *flat, *LAST.get(command, []))


# --- what is in a run's folder ---


@contextlib.contextmanager
def replaced(path, content):
    """Put other content into a file, for a while."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@tries(15)
@given(st.data())
def test_damaged_checkpoints(run, data):
    path = run / "checkpoints" / "latest.pt"
    with replaced(path, data.draw(damaged(path.read_bytes()))):
        call("evaluate", "run", *LITTLE)
        call("train", "--resume", "run")


FILES = ["config.yaml", "metrics.jsonl", "timings.jsonl", "provenance.json"]
RESULTS = "evaluation/k_step-test-tasks_2-episodes_2-steps_1.json"
FILES += [RESULTS]


def changed_file(data, path):
    """Content like a file's: damaged, or well formed with other things in it."""
    content = path.read_bytes()
    if data.draw(st.booleans()):
        return data.draw(damaged(content))
    if path.suffix == ".yaml":
        return dump_yaml(data.draw(changed(read_yaml(content.decode(), path.name)))).encode()
    if path.suffix == ".jsonl":
        lines = data.draw(changed([json.loads(line) for line in content.splitlines()]))
        return b"\n".join(json.dumps(line).encode() for line in lines)
    return json.dumps(data.draw(changed(json.loads(content)))).encode()


@tries(40)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_files_of_a_run(run, data, name):
    path = run / name
    with replaced(path, changed_file(data, path)):
        assert call("list", "runs", "--runs", ".") == 0
        call(
            "report", "run", "--out", "run/config.yaml/nowhere"
        )  # which is noticed when all is read
        if name == "config.yaml":
            call("evaluate", "run", *LITTLE)
        else:
            call("train", "--resume", "run")


@tries(4)
@given(data=st.data(), name=st.sampled_from(["metrics.jsonl", RESULTS]))
def test_files_that_are_drawn(run, data, name):
    path = run / name
    with replaced(path, changed_file(data, path)):
        call("report", "run", "--out", "out")


def test_the_letters_of_a_command_line():
    """The flags above are those that there are."""
    for command, flags in FLAGS.items():
        for flag in flags:
            assert set(flag) <= {*string.ascii_letters, "-", "."}, command
