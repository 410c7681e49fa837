"""The evaluations of a run, as `metarl evaluate` wrote them."""

from __future__ import annotations

from pathlib import Path

from metarl.evaluation.result import Evaluation, part_label
from metarl.reporting.summary import read_results, result_files
from metarl.runs.run import Run


def evaluations(run: str | Path | Run) -> dict[str, dict[str, Evaluation]]:
    """Return the evaluations in the folder of a run.

    Args:
        run: the run, its folder, or `pretrained/NAME`.

    Returns:
        The evaluations of the run's method first, then of its baselines, by method, or by `method,
        part` for a protocol with several parts; by the name of the result file, such as
        `k_step-test`.

    Raises:
        UserError: if there is no such run, or a result file cannot be read.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    return {
        name: {
            part_label(method, part): result
            for method, parts in read_results(path).items()
            for part, result in parts.items()
        }
        for name, path in result_files(run.output / "evaluation").items()
    }
