"""The agent of RL2 (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose memory goes on
over the episodes of a trial."""

from __future__ import annotations

from metarl.agents.recurrent.agent import TrialAgent


class RL2Agent(TrialAgent):
    """Adapts by the memory of a recurrent policy, which PPO trains as a whole: the policy's inputs
    are the memory's output, and the gradient goes back through all steps of a trial."""
