"""CartPole for workers: Gymnasium's, with parameters that may be set one by one.

Needs Gymnasium alone: workers load this file under whichever Python they run.
"""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class CartPole(CartPoleEnv):
    """CartPole-v1 whose derived numbers follow from the others, and whose wiring may be swapped.

    Attributes:
        length: half of the pole's length, m.
        gravity: m/s^2.
        masspole, masscart: kg.
        wiring: below 0 the two actions push the other way round.
    """

    wiring = 1.0

    @property
    def total_mass(self):
        """Of cart and pole, kg."""
        return self.masspole + self.masscart

    @total_mass.setter
    def total_mass(self, value):
        """Follows from the others."""

    @property
    def polemass_length(self):
        """Mass of the pole times `length`."""
        return self.masspole * self.length

    @polemass_length.setter
    def polemass_length(self, value):
        """Follows from the others."""

    def step(self, action):
        return super().step(action if self.wiring >= 0 else 1 - action)
