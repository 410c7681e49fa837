"""The flags of a config, a family and a run; help; wrong input."""

import json
import re
import subprocess
import sys

import pytest

import metarl
from metarl import config_files
from metarl.cli.flags import KeyOption, flag_of
from metarl.core.schema_keys import Key


def test_dry_run_prints_the_config_and_writes_nothing(tmp_path, output):
    out = tmp_path / "run"
    code, text, _ = output(
        "train", "point_nav/maml_trpo", "--agent.inner.lr", "0.25", "--dry-run", "--out", out
    )
    assert code == 0
    assert "lr: 0.25" in text
    assert not out.exists()


def test_flags_may_stand_before_the_config(tmp_path, output):
    words = ("--seed", 3, "--env.goal-high", 2.5, "half_cheetah_vel/maml_trpo", "--env.horizon=9")
    code, text, _ = output("train", *words, "--dry-run", "--out", tmp_path / "run")
    assert code == 0
    assert "seed: 3" in text
    assert "goal_high: 2.5" in text
    assert "horizon: 9" in text


def test_help_of_check_env_shows_the_fields_of_the_family(output):
    text = " ".join(output("check-env", "half_cheetah_vel", "--help")[1].split())
    assert "--env.goal-high VALUE" in text
    assert "--env.observe-task VALUE" in text
    assert "--outer" not in text


@pytest.mark.parametrize(
    "command",
    ["", "train", "evaluate", "render", "report", "bench", "setup", "check-env", "list"],
)
def test_help_works_everywhere(command, output):
    code, text, error = output(*command.split(), "--help")
    assert (code, error) == (0, "")
    assert f"Usage: metarl {command}".strip() in text


def test_help_of_train_is_made_of_the_fields_docstrings(output):
    text = " ".join(output("train", "half_cheetah_vel/maml_trpo", "--help")[1].split())
    assert "The largest goal velocity, m/s." in text
    assert "--agent.inner.first-order" in text
    assert "Tasks per meta-batch." in text


@pytest.mark.parametrize(
    ("config", "present", "absent"),
    [
        ("maml_trpo", "--agent.outer.max-kl", "--agent.outer.clip"),
        ("promp", "--agent.outer.inner-kl-weight", "--agent.outer.max-kl"),
        ("reptile", "--agent.outer.optimizer", "--agent.outer.epochs"),
    ],
)
def test_help_lists_the_keys_of_the_configs_own_outer_update(output, config, present, absent):
    text = " ".join(output("train", f"point_nav/{config}", "--help")[1].split())
    assert f"{present} VALUE" in text
    assert absent not in text
    assert "One of trpo, ppo, adam, reptile" in text
    assert "--env.observe-task VALUE" in text


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (
            ["--agent.outer.update", "ppo", "--agent.outer.epochs", 3],
            ["    update: ppo", "    epochs: 3"],
        ),
        (
            ["--agent.outer.epochs=3", "--agent.outer.update=ppo"],
            ["    update: ppo", "    epochs: 3"],
        ),
        (["--agent.outer.kl_weight=1e-3", "--agent.outer.update=ppo"], ["    kl_weight: 0.001"]),
        (["--agent.outer.update=reptile", "--agent.outer.optimizer=adam"], ["    optimizer: adam"]),
        (["--agent.outer.max-kl", 0.05], ["    update: trpo", "    max_kl: 0.05"]),
        (["--env.observe-task", "true"], ["  observe_task: true"]),
        (["--env.family", "tabular_mdp", "--env.num-states", 4], ["  num_states: 4"]),
    ],
)
def test_flags_of_another_choice_than_the_configs(tmp_path, output, flags, lines):
    """Sections whose keys depend on a choice take the keys of the one that is asked for."""
    words = ("train", "point_nav/maml_trpo", *flags, "--dry-run", "--out", tmp_path / "run")
    code, text, error = output(*words)
    assert (code, error) == (0, "")
    assert set(lines) <= set(text.splitlines())


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--env.goal-low", "-5e-1"], "  goal_low: -0.5"),
        (["--env.goal-low=-5e-1"], "  goal_low: -0.5"),
        (["--agent.policy.hidden", "[32, 32]"], "    - 32"),
        (["--agent.policy.bias_transform=[0.5]"], "    - 0.5"),
        (["--tracking.entity", "null"], "  entity: null"),
        (["--tracking.entity", "a=b"], "  entity: a=b"),
        (["--tracking.entity", "2024"], "  entity: '2024'"),
        (["--method", "3"], "method: '3'"),
        (["--method=null"], "method: 'null'"),
        (["--num_tasks", "3"], "  num_tasks: 3"),
        (["--seed", "3", "--seed", "4"], "seed: 4"),
    ],
)
def test_values_are_yaml_and_text_stays_text(tmp_path, output, flags, line):
    words = ("train", "half_cheetah_vel/maml_trpo", *flags, "--dry-run", "--out", tmp_path / "run")
    code, text, error = output(*words)
    assert (code, error) == (0, "")
    assert line in text.splitlines()


def test_help_of_train_groups_the_values_of_the_config(output):
    text = output("train", "point_nav/promp", "--help")[1]
    titles = re.findall(r"^(\S+):$", text, re.MULTILINE)
    assert titles[:2] == ["Options", "env"]
    assert {"agent.policy", "agent.inner", "agent.outer", "agent.returns", "tracking"} < set(titles)
    flags = re.findall(r"^  (?:-h, )?(--\S+)", text, re.MULTILINE)
    everyday = "iterations num-tasks num-episodes inner-steps seed device threads checkpoint-every"
    own = "out resume continue init-from dry-run help"
    assert flags[:14] == [f"--{name}" for name in f"{everyday} {own}".split()]
    assert len(set(flags)) == len(flags)
    assert not any("_" in flag for flag in flags)
    config = metarl.load_config("point_nav/promp")
    text = " ".join(text.split())
    assert (
        f"Meta-iterations to train for. Whole number, at least 1. [default: {config.iterations}]"
        in text
    )
    assert re.search(r"--method VALUE [^[]*\[default: promp\]", text)
    assert re.search(r"--env.horizon VALUE [^[]*\[default: 100\]", text)
    assert re.search(r"--agent.outer.update VALUE [^[]*\[default: ppo\]", text)


@pytest.mark.parametrize("command", ["train", "evaluate", "report", "check-env"])
def test_a_name_with_line_breaks_is_one_line_in_errors(output, command):
    code, _, error = output(command, "two\nlines\r\nor three")
    assert code == 2
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1
    assert error.rstrip("\n").isprintable()


def test_a_family_with_observations_of_another_kind_is_refused_before_it_is_played(
    tmp_path, monkeypatch, output
):
    """And a run without iterations may be deleted, as its error says."""
    (tmp_path / "odd_spaces.py").write_text(
        "from gymnasium.spaces import Dict, Discrete\n"
        "from metarl.envs import PointNav\n"
        "class Odd(PointNav):\n"
        "    name = 'odd'\n"
        "    observation_space = Dict(dict(x=Discrete(2)))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("train", "point_nav/maml_trpo", "--env.family", "odd_spaces:Odd")
    code, _, error = output(*words, "--dry-run")
    assert code == 2
    expected = "env: odd: observation_space: expected a Box, got Dict; metarl check-env "
    assert error.startswith(f"metarl: error: {expected}")
    metarl.Run.create(metarl.load_config("point_nav/maml_trpo"), tmp_path / "begun")
    (tmp_path / "begun/notes.txt").touch()
    code, _, error = output("train", "point_nav/maml_trpo", "--out", "begun")
    assert code == 2
    assert error.endswith("it has no iteration yet: delete it to begin with other settings\n")


def test_an_everyday_key_of_a_section_has_its_short_flag_only():
    option = KeyOption(Key("sampling.adaptation_steps", int, 1, "Adaptation steps."))
    assert option.opts == ["--inner-steps"]
    assert option.section == "Options"
    assert flag_of("sampling.num_tasks") == "--num-tasks"
    assert flag_of("agent.policy.obs_scale") == "--agent.policy.obs-scale"


@pytest.mark.parametrize(
    "words", ["train point_nav/maml_trpo --inner.lr=0.1", "evaluate {run} --inner.lr 0.1"]
)
def test_a_flag_that_has_moved_is_refused_with_its_new_name(run, output, words):
    code, _, error = output(*words.format(run=run).split())
    assert code == 2
    assert error == "metarl: error: --inner.lr: is called --agent.inner.lr now\n"


def test_the_config_is_read_once(tmp_path, output, monkeypatch):
    read, names = config_files.read_config, []
    monkeypatch.setattr(config_files, "read_config", lambda name: names.append(name) or read(name))
    words = ("point_nav/maml_trpo", "--agent.inner.lr=0.2", "--dry-run", "--out", tmp_path / "run")
    assert output("train", *words)[0] == 0
    assert names == ["point_nav/maml_trpo"]


def test_evaluate_and_render_take_any_key_of_the_runs_config(run, tmp_path, output):
    size = ("--tasks", 2, "--episodes", 2, "--steps", 1)
    returns = {}
    for step_size in (1e-6, 0.5):
        assert output("evaluate", run, *size, "--agent.inner.lr", step_size)[0] == 0
        name = f"k_step-test-tasks_2-episodes_2-steps_1-agent.inner.lr_{step_size}.json"
        result = json.loads((run / "evaluation" / name).read_text())
        returns[step_size] = result["methods"]["maml_trpo"]["parts"][""]["returns"]
    assert returns[1e-6] != returns[0.5]
    words = ("--env.horizon", 3, "--tasks", 1, "--episodes", 2, "--steps", 1, "--out")
    code, text, _ = output("render", run, *words, tmp_path / "a.gif", "--width=96", "--height=96")
    assert code == 0
    assert str(tmp_path / "a.gif") in text


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_slow(flag):
    code = (
        "import sys; from metarl.cli.main import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'mujoco', 'wandb', 'gymnasium') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train point_nav/maml_trop", "nearest: point_nav/maml_trpo"),
        (
            "train point_nav/maml_trpo --lr 1",
            "--lr: unknown flag or argument (nearest: --agent.inner.lr, --agent.critic.lr);",
        ),
        ("train --max-kl 1", "(nearest: --agent.outer.max-kl)"),
        ("train point_nav/varibad --kl 1", "(nearest: --agent.model.kl-weight)"),
        (
            "train point_nav/maml_trpo --env.lr 1",
            "--env.lr: unknown key (nearest: agent.inner.lr, agent.critic.lr)",
        ),
        ("evaluate {run} --horizon 3", "(nearest: --env.horizon)"),
        ("evaluate {run} --hiden 3", "(nearest: --agent.policy.hidden)"),
        (
            "train point_nav/maml_trpo --agent.inner.lrr 1",
            "--agent.inner.lrr: unknown key (nearest: lr)",
        ),
        ("train point_nav/maml_trpo --agent.inner.lr fast", "--agent.inner.lr: expected number"),
        ("train point_nav/maml_trpo --num-tasks -1", "--num-tasks: expected at least 1"),
        (
            "train point_nav/maml_trpo --agent.inner.surrogate dyce",
            "--agent.inner.surrogate: expected one",
        ),
        ("train point_nav/maml_trpo --evaluation.steps 2000", "expected between 0 and 1000, got 2"),
        ("train point_nav/maml_trpo --device cuda:99", "cuda:99 is not available"),
        (
            "train point_nav/maml_trpo --agent.policy.hidden [1",
            "--agent.policy.hidden: not readable",
        ),
        (
            "train point_nav/maml_trpo --agent.policy.hidden [64,0]",
            "error: --agent.policy.hidden[1]: expected at least 1, got 0",
        ),
        ("evaluate {run} --against=", "--against: expected names or folders, with commas"),
        ("evaluate {run} --against ,random", "--against: expected names or folders, with commas"),
        ("evaluate {run} --task nan 0", "], got [nan, 0.0]\n"),
        (
            "train point_nav/maml_trpo --env.horizn 3",
            "unknown key (nearest: horizon)",
        ),
        ("train point_nav/maml_trpo --agent.outer.update pop", "(nearest: ppo)"),
        (
            "train point_nav/maml_trpo --agent.outer.update ppo --agent.outer.max-kl 0.1",
            "--agent.outer.max-kl: unknown key where agent.outer.update is ppo",
        ),
        (
            "train point_nav/maml_ppo --agent.outer.epohcs 3",
            "--agent.outer.epohcs: unknown key where agent.outer.update is ppo (nearest: epochs)",
        ),
        (
            "train point_nav/maml_trpo --agent.outer.lr 3",
            "unknown key where agent.outer.update is trpo",
        ),
        ("train point_nav/maml_trpo --env.observe-task yse", "expected true or false, got 'yse'"),
        (
            "train point_nav/reptile --agent.inner.rule meta_sgd",
            "inner.rule: meta_sgd makes no sense here: outer.update reptile",
        ),
        (
            "train point_nav/meta_sgd --inner-steps 0",
            "inner.rule: meta_sgd makes no sense here: with 0 adaptation",
        ),
        ("train", "expected either a CONFIG or --resume"),
        ("train --resume {run}", "finished already"),
        ("train --resume {run}/nowhere", "not a run's folder (it does not exist)"),
        ("train {run}", "is a run, not a config; metarl train --resume"),
        ("train pretrained/point_nav", "config; metarl train CONFIG --init-from pretrained/point_"),
        ("train point_nav", "(of this family: point_nav/maml_trpo and 27 more)"),
        (
            "train CartPole-v1",
            "no such config; an environment of Gymnasium needs one with family: gym",
        ),
        ("check-env CartPole-v1", "is an environment of Gymnasium: expected the family gymnasium"),
        (
            "list",
            "error: expected one of families, configs, pretrained, runs; see metarl list --he",
        ),
        (
            "train point_nav/maml_trpo --env.family gymnasium --env.env-id Pendulum-v1",
            "env.parameters is not given, and that of CartPole is used",
        ),
        ("train point_nav/maml_trpo --out {run}/config.yaml", "choose another folder with --out\n"),
        ("evaluate point_nav/maml_trpo", "is a config, not a run; train it first: metarl train"),
        ("evaluate {run} --out a.txt", "--out: expected a file that ends in .json, or a folder"),
        ("evaluate {run} --episodes 0", "error: --episodes: expected at least 1, got 0"),
        ("evaluate {run} --task a b", "--task: expected the numbers of one task"),
        ("evaluate {run} --experience a", "--experience: expected numbers, such as 3 or 1,2, got"),
        (
            "evaluate {run} --protocol few_episode --experience 1 2.5",
            "--experience: expected different whole numbers between 1 and 1000, in increasing",
        ),
        (
            "compare point_nav/maml_trpo --out {run}x --protocol few_episode --experience 2,1",
            "--experience: expected diff",
        ),
        (
            "evaluate {run} --protocol robust --perturbations action_delay=1.5",
            "error: --perturbations: action_delay: expected different whole numbers between",
        ),
        (
            "evaluate {run} --protocol robust --perturbations action_dela=1",
            "unknown name 'action_dela' (nearest: action_delay)",
        ),
        (
            "evaluate {run} --perturbations noise",
            "--perturbations: expected a name and numbers, such as action_delay=1,2, got 'noise'",
        ),
        (
            "compare gridworld/rl2 --out {run}x --protocol robust --perturbations motor_strength=1",
            "motor_strength: the actions of gridworld are choices, which have no strength",
        ),
        (
            "evaluate {run} --protocol ood --split ood",
            "error: --split: expected train, validation or test, with which the protocol ood",
        ),
        ("report {run} --out /dev/null/x", "/dev/null/x: cannot be written (Not a directory)"),
        *(
            (f"{command} --out /dev/null/x", "/dev/null/x: cannot be written (Not a directory)")
            for command in (
                "train point_nav/maml_trpo",
                "evaluate {run}",
                "compare point_nav/maml_trpo",
                "package {run} --license mit",
            )
        ),
        ("render {run} --out /dev/null/x/a.mp4", "/dev/null/x/a.mp4: Not a directory"),
        ("train point_nav/maml_trpo --out {run}", "exists already"),
        ("evaluate {run} --tasks -3", "error: --tasks: expected at least 1"),
        ("evaluate {run} --tasks many", "--tasks: 'many' is not a valid integer"),
        ("evaluate {run} --split tests", "nearest: test"),
        ("evaluate {run} --split TEST", "nearest: test"),
        ("train POINT_NAV/maml_trpo", "(nearest: point_nav/maml_trpo)"),
        ("train point_nav/maml_trpo --env.family POINT_NAV", "(nearest: point_nav)"),
        ("train point_nav/maml_trpo --agent.kind RL2", "(nearest: rl2)"),
        ("train point_nav/maml_trpo --init-from= --dry-run", "--init-from: .: not a run's folder"),
        ("train --resume {run} --init-from=", "--init-from: {run} goes on from its own checkpoint"),
        ("train point_nav/maml_trpo --out= --dry-run", "--out: expected a path, got ''"),
        ("evaluate {run} --out=", "--out: expected a path, got ''"),
        ("report {run} --out=", "--out: expected a path, got ''"),
        ("evaluate {run}/config.yaml", "is part of a run; expected the run's folder, {run}\n"),
        ("evaluate {run}/checkpoints/latest.pt", "latest.pt: is part of a run"),
        ("evaluate point_nav", "(it does not exist) (nearest: pretrained/point_nav)"),
        (
            "evaluate {run} --protocol robust --perturbations action_delay=1 "
            "--perturbations action_delay=1",
            "action_delay: expected different whole numbers between 0 and 1000, got [1, 1]",
        ),
        ("evaluate {run} --checkpoint 99", "there is no such checkpoint"),
        ("evaluate {run} --checkpoint=", "checkpoints: expected the name of a checkpoint, got ''"),
        ("evaluate {run} --checkpoint ../checkpoints/best", "expected the name of a checkpoint,"),
        # The name of a project is text, which is told by what is refused instead.
        ("evaluate {run} --tracking.project 2024 --checkpoint 99", "there is no such checkpoint"),
        ("evaluate {run} --seed -1", "seed: expected between 0"),
        ("evaluate {run} --device gpu", "--device: expected cpu, cuda or cuda:NUMBER"),
        ("evaluate {run} --device cuda:99", "cuda:99 is not available"),
        ("render {run} --steps -1 --out a.mp4", "steps: expected between 0 and 1000"),
        ("render {run} --episodes 0 --out a.gif", "error: --episodes: expected at least 1, got 0"),
        ("render {run} --seed -1 --out a.mp4", "seed: expected between 0"),
        ("bench point_nav/maml_trpo --repeats 0", "repeats: expected at least 1"),
        ("bench point_nav/maml_trpo --json {run}/nowhere/a.json", "there is no folder"),
        ("bench point_nav/maml_trpo --json {run}", "--json: expected a file, got the folder"),
        ("evaluate {run}x", "not a run's folder"),
        ("render {run} --task 1 --out a.mp4", "has 2 numbers, got [1.0]"),
        ("render {run} --task 1 1 --out a.mp4", "nearest: [0.75, 0.75]"),
        ("render {run} --out a.avi", ".mp4 or .gif"),
        ("render {run} --tasks 0 --out a.gif", "--tasks: expected at least 1, got 0"),
        ("render {run} --tasks 65 --out a.gif", "--tasks: expected at most 64, got 65"),
        ("render {run} --tasks 2 --task 0 0 --out a.gif", "not allowed with argument"),
        ("render {run} --width 0 --out a.gif", "--width: expected between 64 and 4096, got 0"),
        ("render {run} --preset tallk --out a.gif", "(nearest: talk)"),
        ("render {run} --fps 60 --out a.gif", "--fps: expected between 0.1 and 50 in .gif"),
        ("check-env", "required: TARGET"),
        ("check-env half_cheetah_vell", "unknown family 'half_cheetah_vell' (nearest: half_"),
        ("check-env no_such_module:Nav", "error: cannot import 'no_such_module:Nav'"),
        (
            "check-env metarl.envs:TaskFamily",
            "metarl.envs:TaskFamily does not define action_space, caption",
        ),
        ("check-env point_nav --env.horizn 3", "--env.horizn: unknown key (nearest: horizon)"),
        ("check-env point_nav --env.horizon few", "--env.horizon: expected whole number"),
        ("check-env point_nav --env.horizon [1", "--env.horizon: not readable"),
        ("check-env point_nav --env.horizon 0", "--env.horizon: expected at least 1, got 0"),
        ("check-env point_nav --env.family x", "--env.family: unknown flag"),
        ("check-env point_nav --seed 1", "--seed: unknown flag"),
        ("check-env point_nav --agent.inner.lr 1", "--agent.inner.lr: unknown flag"),
        ("evaluate {run} --iterations 3", "--iterations: unknown flag or argument;"),
        ("evaluate {run} --tas 1", "--tas: unknown flag or argument (nearest: --task)"),
        ("evaluate {run} --num-tasks 3", "--num-tasks: unknown flag or argument (nearest: --tasks"),
        ("evaluate {run} --threads few", "--threads: expected whole number"),
        ("evaluate {run} --task 1", "--task: a task of point_nav has 2 numbers, got [1.0]"),
        ("evaluate {run} --task 0 0 --split train", "--task: not allowed with argument --split"),
        ("evaluate {run} --task 0 0 --tasks 2", "--task: not allowed with argument --tasks"),
        ("evaluate {run} --task-file a.md --tasks 2", "--task-file: not allowed with argument"),
        ("evaluate {run} --task-file a.md", "a.md: no tasks can be read from it: expected a file"),
        ("evaluate {run} --agent.inner.lr fast", "--agent.inner.lr: expected number"),
        ("evaluate {run} --agent.inner.lrr 1", "--agent.inner.lrr: unknown key (nearest: lr)"),
        ("render {run} --task one --out a.mp4", "--task: expected the numbers of one task"),
        ("render {run} --task 0 0 --task 9 0 --out a.mp4", "--task: task 2: a task of point_nav"),
        ("render {run}", "required: --out"),
        ("train point_nav/maml_trpo --itertions 3", "(nearest: --iterations)"),
        ("train point_nav/maml_trpo --iter 3", "--iter: unknown flag"),
        ("train point_nav/maml_trpo point_nav/anil", "point_nav/anil: unknown flag or argument"),
        ("train point_nav/maml_trpo --out --dry-run", "--out: expected a value, got --dry-run"),
        ("train point_nav/maml_trpo --dry-run --seed", "--seed: expected a value"),
        ("train point_nav/maml_trpo --dry-run=1", "'--dry-run' does not take a value"),
        ("evalute", "nearest: evaluate"),
        ("list runs --runs {run}x", "x (nearest: tiny)"),
        ("list runs --runs {run}/config.yaml", "--runs: expected a folder of runs, got "),
        ("list famlies", "nearest: families"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(run, words, expected, output):
    code, _, error = output(*words.format(run=run).split())
    assert code == 2
    assert expected.replace("{run}", str(run)) in error
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1
