"""`metarl package`: the weights of a run with a model card, to be given away or uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError, check
from metarl.core.parsing import format_value, printable
from metarl.core.schema_keys import by_path
from metarl.reporting.hub import UNKNOWN_LICENSE, front_matter, plain_name
from metarl.reporting.pages import environment
from metarl.reporting.report import card_variables
from metarl.reporting.report_sections import make_section
from metarl.reporting.summary import evaluation_names, read_summary
from metarl.runs.atomic_io import make_output_folder, write_atomically
from metarl.runs.origin import KEY
from metarl.runs.package import WEIGHTS, own_code, packaged_config, write_weights
from metarl.runs.pretrained import PREFIX, is_pretrained
from metarl.runs.run import Run, encode

CARD = "README.md"


def package(
    directory: Path,
    out: Path,
    *,
    checkpoint: str = "latest",
    license_id: str = UNKNOWN_LICENSE,
    name: str | None = None,
) -> list[Path]:
    """Write a package of a run: weights, config, provenance and a model card.

    Args:
        directory: the run's folder. The card has its evaluations of the checkpoint.
        out: a new or an empty folder.
        checkpoint: the checkpoint whose weights are taken.
        license_id: the license of the weights, as the Hugging Face hub writes it.
        name: name of the model on the card; by default that of `out`.

    Returns:
        The files.

    Raises:
        UserError: if the run or the checkpoint cannot be read, or `out` is in use
            or cannot be written.
        StorageError: if a file cannot be written.
    """
    printed = license_id.isprintable() and license_id.strip() != ""
    check(printed, "--license", "printable text", license_id)
    summary = read_summary(directory)
    state = summary.run.load(checkpoint)
    measured = {
        name: results
        for name, results in summary.evaluations.items()
        if is_of_checkpoint(summary.settings[name], checkpoint, state.iteration)
    }
    summary = replace(summary, evaluations=measured)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out: {out} exists already; expected a new folder")
    config = packaged_config(summary.run.config)
    make_output_folder(out)
    name = printable(name or out.resolve().name)
    own = Run(out, config)
    sections = [make_section([summary], each) for each in evaluation_names([summary])]
    variables: dict[str, Any] = {
        **card_variables([summary], sections),
        "front_matter": front_matter(summary, name, license_id),
        "name": name,
        "folder": f"{PREFIX}{out.name}" if is_pretrained(out) else plain_name(name, ""),
        "packaged": True,
        "downloaded": not is_pretrained(out),
        "iteration": state.iteration,
        "code": own_code(config),
        "config": {key: format_value(value) for key, value in by_path(config.to_dict()).items()},
    }
    card = environment().get_template("model_card.md").render(variables)
    facts = {key: summary.provenance[key] for key in ("processor", "versions")}
    if (origin := summary.run.origin) is not None:
        facts[KEY] = replace(origin, source=Path(origin.source).name).to_dict()
    write_weights(out / WEIGHTS, config, state)
    write_atomically(out / "provenance.json", encode(facts))
    write_atomically(out / CARD, card.encode())
    own.write_config()  # last, since a folder with a config is that of a run
    return [out / each for each in (WEIGHTS, "config.yaml", CARD, "provenance.json")]


def is_of_checkpoint(settings: Mapping[str, Any], name: str, iteration: int) -> bool:
    """Return whether an evaluation with these settings is of a checkpoint.

    Args:
        settings: the settings of the evaluation, as `read_settings` returns them.
        name: the name of the checkpoint.
        iteration: its iteration. An average has that of its last checkpoint.
    """
    measured, number = settings.get("checkpoint"), settings.get("iteration")
    if number is None or "average" in (measured, name):  # earlier files have no iteration
        return measured == name
    return number == iteration
