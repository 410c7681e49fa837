"""A tracker that records by Weights & Biases (W&B)."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from metarl.runs.atomic_io import check_writable, make_folder
from metarl.runs.identity import group_name
from metarl.runs.logs import VALIDATION
from metarl.runs.origin import KEY
from metarl.runs.run import Run
from metarl.training.offline_files import (
    hold,
    mark_synced,
    note_iterations,
    sent_iterations,
    superseded_files,
)
from metarl.training.tracker import in_section
from metarl.training.tracking_environment import from_environment
from metarl.training.wandb_service import FINISH_TIMEOUT, OPEN, START_TIMEOUT, timeout_for

MAX_NAME, MAX_JOB = 128, 64
"""Characters that W&B accepts in the name of a run, a group or an artifact; of a kind of job."""


class WandbTracker:
    """A W&B run whose files are in the run's folder."""

    def __init__(self, run: Run, mode: str, job: str) -> None:
        config = run.config
        check_wandb_folder(run.directory)
        identity = wandb_id(run, job)
        chosen_id = from_environment("RUN_ID", identity)
        sent = sent_iterations(run, chosen_id) if job == "train" else 0
        anew = mode == "offline" and job == "train" and not sent
        self._run = wandb.init(
            dir=str(run.directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            # An argument would replace W&B's own environment variables.
            project=from_environment("PROJECT", config.tracking.project),
            entity=from_environment("ENTITY", config.tracking.entity or "") or None,
            name=from_environment("NAME", wandb_name(run, job, identity)),
            group=from_environment("RUN_GROUP", wandb_group(run))[:MAX_NAME],
            job_type=from_environment("JOB_TYPE", job)[:MAX_JOB],
            id=chosen_id,
            reinit="create_new",  # a run that the caller has open is neither used nor ended
            # If nothing was sent, the file has all iterations so far. Otherwise it is appended.
            resume=None if anew else "allow",
            config={**config.to_dict(), **({KEY: str(run.origin)} if run.origin else {})},
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=timeout_for("INIT", START_TIMEOUT),
                finish_timeout=timeout_for("FINISH", FINISH_TIMEOUT),
                finish_timeout_raises=True,
            ),
        )
        OPEN.append(self._run)
        self._run.define_metric("env_steps")
        for section in ("train", "time", VALIDATION.rstrip("/")):
            self._run.define_metric(f"{section}/*", step_metric="env_steps")
        self._trains = job == "train"
        self._artifacts = config.tracking.artifacts
        self._identity, self._folder = identity, run.directory
        if mode == "online":
            sent = self._run.summary.get("iteration") or self._run.starting_step
        self._recorded = sent if job == "train" else 0
        self._files = Path(self._run.dir).parent
        self._lock = hold(self._files)
        self._superseded = functools.partial(superseded_files, run, self._files, chosen_id, job)
        # The artifacts of these files, which are not sent.
        if job == "train" and config.tracking.artifacts == "all" and self._superseded():
            for path in sorted(run.checkpoints.glob("iteration-*.pt")):
                self.artifact("checkpoint", path)

    @property
    def status(self) -> str:
        """How the run is tracked, and where it is or how to send it, on one line."""
        if self._run.offline:
            sync = f"wandb sync {shlex.quote(str(self._folder / 'wandb'))}"
            return f"W&B: {self._run.name!r} is tracked offline; send it with: {sync}"
        return f"W&B: {self._run.name!r} is tracked online: {self._run.url}"

    def log(self, metrics: Mapping[str, Any]) -> None:
        iteration = metrics.get("iteration")
        if iteration is None or iteration > self._recorded:
            self._recorded = iteration or self._recorded
            self._run.log({in_section(name): value for name, value in metrics.items()})

    def scalars(self, values: Mapping[str, float]) -> None:
        self._run.log(dict(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._run.log({name: wandb.Table(columns=[*columns], data=rows)})

    def image(self, name: str, path: Path) -> None:
        self._run.log({name: wandb.Image(str(path))})

    def video(self, name: str, path: Path) -> None:
        kind = "gif" if path.suffix == ".gif" else "mp4"
        self._run.log({name: wandb.Video(str(path), format=kind)})

    def artifact(self, name: str, path: Path) -> None:
        if self._artifacts == "none":
            return
        artifact = wandb.Artifact(artifact_name(self._folder.name, self._identity, name), type=name)
        artifact.add_file(str(path), name="latest.pt" if name == "checkpoint" else None)
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        self._run.finish()
        if self._run in OPEN:
            OPEN.remove(self._run)
        if self._trains:
            note_iterations(self._files, self._recorded)
        for file in self._superseded():  # as they are now: others may have been written since
            mark_synced(file)
        self._lock.release()


def check_wandb_folder(directory: Path) -> None:
    """Check that W&B can write into a run's folder; otherwise it would write elsewhere.

    Raises:
        StorageError: if it cannot.
    """
    make_folder(directory / "wandb")
    check_writable(directory / "wandb")


def wandb_id(run: Run, job: str) -> str:
    """Return a W&B id that is equal at all resumptions of a run, and different for other runs.

    It does not depend on where the run's folder is. It is made of `provenance.json`, which has an
    id of its own; for a run from before these ids, also of its config without the values that a
    resumption may change.
    """
    started = (run.directory / "provenance.json").read_bytes()
    key = f"{job} ".encode() + started
    if not started.startswith(b'{\n  "id": "'):
        config = run.config.to_dict()
        for name in ("iterations", "device", "threads", "sampler", "tracking", "evaluation"):
            del config[name]
        del config["agent"]["normalize_observations"]  # newer than these runs
        key += json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(key).hexdigest()[:12]


def wandb_group(run: Run) -> str:
    """Return the group of the runs that a report takes for seeds of one method: FAMILY/METHOD and a
    digest of their settings, which stays whole where the name is too long for W&B."""
    label, _, digest = group_name(run.config, run.origin).rpartition("-")
    return f"{label[: MAX_NAME - 1 - len(digest)]}-{digest}"


def wandb_name(run: Run, job: str, identity: str) -> str:
    """Return a name that tells the W&B runs of a folder, and folders of equal names, apart."""
    end = f" {job} {identity[:4]}"
    return run.directory.resolve().name[: MAX_NAME - len(end)] + end


def artifact_name(folder: str, identity: str, kind: str) -> str:
    """Return the name of an artifact, of the characters and the length that W&B allows."""
    end = f"-{identity}-{kind}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", folder[: MAX_NAME - len(end)] + end)
