"""Evaluation of a run and its baselines on the same tasks, into one result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.core.errors import UserError, nearest
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.protocols import PROTOCOLS, check_protocol
from metarl.evaluation.result import Evaluation, part_label
from metarl.runs.atomic_io import write_atomically
from metarl.runs.provenance import provenance
from metarl.runs.run import Run, encode

RANDOM = "random"
"""The baseline that adapts from the untrained initial parameters."""


@dataclass(frozen=True)
class EvaluatedAgent:
    """An agent to evaluate.

    Attributes:
        config: the config of its run.
        state: its learned state; None for the untrained agent.
        source: where the state comes from, as text.
    """

    config: Config
    state: Mapping[str, Any] | None
    source: str


def evaluate_run(
    directory: Path,
    *,
    protocol: str = "k_step",
    checkpoint: str = "latest",
    split: str = "test",
    tasks: int = 40,
    episodes: int = 20,
    steps: int = 3,
    seed: int = 0,
    against: Sequence[str] = (),
    **overrides: Any,
) -> tuple[dict[str, Evaluation], Path]:
    """Evaluate a run and its baselines on the same tasks, and write the result file.

    Args:
        directory: the run's folder.
        protocol: the name of a protocol, one of `metarl.evaluation.protocols.PROTOCOLS`.
        checkpoint: one of the run's checkpoints.
        split, tasks, episodes, steps, seed: as in `metarl.evaluation.config.EvaluationConfig`.
        against: baselines: `random`, which adapts from the untrained initial parameters; or the
            latest checkpoint of another run, given by its folder, or by its method if it has the
            same parent folder.
        overrides: values that replace values of the run's config, such as device="cpu".

    Returns:
        The evaluations by method, or by `method, part` for a protocol with several parts; and the
        result file, `evaluation/PROTOCOL-SPLIT.json` in the run's folder.

    Raises:
        UserError: if the run, a baseline, the checkpoint, the protocol or the task set does not
            exist, or the file cannot be written.
        EpisodeDiverged: if an episode fails and the run's `on_failure` is `stop`, or no task is
            left.
    """
    check_protocol(protocol)
    run = Run.open(directory, **overrides)
    config = run.config
    evaluation_config = EvaluationConfig(
        split, tasks, episodes, steps, seed, config.num_threads, config.on_failure
    )
    evaluated = {config.method: EvaluatedAgent(config, run.load(checkpoint).agent, checkpoint)}
    for name in against:
        label, baseline = find_baseline(name, run, overrides)
        if label in evaluated:  # several runs of one method
            label = Path(name).name
        evaluated[label] = baseline
    agents = {label: each.config.make_agent(each.state) for label, each in evaluated.items()}
    folder = run.directory / "evaluation"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error
    results_by_label = {
        label: PROTOCOLS[protocol](agents[label], each.config.env, evaluation_config)
        for label, each in evaluated.items()
    }
    settings = asdict(evaluation_config)
    del settings["threads"]
    content = {
        "protocol": protocol,
        "overrides": overrides,
        **settings,
        "methods": {
            label: {
                "checkpoint": evaluated[label].source,
                "parts": {part: result.to_dict() for part, result in results.items()},
            }
            for label, results in results_by_label.items()
        },
        "provenance": provenance(),
    }
    file = folder / f"{protocol}-{split}.json"
    write_atomically(file, encode(content))
    labelled = {
        part_label(label, part): result
        for label, results in results_by_label.items()
        for part, result in results.items()
    }
    return labelled, file


def find_baseline(name: str, run: Run, overrides: Mapping[str, Any]) -> tuple[str, EvaluatedAgent]:
    """Return the label of a baseline of a run, and its agent.

    Raises:
        UserError: if there is no such baseline, or its tasks differ from the tasks of the run.
    """
    if name == RANDOM:
        return RANDOM, EvaluatedAgent(run.config, None, "untrained")
    folder = Path(name) if Path(name).is_dir() else find_sibling_run(run, name)
    other = Run.open(folder, **overrides)
    hashes = [each.env.task_hash(each.env.tasks("test", 1)) for each in (run.config, other.config)]
    if hashes[0] != hashes[1]:
        raise UserError(
            f"--against: {name}: its tasks ({family_text(other.config)}) are not those of "
            f"{run.directory} ({family_text(run.config)})"
        )
    agent = EvaluatedAgent(other.config, other.load().agent, f"{folder} latest")
    return other.config.method, agent


def find_sibling_run(run: Run, method: str) -> Path:
    """Return the folder of a run of a method, such as `oracle`, in the parent folder of a run.

    If there are several, this is the first run with the same seed, or the first run.

    Raises:
        UserError: if there is no run of this method.
    """
    others = [Run.open(path.parent) for path in sorted(run.directory.parent.glob("*/config.yaml"))]
    others = [other for other in others if other.config.env.name == run.config.env.name]
    found = [other for other in others if other.config.method == method]
    if not found:
        known = {RANDOM, *(other.config.method for other in others)}
        raise UserError(
            f"--against: {method}: expected {RANDOM}, the folder of a run, or the method of a run "
            f"beside {run.directory}{nearest(method, known)}"
        )
    same_seed = [other for other in found if other.config.seed == run.config.seed]
    return (same_seed or found)[0].directory


def family_text(config: Config) -> str:
    """Return the task family of a config, with its settings, as text."""
    settings = (f"{key} {value}" for key, value in config.to_dict()["env"].items())
    return ", ".join(settings)
