"""The agent of RL2 (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose memory goes on
over the episodes of a trial."""

from __future__ import annotations

from metarl.agents.base import AgentSetup
from metarl.agents.recurrent.agent import TrialAgent
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.rl2.network import RecurrentNetwork
from metarl.core.params import Params


class RL2Agent(TrialAgent):
    """Adapts by the memory of a recurrent policy, which PPO trains as a whole.

    Attributes:
        network: the network.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        params: Params,
        encoder: InputEncoder,
        update: PPOConfig,
        setup: AgentSetup,
    ) -> None:
        """Assemble the agent.

        Args:
            network: the network.
            params, encoder, update, setup: as in `TrialAgent`.
        """
        super().__init__(network.memory, network.head, network, params, encoder, update, setup)
        self.network = network
