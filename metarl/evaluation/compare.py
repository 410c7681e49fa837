"""Evaluation of a run and its baselines on the same tasks, into one result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metarl.agents.base import MetaAgent
from metarl.config import Config
from metarl.core.errors import StorageError, UserError, as_path, nearest, shown
from metarl.core.parsing import printable
from metarl.core.schema_keys import by_path
from metarl.envs import BatchEnv, TaskFamily
from metarl.evaluation.config import EXPERIENCE, PERTURBATIONS, EvaluationConfig
from metarl.evaluation.evaluate import open_to_evaluate
from metarl.evaluation.overrides import check_overrides
from metarl.evaluation.protocols import PROTOCOLS, check_measurable, check_protocol
from metarl.evaluation.result_file import result_path, result_stem, write_result
from metarl.evaluation.tasks import Tasks, is_number_of_tasks, own_tasks
from metarl.rollout.failures import EpisodeDiverged
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.pretrained import run_folder
from metarl.runs.provenance import provenance
from metarl.runs.result import Evaluation, Results, results_by_label
from metarl.runs.run import Run

RANDOM = "random"
"""The baseline that adapts from the untrained initial parameters."""
UNTRAINED = "random (untrained)"
"""The label of the baseline `random` where a run has the method `random`."""


@dataclass(frozen=True)
class EvaluatedAgent:
    """An agent to evaluate.

    Attributes:
        run: its run.
        checkpoint: the run's checkpoint; None for the untrained agent.
        source: where its state comes from, as text.
    """

    run: Run
    checkpoint: Checkpoint | None
    source: str

    @property
    def iteration(self) -> int | None:
        """The iteration of the checkpoint; None for the untrained agent."""
        return None if self.checkpoint is None else self.checkpoint.iteration

    def make(self) -> MetaAgent:
        """Make the agent; an untrained one may play a meta-batch (`Config.make_agent`)."""
        if self.checkpoint is None:
            return self.run.config.make_agent()
        return self.run.make_agent(self.checkpoint)


class ResultNotWritten(StorageError):
    """A result file cannot be written.

    Attributes:
        results: the evaluations that it was to hold, as `evaluate_run` returns them.
    """

    def __init__(self, message: str, results: Mapping[str, Evaluation] | None = None) -> None:
        super().__init__(message)  # alone, by which the error is unpickled
        self.results = dict(results or {})


def evaluate_run(
    directory: Path,
    *,
    protocol: str = "k_step",
    checkpoint: str | int = "latest",
    split: str = "test",
    tasks: Tasks = 40,
    episodes: int = 20,
    steps: int = 3,
    seed: int = 0,
    against: str | Path | Sequence[str | Path] = (),
    deterministic: bool = False,
    trials: int = 5,
    experience: Sequence[int] = EXPERIENCE,
    perturbations: Mapping[str, Sequence[float]] = PERTURBATIONS,
    out: Path | None = None,
    on_agent: Callable[[str], Callable[[BatchEnv], None]] | None = None,
    **overrides: Any,
) -> tuple[dict[str, Evaluation], Path]:
    """Evaluate a run and its baselines on the same tasks, and write the result file.

    Args:
        directory: the run's folder, or `pretrained/NAME`.
        protocol: the name of a protocol, one of `metarl.evaluation.protocols.PROTOCOLS`.
        checkpoint: one of the run's checkpoints.
        split, tasks, episodes, steps, seed, deterministic, trials, experience, perturbations: as in
            `metarl.evaluation.config.EvaluationConfig`.
        against: a baseline or several, each once: `random`, which adapts from the untrained initial
            parameters; or the latest checkpoint of another run, given by its folder, or by its
            method if it has the same parent folder. A run whose method is called `random` is given
            by its folder.
        out: the result file, a new one that ends in .json, or a folder for it; by default the
            folder `evaluation` of the run, or of `runs/pretrained/NAME`. A report shows the results
            in this default folder.
        on_agent: called with the label of each agent before its evaluation; returns the `on_step`
            of `EvaluationConfig`.
        overrides: values that replace values of the run's config, such as device="cpu".

    Returns:
        The evaluations by method, or by `method, part` for a protocol with several parts; and the
        result file, by default `evaluation/PROTOCOL-SPLIT.json` in the run's folder for the default
        settings, with what differs from them appended. An earlier result is never overwritten; see
        `metarl.evaluation.result_file.write_result`.

    Raises:
        UserError: if the run, a baseline, the checkpoint, the protocol or the task set does not
            exist, a task is not one of the family's, a baseline is given twice, the file exists
            (where `out` names it), nothing can be written in its folder, or an override is of a
            key of training.
        ResultNotWritten: if the file cannot be written all the same, after the evaluation.
        EpisodeDiverged: if an episode fails and the run's `on_failure` is `stop`, or no task is
            left. Agents that were evaluated before are in the result file, as after any error.
    """
    check_protocol(protocol)
    given = [against] if isinstance(against, str | Path) else against
    baselines = [str(name) for name in given]
    run = open_to_evaluate(directory, **overrides)
    config = run.config
    check_overrides(overrides, config.agent, "an evaluation")
    evaluation_config = EvaluationConfig(
        split,
        tasks if is_number_of_tasks(tasks) else own_tasks(config.env, tasks),
        episodes,
        steps,
        seed,
        config.num_threads,
        config.on_failure,
        deterministic,
        trials,
        experience,
        perturbations,
    )
    check_measurable(protocol, config.env, evaluation_config)
    checkpoint = str(checkpoint)
    own = EvaluatedAgent(run, run.load(checkpoint), checkpoint)
    evaluated = {config.method: own} | find_baselines(baselines, run, overrides)
    agents = {label: each.make() for label, each in evaluated.items()}
    settings = evaluation_config.measured
    stem = result_stem(protocol, settings["split"], checkpoint, settings, overrides)
    folder = run.output / "evaluation" if out is None else as_path("out", out)
    file = result_path(folder, stem)
    about = {"protocol": protocol, "overrides": overrides, **settings, "against": baselines}
    results: dict[str, Results] = {}
    for label, each in evaluated.items():
        watched = replace(evaluation_config, on_step=on_agent and on_agent(label))
        try:
            results[label] = PROTOCOLS[protocol](agents[label], each.run.config.env, watched)
        except BaseException as error:  # whatever ends it, such as Ctrl-C
            if not results:
                raise
            write(file, about, evaluated, results)
            if isinstance(error, EpisodeDiverged):
                remark = f"{error.remark}, in the evaluation of {label}; the others are in {file}"
                raise EpisodeDiverged(error.failures, remark) from error
            raise
    return write(file, about, evaluated, results), file


def write(
    file: Path,
    about: Mapping[str, Any],
    evaluated: Mapping[str, EvaluatedAgent],
    results: Mapping[str, Results],
) -> dict[str, Evaluation]:
    """Write the result file of the agents that have results, and return these by label.

    Raises:
        ResultNotWritten: if it cannot be written.
    """
    methods = {
        label: {
            "checkpoint": evaluated[label].source,
            "iteration": evaluated[label].iteration,
            "parts": {part: result.to_dict() for part, result in parts.items()},
        }
        for label, parts in results.items()
    }
    labelled = results_by_label(results)
    try:
        write_result(file, {**about, "methods": methods, "provenance": provenance()})
    except StorageError as error:
        raise ResultNotWritten(str(error), labelled) from error
    return labelled


def find_baselines(
    names: Sequence[str], run: Run, overrides: Mapping[str, Any]
) -> dict[str, EvaluatedAgent]:
    """Return the baselines of a run by label.

    The label is the method; where it is taken, the name of the folder, or else its path. A baseline
    named `random` is the untrained agent, which no run takes the label from.

    Raises:
        UserError: if there is no such baseline, it is given twice, or its tasks differ from the
            tasks of the run.
    """
    found: dict[str, EvaluatedAgent] = {}
    given: set[Path | None] = set()
    for name in names:
        folder = None if name == RANDOM else find_folder(name, run)
        place = folder and folder.resolve()
        if place in given:
            raise UserError(f"--against: {name}: given twice; expected each baseline once")
        given.add(place)
        if folder is None:
            label = UNTRAINED if run.config.method == RANDOM else RANDOM
            found[label] = EvaluatedAgent(run, None, "untrained")
            continue
        baseline = load_baseline(name, folder, run, overrides)
        taken = {RANDOM, UNTRAINED, run.config.method, *found}
        candidates = (baseline.run.config.method, folder.resolve().name, str(folder), str(place))
        label = next(each for each in map(printable, candidates) if each not in taken)
        found[label] = baseline
    return found


def load_baseline(
    name: str, folder: Path, run: Run, overrides: Mapping[str, Any]
) -> EvaluatedAgent:
    """Return the latest agent of another run, given as `name`, as a baseline of a run.

    Raises:
        UserError: if the run cannot be read, or its tasks differ from the tasks of `run`.
    """
    other = open_to_evaluate(folder, **overrides)
    if not have_same_tasks(run.config.env, other.config.env):
        raise UserError(
            f"--against: {name}: its tasks are not those of {run.directory}: "
            f"{differences(other.config, run.config)}"
        )
    return EvaluatedAgent(other, other.load(), f"{folder} latest")


def find_folder(name: str, run: Run) -> Path:
    """Return the folder of a baseline that is given by its folder, or by its method."""
    folder = run_folder(name)
    return folder if folder.is_dir() else find_sibling_run(run, name)


def find_sibling_run(run: Run, method: str) -> Path:
    """Return the folder of another run, of a method such as `oracle`, beside a run.

    If there are several, this is the first run with the same seed, or the first run.

    Raises:
        UserError: if there is no run of this method.
    """
    others, unreadable = open_siblings(run)
    others = [
        other
        for other in others
        if other.config.env.name == run.config.env.name
        and other.directory.resolve() != run.directory.resolve()
    ]
    found = [other for other in others if other.config.method == method]
    if not found:
        known = {RANDOM, *(other.config.method for other in others)}
        left_out = f"; not readable: {', '.join(unreadable)}" if unreadable else ""
        raise UserError(
            f"--against: {method}: expected {RANDOM}, the folder of a run, or the method of a run "
            f"beside {run.directory}{nearest(method, known)}{left_out}"
        )
    same_seed = [other for other in found if other.config.seed == run.config.seed]
    return (same_seed or found)[0].directory


def open_siblings(run: Run) -> tuple[list[Run], list[str]]:
    """Return the runs in the parent folder of a run, itself too, and the names of the folders of
    those that cannot be read."""
    found, unreadable = [], []
    for path in sorted(run.directory.parent.glob("*/config.yaml")):
        try:
            found.append(Run.open(path.parent))
        except UserError:
            unreadable.append(printable(path.parent.name))
    return found, unreadable


def have_same_tasks(one: TaskFamily, other: TaskFamily) -> bool:
    """Return whether two families have the same test tasks, on which agents can be compared."""
    first, second = (family.task_hash(family.tasks("test", 1)) for family in (one, other))
    return first == second


def differences(one: Config, other: Config) -> str:
    """Return the settings of the task family in which a config differs from another one, as
    text."""
    ours, theirs = (by_path({"env": each.to_dict()["env"]}) for each in (one, other))
    found = [
        f"{key} is {shown(ours.get(key))}, not {shown(theirs.get(key))}"
        for key in ours | theirs
        if ours.get(key) != theirs.get(key)
    ]
    return ", ".join(found)
