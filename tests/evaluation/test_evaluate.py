"""Evaluation: fixed tasks, every task from the meta-parameters, and honest figures."""

import json
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import metarl
from metarl.cli.main import main
from metarl.config_files import make_config
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav, make_family
from metarl.evaluation.compare import evaluate_run, find_sibling_run
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.rollout.failures import EpisodeDiverged, Failure
from metarl.runs.result import Evaluation
from metarl.runs.result_files import read_results
from metarl.runs.run import Run
from metarl.training.loop import train
from tests.faulty import FaultyNav

SMALL = {
    "iterations": 2,
    "num_tasks": 3,
    "num_episodes": 4,
    "env.horizon": 10,
    "agent.policy.hidden": [8],
    "tracking.mode": "disabled",
}


@dataclass(frozen=True)
class Choices(PointNav):
    """Another family with the observations of 2D navigation."""

    name: ClassVar[str] = "choices"


@pytest.mark.parametrize("space", [Discrete(5), Box(-1.0, 1.0, (3,))])
def test_an_agent_with_other_actions_is_refused_before_anything_is_played(
    run, tmp_path, monkeypatch, space
):
    monkeypatch.setattr(Choices, "action_space", space)
    monkeypatch.setattr(Choices, "make_batch", lambda *_: pytest.fail("made"))
    agent, family = metarl.load(run.directory), Choices(horizon=4)
    said = r"env: expected actions of Box\(.*, \(2,\), .*\), for which the policy was made, got "
    with pytest.raises(UserError, match=said):
        metarl.evaluate(agent, family, tasks=2, episodes=2, steps=1)
    with pytest.raises(UserError, match=said):
        metarl.render(agent, family, task=[0.2, 0.1], steps=1, out=tmp_path / "x.gif")


def test_other_bounds_of_actions_are_not_other_actions(run):
    wider = replace(run.config.env, action_scale=2.0)
    found = metarl.evaluate(metarl.load(run.directory), wider, tasks=2, episodes=2, steps=1)
    assert found.returns.shape == (2, 2, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = metarl.load_config("point_nav/maml_trpo", **SMALL)
    return train(config, tmp_path_factory.mktemp("runs") / "run")


def test_returns_have_a_row_per_task_step_and_episode(run):
    result = evaluate(load(run.directory), run.config.env, tasks=5, episodes=3, steps=2)
    assert result.returns.shape == (5, 3, 3)
    assert np.array_equal(result.tasks, run.config.env.tasks("test", 5))


def test_a_task_is_adapted_to_from_the_meta_parameters_whatever_came_before(run):
    family = run.config.env
    agent = load(run.directory)
    many = evaluate(agent, family, tasks=5, episodes=3, steps=2)
    again = evaluate(agent, family, tasks=5, episodes=3, steps=2)
    few = evaluate(agent, family, tasks=2, episodes=3, steps=2)
    assert np.array_equal(many.returns, again.returns)
    assert np.array_equal(many.returns[:2], few.returns)


def test_threads_do_not_change_the_result():
    config = metarl.load_config("half_cheetah_dir/demo", **SMALL)
    results = [
        evaluate(config.make_agent(), config.env, tasks=3, episodes=2, steps=1, threads=n).returns
        for n in (1, 2)
    ]
    assert np.array_equal(*results)


def test_statistics_of_known_returns():
    returns = np.array([[[0.0, 2.0], [4.0, 4.0]], [[3.0, 3.0], [1.0, 1.0]]])  # (2, 2, 2)
    family = PointNav()
    result = Evaluation("point_nav", "test", "hash", family.tasks("test", 2), returns)
    assert result.by_task.tolist() == [[1.0, 4.0], [3.0, 1.0]]
    assert result.mean.tolist() == [2.0, 2.5]
    assert result.iqm.tolist() == [2.0, 2.5]
    assert result.fraction_worse.tolist() == [0.0, 0.5]
    assert result.interval.shape == (2, 2)
    half = 12.7062 * 1.0  # Student's t with one degree of freedom, by the error of the mean
    assert result.interval[0] == pytest.approx([2 - half, 2 + half], rel=1e-5)


def test_the_schedule_is_the_agents_and_changes_only_later_steps(run):
    kwargs = {"tasks": 3, "episodes": 3, "steps": 2}
    halving, constant = (
        evaluate(load(run.directory, **overrides), run.config.env, **kwargs)
        for overrides in ({}, {"agent.inner.test_lr_schedule": "constant"})
    )
    assert np.array_equal(constant.returns[:, :2], halving.returns[:, :2])
    assert not np.array_equal(constant.returns[:, 2], halving.returns[:, 2])


def test_python_and_the_command_line_have_the_same_defaults(run):
    """`metarl.evaluate` of a loaded agent and `metarl evaluate` of its run: the same numbers."""
    sizes = {"tasks": 3, "episodes": 2}
    result = metarl.evaluate(metarl.load(run.directory), run.config.env, **sizes)
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    assert main(["evaluate", str(run.directory), *flags]) == 0
    content = json.loads(
        (run.directory / "evaluation" / "k_step-test-tasks_3-episodes_2.json").read_text()
    )
    part = content["methods"]["maml_trpo"]["parts"][""]
    assert part["returns"] == result.returns.tolist()
    assert result.returns.shape == (3, 4, 2)


def test_an_oracle_is_not_adapted(tmp_path):
    """However many adaptations are asked for: it has its return before adaptation and no more."""
    config = metarl.load_config("point_nav/oracle", **{**SMALL, "iterations": 1})
    run = metarl.train(config, tmp_path / "run")
    results, _ = evaluate_run(run.directory, tasks=3, episodes=2, steps=3)
    assert results["oracle"].x == (0,)
    assert results["oracle"].returns.shape == (3, 1, 2)
    few, _ = evaluate_run(run.directory, protocol="few_episode", tasks=3, episodes=2)
    assert few["oracle"].x == (0,)
    sequence, _ = evaluate_run(run.directory, protocol="continual", tasks=5, episodes=2)
    alone, sequential = sequence.values()
    assert np.array_equal(alone.returns, sequential.returns)


def test_result_file_holds_all_that_is_needed(run):
    results, file = evaluate_run(run.directory, tasks=4, episodes=3, steps=2, against=["random"])
    assert list(results) == ["maml_trpo", "random"]
    assert np.array_equal(results["maml_trpo"].tasks, results["random"].tasks)
    assert file.name == "k_step-test-tasks_4-episodes_3-steps_2.json"
    content = json.loads(file.read_text())
    assert (content["protocol"], content["split"]) == ("k_step", "test")
    assert content["overrides"] == {}
    assert (content["tasks"], content["episodes"], content["steps"], content["seed"]) == (
        4,
        3,
        2,
        0,
    )
    assert content["provenance"]["versions"]["mujoco"]
    assert list(content["methods"]) == ["maml_trpo", "random"]
    assert content["methods"]["maml_trpo"]["checkpoint"] == "latest"
    result = content["methods"]["maml_trpo"]["parts"][""]
    assert result["family"] == "point_nav"
    assert result["task_hash"] == run.config.env.task_hash(run.config.env.tasks("test", 4))
    assert np.array(result["tasks"]).shape == (4, 2)
    assert np.array(result["returns"]).shape == (4, 3, 3)
    assert len(result["mean"]) == len(result["interval"]) == len(result["iqm"]) == 3
    assert (result["x_label"], result["x"]) == ("adaptations", [0, 1, 2])


def test_the_random_baseline_is_the_agent_before_training(run):
    results, _ = evaluate_run(run.directory, tasks=2, episodes=2, steps=1, against=["random"])
    fresh = evaluate(run.config.make_agent(), run.config.env, tasks=2, episodes=2, steps=1)
    assert np.array_equal(results["random"].returns, fresh.returns)
    assert not np.array_equal(results["random"].returns, results["maml_trpo"].returns)


def train_another(tmp_path, folder, config="point_nav/reptile", **overrides):
    return train(metarl.load_config(config, **{**SMALL, **overrides}), tmp_path / folder).directory


def test_another_run_is_a_baseline_on_the_same_tasks_and_episodes(run, tmp_path):
    """By its folder; under its method, or under the folder's name where that is taken."""
    reptile = train_another(tmp_path, "reptile-run")
    twin = train_another(tmp_path, "twin", "point_nav/maml_trpo", seed=5)
    settings = {"tasks": 3, "episodes": 2, "steps": 1}
    results, file = evaluate_run(run.directory, against=[str(reptile), str(twin)], **settings)
    assert list(results) == ["maml_trpo", "reptile", "twin"]
    for label, directory in (("reptile", reptile), ("twin", twin)):
        alone = evaluate(load(directory), run.config.env, **settings)
        assert np.array_equal(results[label].returns, alone.returns)
        assert results[label].task_hash == results["maml_trpo"].task_hash
    written = json.loads(file.read_text())["methods"]
    assert list(written) == ["maml_trpo", "reptile", "twin"]
    assert written["reptile"]["checkpoint"] == f"{reptile} latest"


def test_a_method_stands_for_its_run_beside_this_one(run):
    """The one with the same seed, where there are several."""
    for seed in (3, 0):
        train_another(run.directory.parent, f"oracle-{seed}", "point_nav/oracle", seed=seed)
    settings = {"tasks": 2, "episodes": 2, "steps": 1}
    results, file = evaluate_run(run.directory, against=["oracle", "random"], **settings)
    assert list(results) == ["maml_trpo", "oracle", "random"]
    written = json.loads(file.read_text())["methods"]
    assert written["oracle"]["checkpoint"] == f"{run.directory.parent / 'oracle-0'} latest"


def test_a_run_beside_that_cannot_be_read_is_no_baseline_and_no_obstacle(tmp_path):
    run = Run.open(train_another(tmp_path, "run"))
    train_another(tmp_path, "twin", "point_nav/oracle")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("no_such_key: 1\n")
    assert find_sibling_run(run, "oracle") == tmp_path / "twin"
    with pytest.raises(UserError, match=r"orcle: .*nearest: oracle.; not readable: broken$"):
        find_sibling_run(run, "orcle")


def test_an_oracle_is_compared_on_the_tasks_that_it_is_told(run, tmp_path):
    oracle = train_another(tmp_path, "oracle", "point_nav/oracle")
    results, _ = evaluate_run(run.directory, against=[str(oracle)], tasks=2, episodes=2, steps=1)
    assert np.array_equal(results["oracle"].tasks, results["maml_trpo"].tasks)


def test_a_run_on_other_tasks_is_no_baseline(run, tmp_path):
    other = train_another(tmp_path, "other", **{"env.goal_range": 0.4})
    with pytest.raises(
        UserError, match=r"other: its tasks are not those of .*: env\.goal_range is 0\.4, not 0\.5$"
    ):
        evaluate_run(run.directory, against=[str(other)])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"tasks": 0}, "tasks: expected at least 1"),
        ({"episodes": 2.5}, "episodes: expected a whole number, got 2.5"),
        ({"episodes": -1}, "episodes: expected at least 1"),
        ({"trials": 0}, "trials: expected at least 1"),
        ({"steps": -1}, "steps: expected between 0 and 1000"),
        ({"experience": ()}, "experience: expected different whole numbers"),
        ({"experience": (2, 1)}, "experience: .* in increasing order, got \\[2, 1\\]"),
        ({"experience": (0, 1)}, "experience: .* between 1 and 1000, .* got \\[0, 1\\]"),
        ({"experience": (1, 2.5)}, "experience: .* got \\[1, 2.5\\]"),
        ({"perturbations": {}}, "perturbations: expected at least one"),
        ({"perturbations": {"noise": [1]}}, "unknown name 'noise'.* expected one of observation_n"),
        ({"perturbations": {"action_delay": [1.5]}}, "action_delay: expected different whole num"),
        ({"perturbations": {"observation_noise": [-1]}}, "noise: expected different numbers betwe"),
        ({"perturbations": {"observation_noise": [1, 1.0]}}, "observation_noise: expected differ"),
        ({"perturbations": {"observation_noise": []}}, "observation_noise: expected different"),
        (
            {"perturbations": {"observation_noise": [1e39]}},
            "between 0 and 1e.06, got .1e.39",
        ),
        (
            {"perturbations": {"action_delay": [10**9]}},
            "between 0 and 1000, got .10000",
        ),
        ({"perturbations": {"action_delay": 3}}, "action_delay: expected different .*, got 3"),
        ({"perturbations": "action_delay"}, "perturbations: expected at least one, with strengths"),
        ({"experience": 5}, "experience: expected different whole numbers .*, got 5"),
        ({"protocol": None}, "unknown protocol None: expected one of"),
        ({"split": 3}, "unknown split 3: expected one of"),
        ({"out": 3}, "out: expected a path, got 3"),
        ({"split": "tset"}, "nearest: test"),
        ({"deterministic": "no"}, "deterministic: expected True or False, got 'no'"),
        ({"agent.inner.test_lr_schedule": "haling"}, "nearest: halving"),
        ({"protocol": "few_episodes"}, "nearest: few_episode"),
        ({"protocol": "paper"}, "unknown protocol 'paper': its name is now 'k_step'"),
        (
            {"against": ["randm"]},
            r"--against: randm: expected random, the folder of a run.*: random",
        ),
        ({"checkpoint": "bset"}, "there is no such checkpoint"),
    ],
)
def test_bad_requests_are_refused(run, wrong, expected):
    with pytest.raises((UserError, ConfigError), match=expected):
        evaluate_run(run.directory, **wrong)


@pytest.mark.parametrize("protocol", ["k_step", "few_episode", "robust"])
def test_numbers_of_numpy_are_plain_numbers(run, tmp_path, protocol):
    amounts = {"tasks": 2, "episodes": 1, "steps": 1, "seed": 3, "trials": 1}
    files, settings = [], {"experience": (1, 2), "perturbations": {"action_delay": [1, 2]}}
    for name, kind in (("plain", int), ("numpy", np.int64)):
        given = {key: kind(value) for key, value in amounts.items()}
        lists = {"experience": tuple(map(kind, settings["experience"]))}
        strengths = settings["perturbations"]["action_delay"]
        lists["perturbations"] = {"action_delay": strengths if kind is int else np.array(strengths)}
        file = tmp_path / f"{name}.json"
        evaluate_run(run.directory, protocol=protocol, out=str(file), **given, **lists)
        files.append(json.loads(file.read_text()))
    for each in files:
        del each["provenance"]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("sampling.num_episodes", 7, "; expected --episodes"),
        ("sampling.num_tasks", 7, "; expected --tasks"),
        ("sampling.nuisances.observation_noise", [0.0, 0.1], ""),
        ("sampler.kind", "ray", ""),
        ("evaluation.every", 3, ""),
        ("agent.outer.max_kl", 0.5, ""),
        ("agent.inner.pre_adaptation_weight", 0.5, ""),
    ],
)
def test_settings_of_training_alone_are_refused(run, tmp_path, capsys, key, value, instead):
    """By name, in Python and by both commands; the steps of training scale those of tests."""
    name = f"--{key.replace('_', '-')}"
    expected = f"{name}: is of training, and has no influence on an evaluation{instead}"
    with pytest.raises(ConfigError) as error:
        evaluate_run(run.directory, **{key: value})
    assert str(error.value) == expected
    for command, work in (("evaluate", "an evaluation"), ("render", "a video")):
        words = [command, str(run.directory), f"{name}={value}"]
        words += [f"--out={tmp_path / 'x.gif'}"] if command == "render" else []
        assert main(words) == 2
        line = f"metarl: error: {expected.replace('an evaluation', work)}\n"
        assert capsys.readouterr().err == line
    little = {"tasks": 2, "episodes": 2, "steps": 1, "out": tmp_path}
    evaluate_run(run.directory, **little, **{"sampling.adaptation_steps": 2})


def test_load_takes_checkpoints_by_name(run):
    names = {f"params.{name}" for name in ("weight0", "bias0", "weight1", "bias1", "log_std")}
    for checkpoint in ("latest", "best", "2"):
        assert load(run.directory, checkpoint).state_dict().keys() == names


def test_a_checkpoint_that_does_not_fit_the_config_is_refused(run):
    expected = r": the checkpoint .* params\.bias0 has the shape \[1, 8\], expected \[1, 9\]"
    with pytest.raises(UserError, match=re.escape(str(run.directory)) + expected):
        load(run.directory, **{"agent.policy.hidden": [9]})
    with pytest.raises(UserError, match="does not fit the config"):
        load(run.directory, **{"agent.policy.hidden": [8, 8]})


def test_a_trained_half_cheetah_is_made_of_the_same_parts():
    config = metarl.load_config("half_cheetah_vel/maml_trpo", **{**SMALL, "env.horizon": 5})
    result = evaluate(config.make_agent(), config.env, tasks=2, episodes=2, steps=1)
    assert np.isfinite(result.returns).all()


def test_an_agent_of_other_observations_is_refused():
    agent = metarl.load_config("half_cheetah_vel/maml_trpo", **SMALL).make_agent()
    other = make_family("half_cheetah_vel", horizon=5)
    with pytest.raises(UserError, match="expected observations of 20 numbers"):
        evaluate(agent, other, tasks=2, episodes=2, steps=1)


def test_a_split_that_a_family_does_not_have_is_refused_with_the_reason():
    family = make_family("half_cheetah_dir", horizon=5)
    agent = metarl.load_config("half_cheetah_dir/maml_trpo", **SMALL).make_agent()
    with pytest.raises(UserError, match="split: half_cheetah_dir has no split 'ood': it"):
        evaluate(agent, family, split="ood", tasks=2)


def test_tasks_out_of_distribution_are_evaluated_like_any_others():
    config = metarl.load_config("half_cheetah_vel/maml_trpo", **{**SMALL, "env.horizon": 5})
    result = evaluate(
        config.make_agent(), config.env, split="ood", tasks=3, episodes=2, steps=1, seed=0
    )
    assert result.tasks.min() > 2
    assert result.returns.shape == (3, 2, 2)


# --- episodes that fail ---


def faulty_agent(share, **fields):
    family = FaultyNav(horizon=6, share=share, **fields)
    config = metarl.load_config("point_nav/maml_trpo", **{"agent.policy.hidden": [8]})
    return config.make_agent(), family


@pytest.mark.parametrize("fault", ["reward", "huge reward", "observation", "state"])
def test_an_episode_that_fails_is_never_averaged_in(fault):
    """And is there with its reason; the others before adaptation are those of a healthy family."""
    agent, family = faulty_agent(0.1, fault=fault)
    settings = {"tasks": 6, "episodes": 4, "steps": 2}
    with pytest.raises(
        EpisodeDiverged, match=r"^task \d \[.*\], episode \d, step \d: .*not finite"
    ):
        evaluate(agent, family, **settings)
    result = evaluate(agent, family, on_failure="drop_episode", **settings)
    healthy = evaluate(agent, replace(family, share=0.0), **settings)
    lost = np.isnan(result.returns)
    assert lost.sum() == len(result.failures) > 0
    assert all(
        lost[each.task_index, each.adaptation_step, each.episode] for each in result.failures
    )
    first = ~lost[:, 0]
    assert np.array_equal(result.returns[:, 0][first], healthy.returns[:, 0][first])
    assert np.array_equal(result.by_task, np.nanmean(result.returns, axis=2))
    assert result.complete_tasks.all()
    assert np.isfinite([result.mean, result.iqm, result.fraction_worse, *result.interval.T]).all()


@pytest.mark.parametrize(
    "error",
    [EpisodeDiverged([Failure("episode", "NaN", 1, 3, (0.0,), 0, 0)]), KeyboardInterrupt()],
    ids=["an episode that fails", "Ctrl-C"],
)
def test_agents_evaluated_before_another_one_fails_are_written(run, tmp_path, error):
    def on_agent(label):
        def on_step(env):
            if label == "random":
                raise error

        return on_step

    little = {"tasks": 2, "episodes": 2, "steps": 1}
    file = tmp_path / "mine.json"
    with pytest.raises(type(error)) as raised:
        evaluate_run(run.directory, **little, against="random", on_agent=on_agent, out=file)
    if isinstance(error, EpisodeDiverged):
        expected = f"{error}, in the evaluation of random; the others are in {file}"
        assert str(raised.value) == expected
    alone, _ = evaluate_run(run.directory, **little, out=tmp_path / "alone")
    (written,) = read_results(file).values()
    assert np.array_equal(written[""].returns, alone["maml_trpo"].returns)


def test_a_task_that_lost_all_its_episodes_counts_at_no_point():
    """By hand: means before and after are over the same tasks."""
    nan = np.nan
    returns = np.array([[[1.0, 3.0], [4.0, nan]], [[9.0, 9.0], [nan, nan]], [[5.0, nan], [7.0, 8]]])
    failures = tuple(Failure("episode", "lost", 1, 1, (0.0,), i, 0) for i in range(4))
    success = returns > 3
    family = PointNav()
    result = Evaluation(
        "point_nav", "test", "hash", family.tasks("test", 3), returns, success=success,
        failures=failures,
    )  # fmt: skip
    assert result.complete_tasks.tolist() == [True, False, True]
    assert result.mean.tolist() == [3.5, 5.75]
    assert result.fraction_worse.tolist() == [0.0, 0.0]
    assert result.success_rate.tolist() == [0.5, 1.0]
    assert result.interval[0].mean() == pytest.approx(3.5)
    assert result.note == (
        "4 episodes and 1 of 3 tasks left out (first: task 1 [0.0], episode 0, step 0: lost)"
    )
    again = Evaluation.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert np.array_equal(again.returns, returns, equal_nan=True)
    assert again.failures == failures
    assert again.mean.tolist() == result.mean.tolist()


@pytest.mark.parametrize("on_failure", ["drop_episode", "skip_update"])
def test_an_evaluation_of_nothing_is_an_error(on_failure):
    agent, family = faulty_agent(1.0, fault="first observation")
    with pytest.raises(EpisodeDiverged, match="no task is left that was played to the end"):
        evaluate(agent, family, tasks=2, episodes=2, steps=1, on_failure=on_failure)


def test_a_runs_setting_holds_for_its_evaluation(tmp_path, capsys):
    """A note below the table and the failures in the file, or an error of one line."""
    data = {"env": {"family": "tests.faulty:FaultyNav", "share": 0.1, "fault": "state"}}
    for on_failure in ("drop_episode", "stop"):
        overrides = {**SMALL, "env.horizon": 6, "iterations": 1, "on_failure": on_failure}
        if on_failure == "stop":
            overrides["env.share"] = 0.0
        run = train(make_config(data, "test", overrides), tmp_path / on_failure)
        if on_failure == "stop":
            config = run.directory / "config.yaml"
            config.write_text(config.read_text().replace("share: 0.0", "share: 0.1"))
        flags = ["--tasks", "5", "--episodes", "3", "--steps", "1", "--against", "random"]
        code = main(["evaluate", str(run.directory), *flags])
        shown = capsys.readouterr()
        file = run.directory / "evaluation" / "k_step-test-tasks_5-episodes_3-steps_1.json"
        if on_failure == "stop":
            assert code == 1
            assert re.match(r"metarl: error: evaluation stopped: task \d \[.*the posit", shown.err)
            assert not file.exists()
            continue
        assert code == 0
        assert re.search(r"^random: \d+ episodes left out \(first: task \d \[", shown.out, re.M)
        content = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(name))
        found = content["methods"]["random"]["parts"][""]
        assert None in np.array(found["returns"], object)
        assert found["failures"][0]["reason"] == "the position is not finite"
        assert content["on_failure"] == "drop_episode"
