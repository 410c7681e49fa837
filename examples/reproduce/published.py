"""The published results of the MAML paper's figures of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass

BUDGETS = {
    "point_nav": 8e6,
    "half_cheetah_dir": 32e6,
    "half_cheetah_vel": 76e6,
    "ant_vel": 120e6,
    "ant_dir": 369e6,
}
"""Env steps in training behind the published figures, at most, by family: of the checkpoints that
the test scripts in github.com/cbfinn/maml_rl name. That of 2D navigation has a meta-batch of 20
tasks, as in the paper, where the training script there has 40."""


@dataclass(frozen=True)
class Published:
    """Returns of one family, from the result files in github.com/cbfinn/maml_rl.

    Attributes:
        maml: after 0, 1, 2, 3 adaptations, mean over 40 tasks.
        oracle: of the policy that is told the task.
        pretrained, random: after 0 and 3 steps; None where there are none.
        episodes: played for each adaptation.
    """

    maml: tuple[float, float, float, float]
    oracle: float
    pretrained: tuple[float, float] | None
    random: tuple[float, float]
    episodes: int


PUBLISHED = {
    "point_nav": Published(
        maml=(-40.4, -11.7, -3.33, -3.23),
        oracle=-2.29,
        pretrained=None,
        random=(-82.7, -46.8),
        episodes=40,
    ),
    "half_cheetah_dir": Published(
        maml=(-50.7, 293.2, 313.5, 315.7),
        oracle=442.7,
        pretrained=(-43.0, 19.6),
        random=(-35.7, 86.2),
        episodes=20,
    ),
    "half_cheetah_vel": Published(
        maml=(-129.5, -78.6, -66.6, -60.8),
        oracle=-54.5,
        pretrained=(-158.0, -133.6),
        random=(-254.8, -230.8),
        episodes=20,
    ),
    "ant_vel": Published(
        maml=(30.6, 96.7, 100.1, 101.4),
        oracle=107.9,
        pretrained=(-1.8, 9.5),
        random=(-78.6, -35.6),
        episodes=20,
    ),
    "ant_dir": Published(
        maml=(8.7, 499.1, 500.7, 499.1),
        oracle=524.8,
        pretrained=(3.2, 6.9),
        random=(3.1, 26.1),
        episodes=40,
    ),
}
