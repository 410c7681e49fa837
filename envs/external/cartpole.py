"""Gymnasium's CartPole for workers, with parameters that may be set one by one.

Imports only Gymnasium: workers may load this file under another interpreter.
"""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class CartPole(CartPoleEnv):
    """CartPole-v1 whose derived parameters follow the others, and whose actions may be swapped.

    Attributes:
        length: half of the pole's length, m.
        gravity: m/s^2.
        masspole, masscart: kg.
        wiring: if negative, the two actions are swapped.
    """

    wiring = 1.0

    @property
    def total_mass(self):
        """Mass of cart and pole, kg."""
        return self.masspole + self.masscart

    @total_mass.setter
    def total_mass(self, value):
        """Ignored: the value follows from the other parameters."""

    @property
    def polemass_length(self):
        """Mass of the pole times `length`."""
        return self.masspole * self.length

    @polemass_length.setter
    def polemass_length(self, value):
        """Ignored: the value follows from the other parameters."""

    def step(self, action):
        return super().step(action if self.wiring >= 0 else 1 - action)
