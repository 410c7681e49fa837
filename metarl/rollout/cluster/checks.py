"""What a Ray cluster has to offer before any work begins: room, memory, and the same software."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metarl.core.errors import ConfigError, warn
from metarl.envs import TaskFamily
from metarl.rollout.sampler_config import SamplerConfig

PROBE_TIMEOUT = 300.0  # s, for a node to answer; a busy one needs a minute to start a process
PROBE_WARNING = 30.0  # s, until a warning names the nodes that have not answered
OBJECT_OVERHEAD = 2**20  # bytes
ROUNDING = 1e-9  # of a quotient such as 0.3 / 0.1


def room(nodes: Sequence[Mapping[str, Any]], config: SamplerConfig) -> dict[str, int]:
    """Return how many workers fit on each node that is alive, by the id of the node."""
    wanted = {"CPU": float(config.threads), **config.resources}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    return {
        node["NodeID"]: min(
            math.floor(node["Resources"].get(name, 0.0) / amount + ROUNDING)
            for name, amount in wanted.items()
        )
        for node in nodes
        if node["Alive"]
    }


def number_of_workers(
    nodes: Sequence[Mapping[str, Any]], config: SamplerConfig, num_tasks: int, cluster: str
) -> int:
    """Return the number of workers, for which the nodes have room.

    Args:
        nodes: the nodes as `ray.nodes` lists them.
        config: the config.
        num_tasks: number of tasks of a meta-batch.
        cluster: the cluster, for messages.

    Raises:
        ConfigError: if the nodes have no room for them.
    """
    total = sum(room(nodes, config).values())
    takes = f"{config.threads} CPU" + "".join(
        f", {amount:g} {name}" for name, amount in config.resources.items()
    )
    if not total:
        raise ConfigError(
            f"sampler.threads: no node of {cluster} has room for a worker, which takes {takes}; "
            "expected smaller sampler.threads or sampler.resources, or larger nodes"
        )
    if config.workers > total:
        raise ConfigError(
            f"sampler.workers: expected at most {total}, for which {cluster} has room if each "
            f"takes {takes}, got {config.workers}"
        )
    return config.workers or min(total, num_tasks)


def check_object_store(
    nodes: Sequence[Mapping[str, Any]], own_node: str, phase: int, part: int
) -> None:
    """Check that the episodes of a phase fit into the object stores.

    Args:
        nodes: the nodes as `ray.nodes` lists them.
        own_node: the id of this machine's node.
        phase: bytes of the episodes of all tasks.
        part: bytes of the episodes of one worker.

    Raises:
        ConfigError: if they do not.
    """
    for node in nodes:
        size = node["Resources"].get("object_store_memory", 0.0)
        needed = (phase if node["NodeID"] == own_node else part) + OBJECT_OVERHEAD
        if node["Alive"] and size < needed:
            raise ConfigError(
                f"sampler: the object store of node {node['NodeManagerAddress']} has "
                f"{size / 1e6:.4g} MB, and the episodes of a phase need {needed / 1e6:.4g} MB; "
                "choose fewer --num-tasks or --num-episodes, or a larger store "
                "(ray start --object-store-memory)"
            )


def bytes_of_episodes(family: TaskFamily, num_episodes: int) -> int:
    """Return the bytes of the arrays of episodes that last until the horizon."""
    obs, steps = 4 * family.observation_space.shape[0], num_episodes * family.horizon
    return steps * (obs + 4 * family.action_dim + 4 + 1) + num_episodes * (obs + 3)


def make_probe() -> Callable[[], dict[str, str]]:
    """Return a function that tells the versions of a machine.

    Ray sends it by value, since it is no function of a module: it also runs where another version
    of this package, or none, is installed.
    """

    def probe() -> dict[str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import os
        import platform

        found = {"Python": platform.python_version()}
        for name in ("metarl-torch", "numpy", "mujoco", "torch", "gymnasium"):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "none"
        spec = importlib.util.find_spec("metarl")
        digest = hashlib.sha256()
        for place in (spec and spec.submodule_search_locations) or []:
            for folder, folders, files in os.walk(place, followlinks=True):
                folders.sort()
                for file in sorted(files):
                    if file.endswith(".py"):
                        path = os.path.join(folder, file)
                        digest.update(os.path.relpath(path, place).encode())
                        with open(path, "rb") as stream:
                            digest.update(stream.read())
        found["the code of metarl"] = digest.hexdigest()[:8]
        try:
            import numpy  # noqa: F401 (so that its BLAS is loaded)
            import threadpoolctl

            blas = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
            found["matrix products"] = str(blas[0].get("architecture")) if blas else "unknown"
        except ImportError:
            found["matrix products"] = "unknown"
        return found

    return probe


def ask_nodes(
    nodes: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    probe: Callable[..., Any],
    what: str,
    *args,
) -> list[tuple[str, Any]]:
    """Return the address and the answer of each node to a function that runs there.

    Args:
        nodes: the nodes as `ray.nodes` lists them.
        ids: the ids of those that are asked.
        probe: the function.
        what: what an answer has done, for messages, such as "told its versions".
        args: arguments of the function.

    Raises:
        ConfigError: if a node does not answer in time; names it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    names = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    task = ray.remote(num_cpus=0, max_retries=0)(probe)
    answers = {}
    for node in ids:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        answers[task.options(scheduling_strategy=strategy).remote(*args)] = names[node]
    refs = list(answers)
    _, late = ray.wait(refs, num_returns=len(refs), timeout=PROBE_WARNING)
    if late:
        slow = ", ".join(answers[ref] for ref in late)
        warn(f"waiting up to {PROBE_TIMEOUT:g} s for node {slow}, which has not yet {what}")
    done, late = ray.wait(refs, num_returns=len(refs), timeout=PROBE_TIMEOUT - PROBE_WARNING)
    if late:
        raise ConfigError(
            f"sampler.address: node {answers[late[0]]} has not {what} within {PROBE_TIMEOUT:g} s; "
            "expected a node that works"
        )
    return [(answers[ref], ray.get(ref)) for ref in done]


def check_versions(nodes: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> None:
    """Check that nodes have the software of this machine; warn of other processors.

    Args:
        nodes: the nodes as `ray.nodes` lists them.
        ids: the ids of those that may get workers.

    Raises:
        ConfigError: if a version differs, or a node does not answer; names the node.
    """
    probe = make_probe()
    own, warned = probe(), False
    for name, found in ask_nodes(nodes, ids, probe, "told its versions"):
        for part, version in own.items():
            if found[part] == version:
                continue
            if part != "matrix products":
                raise ConfigError(
                    f"sampler.address: node {name} has {part} {found[part]}, expected {version} as "
                    "on this machine; install the same versions on all nodes"
                )
            if not warned:
                warn(
                    f"node {name} computes matrix products for {found[part]} processors, this "
                    f"machine for {version}: results may differ in the last bits from those of one "
                    "machine (the environment variable OPENBLAS_CORETYPE makes them alike)"
                )
            warned = True
