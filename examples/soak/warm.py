"""Trains once when imported, so that processes forked from this one start at once."""

import contextlib
import os
import tempfile

from metarl.config_files import load_config
from metarl.training.loop import train

TINY = {"iterations": 1, "num_tasks": 2, "num_episodes": 2, "env.horizon": 4, "threads": 1}

with (
    tempfile.TemporaryDirectory() as folder,
    open(os.devnull, "w") as nowhere,
    contextlib.redirect_stdout(nowhere),
):
    for name in ("maml_trpo", "promp"):
        config = load_config(f"point_nav/{name}", **TINY, **{"tracking.mode": "disabled"})
        train(config, f"{folder}/{name}")
