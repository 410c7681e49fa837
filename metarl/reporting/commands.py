"""The commands that repeat a run and its evaluations, for the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.config_files import flag
from metarl.config_upgrade import ALIASES
from metarl.core.parsing import format_value, quoted, shell_path
from metarl.evaluation.protocols import UNUSED_SETTINGS
from metarl.evaluation.result_file import DEFAULTS
from metarl.evaluation.tasks import CUSTOM
from metarl.reporting.summary import RunSummary


def commands(summary: RunSummary) -> list[str]:
    """Return the commands that repeat a run, in a new folder beside it, and its evaluations.

    Paths are as they were given, so the commands are for the folder in which the report was made.
    """
    folder = summary.run.directory
    repeated = folder.with_name(f"{folder.name}-repeated") if folder.name else "../repeated"
    out = shell_path(repeated)
    config = shell_path(folder / "config.yaml")
    # Checkpoint 0 has the parameters that the run began from, whatever became of their origin.
    init = f" --init-from {shell_path(f'{folder}:0')}" if summary.run.origin else ""
    lines = [f"metarl train {config} --seed {summary.run.config.seed}{init} --out {out}"]
    for name, results in summary.evaluations.items():
        settings, first = summary.settings.get(name, {}), next(iter(results.values()))
        protocol = name.partition("-")[0]
        tasks, _, episodes = first.returns.shape
        # A method that cannot adapt has one x, whatever its baselines have.
        compared = [results, *summary.baselines.get(name, {}).values()]
        steps = max(len(each.x) for parts in compared for each in parts.values()) - 1
        flags: dict[str, Any] = {"protocol": protocol}
        if first.split != CUSTOM:
            flags["split"] = settings.get("split", first.split)
            flags["tasks"] = settings.get("tasks", tasks)
        flags["episodes"] = settings.get("episodes", episodes)
        # Early files do not hold the number of adaptations.
        known = {"steps": steps, **settings} if first.x_label == "adaptations" else settings
        for key in ("steps", "trials", "experience"):
            if key in known and key not in UNUSED_SETTINGS.get(protocol, set()):
                flags[key] = known[key]
        if flags.get("experience") == DEFAULTS["experience"]:
            del flags["experience"]
        strengths = known.get("perturbations", DEFAULTS["perturbations"])
        flags["seed"] = settings.get("seed", first.seed)
        flags["checkpoint"] = settings.get("checkpoint", "latest")
        words = [f"{flag(key)} {quoted(value)}" for key, value in flags.items()]
        if first.split == CUSTOM:
            words += [f"--task {','.join(map(str, row))}" for row in first.tasks.tolist()]
        if protocol == "robust" and strengths != DEFAULTS["perturbations"]:
            for key, values in strengths.items():
                numbers = ",".join(map(str, values))
                words += [f"--perturbations {quoted(f'{key}={numbers}')}"]
        words += ["--deterministic"] * first.deterministic
        words += override_flags(settings.get("overrides", {}))
        words += [f"--against {quoted(each)}" for each in listed(settings.get("against"))]
        lines.append(" ".join([f"metarl evaluate {out}", *words]))
    return lines


def override_flags(overrides: Any) -> list[str]:
    """Return the flags of the values that replaced values of the config; none for `threads`."""
    values = overrides if isinstance(overrides, Mapping) else {}
    paths = {ALIASES.get(str(key), str(key)): value for key, value in values.items()}
    return [
        f"{quoted(flag(path))} {quoted(format_value(value))}"
        for path, value in paths.items()
        if "." in path or path == "device"
    ]


def listed(value: Any) -> list[Any]:
    """Return a list, or [] for any other value."""
    return value if isinstance(value, list) else []
