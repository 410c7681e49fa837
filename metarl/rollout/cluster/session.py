"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import signal
import socket
import threading

from metarl.core.errors import ConfigError
from metarl.core.parallel import available_cores
from metarl.envs import WorkerError
from metarl.envs.errors import first_line
from metarl.rollout.sampler_config import ADDRESS_FORMS, is_address

CONNECT_TIMEOUT = 5.0  # s, for a TCP connection to the head
CLOSE_TIMEOUT = 10.0  # s, for Ray to disconnect from a cluster that is lost
DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns of its future default
    "RAY_USAGE_STATS_ENABLED": "0",  # otherwise Ray reports each session to its makers
}
"""Environment variables that are set for Ray, unless they have a value."""

_was_lost = threading.Event()
_starts_ray = threading.Event()


def _leave_group() -> None:
    """In a process of Ray that has just been forked, before its program begins: make it a process
    group of its own. A signal to the group of this process, which is told to stop by it, would end
    Ray too, and with it the iteration under way."""
    if _starts_ray.is_set():
        os.setpgid(0, 0)


os.register_at_fork(after_in_child=_leave_group)  # Ray has no setting for it


class ClusterError(WorkerError):
    """The cluster, or too many of its workers, were lost; training can be resumed."""


class Session:
    """A connection to a Ray cluster, or a Ray of this process alone.

    Attributes:
        name: the cluster, for messages.
        is_own: whether the session has started Ray on this machine, which ends with it.
        node_id: the id of this machine's node.
        lost: whether `check` has found the cluster to be lost.
    """

    def __init__(self, address: str) -> None:
        """Connect to the cluster at an address, as in `SamplerConfig.address`.

        If this process is connected to Ray already, the session uses that, and leaves it as it is.

        Raises:
            ConfigError: if Ray is not installed, there is no cluster at the address, or it has
                other versions of Ray or Python.
        """
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "sampler.kind: ray needs the extra `cluster`: "
                'pip install "metarl-torch[cluster]"; or choose local'
            )
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        import ray

        self._connected = not ray.is_initialized()
        self._sigterm = signal.getsignal(signal.SIGTERM)  # which Ray replaces
        if address in ("", "auto"):
            address = os.environ.get("RAY_ADDRESS", "") or address
            if address and not is_address(address):
                raise ConfigError(f"RAY_ADDRESS: {ADDRESS_FORMS}, got {address!r}")
        self.is_own = self._connected and not address
        if self._connected:
            _connect(address)
        context = ray.get_runtime_context()
        head = context.gcs_address
        self.name = "Ray on this machine" if self.is_own else f"the Ray cluster at {head}"
        self._head = _host_and_port(head)
        self.node_id = context.get_node_id()
        own = next(node for node in ray.nodes() if node["NodeID"] == self.node_id)
        self._raylet = (own["NodeManagerAddress"], int(own["NodeManagerPort"]))
        self.lost = False

    def check(self) -> None:
        """Check that the head, and Ray's process on this machine, can be reached.

        Ray itself would wait for a minute, and then end this process.

        Raises:
            ClusterError: if they cannot.
        """
        parts = {"its head": self._head, "its process on this machine": self._raylet}
        for part, place in parts.items():
            try:
                socket.create_connection(place, CONNECT_TIMEOUT).close()
            except OSError as error:
                self.lost = True
                raise ClusterError(
                    f"sampler: {self.name} was lost: {part}, {place[0]}:{place[1]}, cannot be "
                    f"reached ({error.strerror or error})"
                ) from error

    def close(self) -> None:
        """Disconnect. Ray ends with it only if the session has started it.

        If the cluster is lost and Ray does not disconnect in time, it is left as it is, until this
        process ends.
        """
        import ray

        if self._connected:
            if self.lost:
                _shut_down_in_time()
            else:
                ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._sigterm)


def _connect(address: str) -> None:
    """Connect this process to the cluster at an address; "" starts one on this machine.

    Raises:
        ConfigError: as `Session`.
    """
    import ray

    options = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if not address:
        _starts_ray.set()
        try:
            ray.init("local", num_cpus=available_cores(), include_dashboard=False, **options)
        finally:
            _starts_ray.clear()
        return
    given, where = address, f"sampler.address: no Ray cluster at {address}"
    start = "start one with: ray start --head --port 6379"
    try:
        if address == "auto":
            # Otherwise Ray would try for minutes to reach a cluster that has ended.
            from ray._private.services import canonicalize_bootstrap_address

            address = canonicalize_bootstrap_address("auto") or ""
        socket.create_connection(_host_and_port(address), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(f"{where} ({error.strerror or first_line(error)}); {start}") from error
    try:
        ray.init(given, **options)  # only auto takes the token of this user's clusters
    except (ConnectionError, RuntimeError, ValueError) as error:
        # Ray's own text on other versions has a line for each of them.
        text = " ".join(str(error).split())
        if os.environ.get("RAY_AUTH_MODE") is None:
            text += " (if the cluster asks for a token, set RAY_AUTH_MODE=token)"
        raise ConfigError(f"sampler.address: cannot join {address}: {text}") from error


def _shut_down_in_time() -> None:
    """Disconnect from a lost cluster. Ray waits for an answer of its head, without end."""
    import ray

    _was_lost.set()
    closing = threading.Thread(target=ray.shutdown, daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT)
    if closing.is_alive():
        atexit.unregister(ray.shutdown)


def was_lost() -> bool:
    """Return whether a cluster was lost. Python may crash at the usual end of such a process, in
    threads of Ray that still look for the head."""
    return _was_lost.is_set()


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
