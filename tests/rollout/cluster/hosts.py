"""A Ray cluster whose nodes are in network namespaces of this machine, and can be cut off."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.rollout.cluster.conftest import start_cluster

QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 2,
    "gcs_rpc_server_reconnect_timeout_s": 20,
}
"""Ray gives a node up after seconds, and the node itself a few later, in place of a minute."""


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


class Hosts:
    """Hosts on a bridge of this machine, which has the cluster's head.

    Attributes:
        address: the address of the cluster.
        names: the namespaces of the hosts.
    """

    def __init__(self, number: int, address: str, folder: str) -> None:
        self.address, self._folder = address, folder
        self.names = [f"metarl{os.getpid()}-{i}" for i in range(number)]

    def command(self, host: int, *words: str) -> list[str]:
        """A command that runs on a host, where Ray has a folder of its own."""
        folder = Path(self._folder, str(host))
        folder.mkdir(exist_ok=True)
        return ["ip", "netns", "exec", self.names[host], "env", f"RAY_TMPDIR={folder}", *words]

    def start(self, host: int, cpus: int = 1) -> None:
        """Make a host a node of the cluster."""
        options = [f"--address={self.address}", f"--node-ip-address={address_of(host)}"]
        options += [f"--num-cpus={cpus}"]
        program = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        subprocess.run(self.command(host, *program), check=True, capture_output=True)

    def cut(self, host: int) -> None:
        """Cut the cable of a host."""
        ip("link", "set", cable(host), "down")

    def with_process(self, title: str) -> dict[int, psutil.Process]:
        """The processes of a title, by host."""
        found = {}
        for host, name in enumerate(self.names):
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(int(pid))
                    if title in " ".join(process.cmdline()):
                        found[host] = process
        return found

    def wait_for(self, title: str, but: tuple[int, ...] = ()) -> int:
        """Wait for a process of a title on another host than some, and return the host."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if found := self.with_process(title).keys() - set(but):
                return min(found)
            time.sleep(0.05)
        raise AssertionError(f"no process {title}")


def address_of(host: int) -> str:
    return f"{network()}.{host + 2}"


def network() -> str:
    """A network for tests of this process, of those that are reserved for measurements."""
    return f"198.18.{os.getpid() % 256}"


def cable(host: int) -> str:
    return f"mv{os.getpid() % 100000}-{host}"


def lay_cables(bridge: str, names: list[str]) -> None:
    """Connect hosts with a bridge of this machine."""
    ip("link", "add", bridge, "type", "bridge")
    ip("addr", "add", f"{network()}.1/24", "dev", bridge)
    ip("link", "set", bridge, "up")
    for host, name in enumerate(names):
        ip("netns", "add", name)
        ip("link", "add", cable(host), "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", cable(host), "master", bridge, "up")
        ip("-n", name, "addr", "add", f"{address_of(host)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")


def remove(bridge: str, names: list[str]) -> None:
    for host, name in enumerate(names):
        for pid in ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("link", "del", cable(host))  # at once, unlike those of a namespace that is removed
        ip("netns", "del", name)
    ip("link", "del", bridge)


def skip_unless_permitted() -> None:
    """Skip the test where this process may not make namespaces and cables."""
    name = f"metarl{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
        ip("link", "add", cable(99), "type", "veth", "peer", "name", cable(98))
        ip("link", "del", cable(99))
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        reason = getattr(error, "stderr", "").strip() or error
        pytest.skip(f"network namespaces are not permitted here: {reason}")


@contextlib.contextmanager
def start_hosts(number: int) -> Iterator[Hosts]:
    """A head on this machine, and hosts that are not nodes yet. Skips where it is not permitted."""
    skip_unless_permitted()
    folder = tempfile.mkdtemp(prefix="hosts", dir="/tmp")  # paths of sockets must be short
    hosts = Hosts(number, "", folder)
    bridge = f"mb{os.getpid() % 100000}"
    try:
        lay_cables(bridge, hosts.names)
        head = {"node_ip_address": f"{network()}.1", "_system_config": QUICK}
        with start_cluster(**head) as cluster:
            hosts.address = cluster.address
            yield hosts
    finally:
        remove(bridge, hosts.names)
        shutil.rmtree(folder, ignore_errors=True)
