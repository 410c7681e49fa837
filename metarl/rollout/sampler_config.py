"""The section `sampler` of a config: where the episodes of training are played."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from metarl.core.errors import MAX_THREADS, ConfigError
from metarl.core.schema import NotNegative, Positive, Section

OTHER_KEYS = {
    "CPU": "sampler.threads for the CPUs of a worker",
    "memory": "another resource, as Ray keeps account of memory by itself",
    "object_store_memory": "another resource, as Ray keeps account of memory by itself",
}
"""Resources of Ray that are not given as further ones, with what to give instead."""

ADDRESS_FORMS = "expected auto or HOST:PORT, such as 10.0.0.1:6379"


def is_address(text: str) -> bool:
    """Return whether a text is the address of a cluster: `auto` or HOST:PORT."""
    host, _, port = text.rpartition(":")
    is_port = port.isdecimal() and 0 < int(port) < 65536
    return text == "auto" or (bool(host) and is_port and "/" not in host)


class SamplerConfig(Section):
    """Where the episodes of training are played. No influence on results."""

    kind: Literal["local", "ray"] = "local"
    """`local` plays on this machine; `ray` on the workers of a Ray cluster, each with some of the
    tasks of the meta-batch (needs the extra `cluster`). The learner stays here. The other keys of
    this section are for `ray`."""
    address: str = ""
    """The cluster: HOST:PORT of its head, `auto` for the one that this machine belongs to, or
    nothing for the environment variable RAY_ADDRESS and, without it, workers on this machine
    only."""
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """Number of workers, 0 for as many as there is room for; at most one per task."""
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] = 1
    """Number of CPUs that a worker takes, and of its threads of physics."""
    resources: dict[str, NotNegative] = Field(default_factory=dict)
    """Further resources of Ray that a worker takes, such as {"fast_cpu": 1}: whole numbers, or
    parts of 1 in steps of 0.0001."""
    placement: Literal["pack", "spread"] = "pack"
    """Whether workers share nodes while there is room (`pack`), or are spread over the nodes."""
    timeout: Positive = 600.0
    """Seconds that a worker may take to play one phase of the meta-batch; a new one has two minutes
    before that, to find room and to start."""
    max_restarts: Annotated[int, Field(ge=0)] = 10
    """Number of lost or hanging workers that are replaced, until training stops."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if address and not is_address(address):
            raise ValueError(f"{ADDRESS_FORMS}, got {address!r}")
        return address

    @field_validator("resources")
    @classmethod
    def _check_resources(cls, resources: dict[str, float]) -> dict[str, float]:
        for name, amount in resources.items():
            if name in OTHER_KEYS:
                raise ValueError(f"{name}: expected {OTHER_KEYS[name]}")
            parts = 10_000 * amount if amount < 1 else amount
            if abs(parts - round(parts)) > 1e-6:
                raise ValueError(
                    f"{name}: expected a whole number, or a part of 1 in steps of 0.0001, got "
                    f"{amount:g}"
                )
        return resources

    @property
    def ray_options(self) -> dict[str, Any]:
        """What an actor or a task of Ray takes, and where it may run."""
        strategy = "SPREAD" if self.placement == "spread" else "DEFAULT"
        further = {name: each for name, each in self.resources.items() if name != "GPU"}
        return {
            "num_cpus": self.threads,
            "num_gpus": self.resources.get("GPU", 0),
            "resources": further,
            "scheduling_strategy": strategy,
        }

    def check_used(self, given: Iterable[str], file: str = "") -> None:
        """Check that keys which are given have an influence on where episodes are played.

        Args:
            given: their paths in the config; those of other sections are left out.
            file: the config's file that has them; "" for flags.

        Raises:
            ConfigError: if the kind is `local`, and one is for `ray` and has another value than its
                default.
        """
        for path in given if self.kind == "local" else ():
            section, _, name = path.partition(".")
            name = name.partition(".")[0]  # resources, of resources.GPU
            if section == "sampler" and getattr(self, name) != getattr(SamplerConfig(), name):
                key = f"{file}: {path}" if file else f"--sampler.{name.replace('_', '-')}"
                kind = "sampler.kind" if file else "--sampler.kind"
                raise ConfigError(
                    f"{key}: has no influence with {kind} local; expected {kind} ray with it"
                )

    def check(self, num_tasks: int) -> None:
        """Check that there is a task for each worker.

        Raises:
            ConfigError: if there is not.
        """
        if self.workers > num_tasks:
            raise ConfigError(
                f"sampler.workers: expected at most {num_tasks}, the tasks of a meta-batch "
                f"(sampling.num_tasks), got {self.workers}"
            )
