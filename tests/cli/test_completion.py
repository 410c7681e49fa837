"""What a shell completes."""

import pytest

from metarl.cli.main import main


@pytest.fixture
def completions(monkeypatch, capsys):
    """Asks as a shell does; returns the words that it is given."""

    def ask(line, shell="bash"):
        words = line.split(" ")  # the last one is completed
        count = str(len(words) - 1)
        monkeypatch.setenv("_METARL_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else count)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        if shell == "zsh":  # three lines for each: type, word, help
            return lines[1::3]
        return [line.split(",", 1)[1].partition("\t")[0] for line in lines if line]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_flags_and_values(completions, shell):
    names = "bench check-env compare evaluate list package render report setup train tune"
    assert completions("metarl ", shell) == names.split()
    assert completions("metarl train point_nav/maml_trpo --agent.outer.up", shell) == [
        "--agent.outer.update"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metarl train point_nav/maml_tr", ["point_nav/maml_trpo", "point_nav/maml_trpo_tuned"]),
        ("metarl bench point_nav/prom", ["point_nav/promp"]),
        ("metarl compare point_nav/rl2 point_nav/prom", ["point_nav/promp"]),
        ("metarl train nowhere/", ["nowhere/"]),  # a path, which the shell goes on with
        ("metarl train point_nav/maml_trpo --agent.outer.update re", ["reptile"]),
        ("metarl train point_nav/maml_trpo --seed 1 --env.ends-at-goal ", ["true", "false"]),
        ("metarl check-env half_cheetah_v", ["half_cheetah_vel"]),
        ("metarl check-env half_cheetah_vel --env.goal-h", ["--env.goal-high"]),
        ("metarl check-env point_nav/prom", ["point_nav/promp"]),
        ("metarl check-env point_nav/promp --env.goal-ran", ["--env.goal-range"]),
        ("metarl evaluate somewhere --protocol fe", ["few_episode"]),
        ("metarl evaluate somewhere --split o", ["ood"]),
        ("metarl train point_nav/maml_trpo --agent.inner.test-lr-schedule g", ["geometric"]),
        ("metarl list r", ["runs"]),
        ("metarl nothing", []),
    ],
)
def test_names_are_completed(completions, line, expected):
    assert completions(line) == expected


def test_folders_of_runs_are_completed(completions, tmp_path, monkeypatch):
    for name in ("one", "other", "none"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "none":
            (tmp_path / "runs" / name / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert completions("metarl evaluate ")[:2] == ["runs/one", "runs/other"]
    assert completions("metarl evaluate pretrained/half_cheetah_v") == [
        "pretrained/half_cheetah_vel"
    ]
    assert completions("metarl render runs/ot") == ["runs/other"]
    assert completions("metarl train --resume runs/on") == ["runs/one"]
    assert completions(f"metarl report {tmp_path}/runs/on") == [f"{tmp_path}/runs/one"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_calls_metarl(monkeypatch, capsys, shell):
    monkeypatch.setenv("_METARL_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert f"_METARL_COMPLETE={shell}_complete" in capsys.readouterr().out
