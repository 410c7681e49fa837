"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of its future
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@contextlib.contextmanager
def start_cluster(*nodes: int, **head) -> Iterator:
    """A cluster with a head without CPUs, and nodes with these numbers of CPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **head}
    )
    folder = cluster.head_node.get_session_dir_path()
    try:
        for cpus in nodes:
            cluster.add_node(num_cpus=cpus, wait=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster():
    """A head and four nodes with a CPU each, to which this process is not connected."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with start_cluster(1, 1, 1, 1) as cluster:
        yield cluster
