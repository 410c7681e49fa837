"""Untrusted run folders: none of their content is run, leads out of them, or gets into a page."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import metarl
from metarl.cli.main import main
from metarl.core.errors import ConfigError, UserError
from metarl.core.parsing import dump_yaml, read_yaml
from metarl.envs import GymnasiumFamily, WorkerError
from metarl.evaluation.compare import evaluate_run
from metarl.reporting.pages import escape_markdown
from metarl.reporting.report import write_report
from metarl.reporting.style import drawing_style
from metarl.runs.identity import default_directory
from metarl.runs.run import Run
from metarl.runs.untrusted import check_code
from metarl.training.loop import resume, train

TINY = {
    "iterations": 2,
    "num_tasks": 2,
    "num_episodes": 2,
    "env.horizon": 5,
    "agent.policy.hidden": [4],
    "tracking.mode": "disabled",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    train(metarl.load_config("point_nav/maml_trpo", **TINY), directory)
    evaluate_run(directory, tasks=2, episodes=2, steps=1)
    return directory


@pytest.fixture
def run(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "runs" / "run"))


def change_config(run, **sections):
    path = run / "config.yaml"
    data = read_yaml(path.read_text(), str(path))
    for name, values in sections.items():
        data[name] = {**data[name], **values} if isinstance(values, dict) else values
    path.write_text(dump_yaml(data))


# --- code ---


class Evil:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def as_torch(evil, path):
    torch.save({"format": 1, "agent": {}, "iteration": evil}, path)


def as_plain(evil, path):
    path.write_bytes(pickle.dumps(evil, protocol=2))


def as_zip(evil, path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("latest/data.pkl", pickle.dumps(evil, protocol=2))
        file.writestr("latest/version", "3")


@pytest.mark.parametrize("write", [as_torch, as_plain, as_zip])
def test_a_malicious_checkpoint_executes_nothing(run, tmp_path, write, capsys):
    trap = tmp_path / "trap"
    for name in ("latest", "best", "iteration-000002"):
        write(Evil(trap), run / "checkpoints" / f"{name}.pt")
    for words in (["evaluate", run], ["render", run, "--out", "a.gif"], ["train", "--resume", run]):
        assert main(list(map(str, words))) == 2
        assert "checkpoint" in capsys.readouterr().err
    assert not trap.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(run / "checkpoints" / "latest.pt", weights_only=False)
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("os:system", {"command": "touch TRAP"}),
        ("subprocess:Popen", {"args": ["touch", "TRAP"]}),
        ("subprocess:run", {"args": ["touch", "TRAP"]}),
        ("shutil:copy", {"src": "/etc/hostname", "dst": "TRAP"}),
        ("torch:save", {"obj": 1, "f": "TRAP"}),
        ("pathlib:Path", {}),
    ],
)
def test_an_environment_cannot_be_any_function(tmp_path, name, kwargs):
    """A config chooses the arguments, so it must not choose what is called."""
    trap = tmp_path / "trap"
    given = json.loads(json.dumps(kwargs).replace("TRAP", str(trap)))
    family = GymnasiumFamily(env_id=name, kwargs=given)
    with pytest.raises(
        WorkerError, match=r"is a class, but not|is a function of|is neither a class"
    ):
        family.observation_space  # noqa: B018
    assert not trap.exists()


CODE = "import pathlib\npathlib.Path(__file__).with_name('trap').touch()\n"


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("env", {"family": "gymnasium", "env_id": "{run}/evil.py:make"}),
        ("env", {"family": "gymnasium", "env_id": "evil.py:make"}),
        ("env", {"family": "gymnasium", "env_id": "evil:make"}),
        ("env", {"family": "gymnasium", "python": "{run}/evil.py"}),
        ("env", {"family": "gymnasium", "python": "./evil.py"}),
        ("env", {"family": "evil:Family"}),
        ("env", {"family": "evil.part:Family"}),
        ("agent", {"inner": {"rule": "evil:Rule"}}),
    ],
)
def test_code_in_the_runs_own_folder_is_not_run(run, monkeypatch, section, values):
    """Not even from within the folder, where Python would find it."""
    (run / "evil.py").write_text(CODE)
    (run / "evil.py").chmod(0o755)
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which `main` adds the folder to
    path = run / "config.yaml"
    data = read_yaml(path.read_text(), str(path))
    given = {k: v.format(run=run) if isinstance(v, str) else v for k, v in values.items()}
    data[section] = given
    path.write_text(dump_yaml(data))
    with pytest.raises(UserError, match=rf"{section}\.[\w.]+: names code in the run's own folder"):
        Run.open(run)
    assert main(["evaluate", "."]) == 2
    assert not (run / "trap").exists()


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("env.kwargs.path", {"env": {"kwargs": {"path": "evil.py"}}}),
        ("env.a.b[1].c", {"env": {"a": {"b": [0, {"c": "evil.py:make"}]}}}),
        ("agent.inner.rule", {"agent": {"kind": "maml", "inner": {"rule": "evil:Rule"}}}),
        ("agent.network", {"agent": {"network": "evil.part:Network"}}),
        ("agent.network", {"agent": {"network": "~/evil.py:Network"}}),
    ],
)
def test_no_text_below_env_and_agent_may_name_code_of_the_run(tmp_path, monkeypatch, key, data):
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"yaml: {re.escape(key)}: names code in the run's own"):
        check_code(tmp_path, data)


@pytest.mark.parametrize(
    "text", ["", "\0", "x" * 5000, "~nobody-of-that-name/x", "math:floor", ":"]
)
def test_other_texts_of_a_config_are_accepted(tmp_path, monkeypatch, text):
    """From within the run's folder too, but for a method, which never names code."""
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    check_code(tmp_path, {"env": {"kwargs": {"x": [text]}}, "method": "evil:Rule", "agent": None})


def test_a_run_may_have_the_name_of_a_text_of_its_config(run, monkeypatch):
    """`runs/pearl` of an agent of kind `pearl`, read from within `runs`."""
    kind = metarl.load_config("point_nav/pearl").agent.kind
    check_code(run.rename(run.parent / kind), {"agent": {"kind": kind}})
    monkeypatch.chdir(run.parent)
    check_code(Path(kind), {"agent": {"kind": kind}, "env": {"family": f"~/{kind}"}})


# --- places ---


@pytest.mark.parametrize("method", ["../../x", "/etc/x", "a/b", "..", "a b;c", "x\N{BULLET}"])
def test_a_method_cannot_lead_out_of_the_folder_of_runs(method):
    config = metarl.load_config("point_nav/maml_trpo", method=method)
    path = default_directory(config)
    assert path.parent == Path("runs")
    assert path.resolve().parent == Path("runs").resolve()
    assert re.fullmatch(r"point_nav-[\w.-]+-seed0", path.name)


@pytest.mark.parametrize("method", ["", "a\nb", "\x1b[31m", "x" * 101, "\0"])
def test_a_method_is_a_short_printable_label(method):
    with pytest.raises(ConfigError, match="method: expected 1 to 100 characters, all printable"):
        metarl.load_config("point_nav/maml_trpo", method=method)


@pytest.mark.parametrize(
    "name", ["evaluation", "report", "checkpoints", "metrics.jsonl", "checkpoints/latest.pt", "new"]
)
def test_links_that_lead_out_of_a_run_are_refused(run, tmp_path, name):
    outside, path = tmp_path / "outside", run / name
    if path.is_dir():
        shutil.move(path, outside)
    elif path.exists():
        path.replace(outside)
    path.symlink_to(outside)  # if there is nothing yet, what is written would make it
    with pytest.raises(UserError, match=rf"{name}: is a link that leads out of the run's folder"):
        Run.open(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation/k_step-test.json", "checkpoints/a"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_in_a_run_are_refused(run, name, kind):
    """Reading them would not end."""
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero") if kind == "device" else os.mkfifo(path)
    with pytest.raises(UserError, match=f"{name}: is a pipe or a device; expected a file$"):
        Run.open(run)


def test_links_within_a_run_are_followed(run):
    (run / "checkpoints" / "chosen.pt").symlink_to("latest.pt")
    assert Run.open(run).load("chosen").iteration == 2


def test_a_partial_file_that_is_a_link_is_not_written_through(tmp_path):
    target, link = tmp_path / "mine", tmp_path / ".file.partial"
    target.write_text("precious")
    link.symlink_to(target)
    metarl.runs.atomic_io.write_atomically(tmp_path / "file", b"new")
    assert target.read_text() == "precious"
    assert (tmp_path / "file").read_text() == "new"


# --- texts ---

LABEL = "<img src=x onerror=alert(1)> [a](javascript:b) `c` | $\\frac{$"


@pytest.fixture
def marked(run):
    """A run whose every text is hostile."""
    change_config(run, method=LABEL, tracking={"project": "</pre><script>"})
    path = run / "evaluation" / "k_step-test-tasks_2-episodes_2-steps_1.json"
    content = json.loads(path.read_text())
    results = content["methods"].pop("maml_trpo")
    content["methods"] = {LABEL: results, f"{LABEL} 2": results}
    for part in results["parts"].values():
        part |= {"x_label": "<b>axis</b>", "split": "<script>", "task_hash": "--><script>"}
    path.write_text(json.dumps(content))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({**line, "<script>$^": 1.0, "mixed": "<b>"}) for line in lines]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (run / "provenance.json").write_text(
        json.dumps({"processor": "<script>\x1b[31m", "versions": {"<i>": "| `x` \n# y"}})
    )
    (run / "videos").mkdir()
    (run / "videos" / "<script>.gif").write_bytes(b"GIF89a")
    (run / "videos" / "link.gif").symlink_to("<script>.gif")
    return run.rename(run.with_name("$(touch x) <script> [red]"))


def test_hostile_texts_do_nothing_in_a_page(marked):
    page, card = (path.read_text() for path in write_report([marked])[:2])
    assert not re.search(r"<(script|img src=x|b>|i>)", page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "link.gif" not in page
    assert "\x1b" not in page + card
    assert (
        f"metarl evaluate &#39;{marked.parent}/$(touch x) &lt;script&gt; [red]-repeated&#39;"
        in page
    )
    texts, _, block = card.partition("## Use")
    assert not re.search(r"(?<!\\)[<]|(?<!\\)\]\(", texts)
    assert f"metarl evaluate '{marked.parent}/$(touch x) <script> [red]'" in block
    assert block.count("```") == 4


def test_hostile_texts_do_nothing_in_a_terminal(marked, capsys):
    assert main(["list", "runs", "--runs", str(marked.parent)]) == 0
    text = capsys.readouterr().out
    assert "[red]" in text
    assert "onerror=alert(1)" in " ".join(text.split())
    (marked / "config.yaml").write_text('"\\e[31m[/red]": 1\nenv: {family: point_nav}\n')
    assert main(["list", "runs", "--runs", str(marked.parent)]) == 0
    assert "[/red]" in capsys.readouterr().out
    assert main(["evaluate", str(marked)]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err


def test_markdown_is_shown_as_it_is():
    assert escape_markdown("maml_trpo 1.5") == "maml_trpo 1.5"
    assert escape_markdown("_a_ <b> [c](d)\n# `e`|") == (
        r"\_a\_ &lt;b&gt; \[c\]\(d\)" "\N{REPLACEMENT CHARACTER}" r"\# \`e\`\|"
    )


def test_a_dollar_begins_no_formula(tmp_path):
    from matplotlib.figure import Figure

    with drawing_style():
        figure = Figure()
        figure.subplots().set_title(LABEL)
        figure.savefig(tmp_path / "a.png")


# --- numbers ---

TOGETHER = "expected tasks, episodes and horizon that make at most 1,000,000,000 steps together"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_tasks": 10**12}, f"--num-tasks: {TOGETHER}"),
        ({"num_episodes": 10**12}, f"--num-episodes: {TOGETHER}"),
        ({"env.horizon": 10**12}, f"--env.horizon: {TOGETHER}"),
        (
            {"evaluation.every": 1, "evaluation.tasks": 10**12},
            f"--evaluation.tasks: {TOGETHER}",
        ),
        ({"inner_steps": 10**6}, "inner-steps: expected between 0 and 1000"),
        ({"agent.inner.lr": float("nan")}, "agent.inner.lr: expected number, got nan"),
        ({"agent.inner.lr": 10**400}, "agent.inner.lr: expected number"),
        ({"agent.inner.lr": 1e39}, r"agent.inner.lr: expected a finite number in single precision"),
        ({"agent.policy.obs_scale": [1.0, 1e39]}, "obs-scale: expected a finite number in single"),
        ({"env.goal_range": 1e39}, "goal-range: expected a finite number in single precision"),
        ({"seed": 10**5000}, "seed: expected between"),
    ],
)
def test_numbers_beyond_all_machines_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        metarl.load_config("point_nav/maml_trpo", **overrides)


def test_networks_beyond_all_machines_are_refused(capsys):
    words = ["train", "point_nav/maml_trpo", "--agent.policy.hidden=[1000000000]", "--dry-run"]
    assert main(words) == 2
    assert (
        "agent.policy.hidden: expected layers of at most 10,000,000 weights"
        in capsys.readouterr().err
    )


def test_logs_that_are_none_are_named(run):
    line = '{"iteration": 1, "env_steps": 8, "return_before": 1, "return_after": NaN}\n'
    (run / "metrics.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"nothing was trained yet \(no whole line in metrics"):
        write_report([run])
    with pytest.raises(UserError, match=r"metrics\.jsonl or timings\.jsonl has only 0 whole lines"):
        resume(run)
