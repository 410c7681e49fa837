"""Compare search directions of TRPO by the gradients of other meta-batches.

    python -m examples.search_directions RUN --checkpoint 20 --shares 0.5 0.125

A direction is computed from one meta-batch, and its *efficiency* is the improvement that the mean
gradient of the other meta-batches predicts per root of the KL divergence along it, on their data:
what an update is worth on tasks and episodes that it did not see. It is given relative to ten
products of plain conjugate gradients with the first of the `jacobian_fraction`s, with the standard
error of the difference over meta-batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from examples.command import run_script
from metarl.agents.base import Metrics
from metarl.agents.maml.agent import MAMLAgent
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.trpo import TRPO, TRPOConfig, trust_region_step
from metarl.config import Config
from metarl.core.parallel import available_cores, keep_freed_memory, single_threaded_math
from metarl.core.timer import Timer
from metarl.runs.run import Run
from metarl.training.meta_iteration import meta_iteration

SETTINGS = [
    *({"preconditioner": "none", "cg_steps": steps} for steps in (10, 5, 20)),
    *(
        {"preconditioner": "kfac", "preconditioner_damping": damping, "cg_steps": steps}
        for damping in (0.1, 1.0)
        for steps in (2, 4, 6)
    ),
]
"""Settings of `agent.outer` that are compared, the first of them the reference."""
TEST_BATCHES = 3
"""Number of meta-batches whose Fisher matrices measure the KL divergence."""


class Recorder:
    """An outer update that keeps the objectives and changes nothing."""

    def __init__(self) -> None:
        self.objectives: list[MetaObjective] = []

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        self.objectives.append(objective)
        return objective.vector, {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load nothing."""


def main() -> None:
    """Print the table of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", default="latest", help="latest, best or an iteration")
    parser.add_argument("--batches", type=int, default=8, help="number of meta-batches")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.5, 0.125], help="values of jacobian_fraction"
    )
    args = parser.parse_args()
    if args.batches < 2:
        parser.error("--batches: expected at least 2, one to compare with another")
    run = Run.open(args.run, threads=available_cores())
    agent = run.make_agent(run.load(args.checkpoint))
    if not (isinstance(agent, MAMLAgent) and isinstance(agent.outer, TRPO)):
        parser.error(f"{args.run}: expected a run with agent.outer.update: trpo")
    settings = agent.outer.config
    keep_freed_memory()
    with single_threaded_math():
        objectives = record(run.config, agent, args.batches)
        print(*table(compare(objectives, settings, args.shares)), sep="\n")


def record(config: Config, agent: MAMLAgent, batches: int) -> list[MetaObjective]:
    """Return the objectives of new meta-batches at the parameters of an agent."""
    recorder = Recorder()
    agent.outer = recorder  # pyright: ignore[reportAttributeAccessIssue]
    env = config.training_env.make_batch(
        config.sampling.num_tasks * config.sampling.num_episodes, config.num_threads
    )
    for batch in range(batches):
        # Iterations that no training reaches
        meta_iteration(config, agent, env, 1_000_000 + batch, Timer(agent.device), [])
    return recorder.objectives


def compare(
    objectives: list[MetaObjective], base: TRPOConfig, shares: list[float]
) -> dict[str, np.ndarray]:
    """Return the efficiency of the direction of each meta-batch, by name of the settings."""
    gradients = [objective.gradient().gradient for objective in objectives]
    test = [objective.fisher_vector_product(1 / 4, 1.0) for objective in objectives[:TEST_BATCHES]]

    def efficiency(direction: Tensor, own: int) -> float:
        others = [gradients[i] for i in range(len(objectives)) if i != own]
        products = [test[i] for i in range(len(test)) if i != own]
        slope = float(torch.stack(others).mean(0) @ direction)
        return -slope / fmean(float(direction @ each(direction)) for each in products) ** 0.5

    found: dict[str, list[float]] = {}
    for own, objective in enumerate(objectives):
        for share in shares:
            product = objective.fisher_vector_product(base.fisher_fraction, share)
            for settings in SETTINGS:
                config = base.replace(**{**settings, "jacobian_fraction": share})
                precondition = None
                if config.preconditioner == "kfac":
                    precondition = objective.kfac_preconditioner(config.preconditioner_damping)
                step = trust_region_step(gradients[own], product, config, precondition)
                found.setdefault(name(config), []).append(efficiency(step, own))
    return {each: np.array(values) for each, values in found.items()}


def name(config: TRPOConfig) -> str:
    """Return the settings of a direction as the first cells of a row."""
    damping = config.preconditioner_damping if config.preconditioner == "kfac" else ""
    return f"{config.preconditioner} | {damping} | {config.cg_steps} | {config.jacobian_fraction:g}"


def table(found: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield the lines of the table: efficiency relative to the first settings."""
    yield "| preconditioner | damping | products | share before adaptation | efficiency |"
    yield "|---|---|---|---|---|"
    reference = next(iter(found.values()))
    for row, values in found.items():
        ratio = values.mean() / reference.mean()
        deviation = (values - ratio * reference).std(ddof=1) / len(values) ** 0.5
        error = deviation / abs(reference.mean())
        yield f"| {row} | {ratio:.2f} ± {error:.2f} |"


if __name__ == "__main__":
    run_script(main)
