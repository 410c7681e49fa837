"""The inner loop as a library: adaptation of any `nn.Module` by any loss.

    model = torch.nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 1))
    forward = batched(model)
    inner = InnerLoop(rule=SGD(lr=0.01))
    meta = leaves(inner.init(parameters(model)))

    loss = lambda params: (forward(params, x) - y).square().mean((1, 2))  # (B,)
    state = inner.adapt(meta, [loss] * 5, num_tasks=len(x), differentiable=True)
    prediction = forward(inner.to_model_params(meta, state), new_x)

docs/library.md explains it, with the equivalents of learn2learn's and higher's calls.
"""

from metarl.agents.maml.inner_loop import InnerLoop, Loss
from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.modules import batched, parameters
from metarl.agents.maml.task_parameters import (
    AllParameters,
    Context,
    Head,
    Latent,
    TaskParameters,
)
from metarl.agents.maml.update_rules import SGD, MetaLSTM, MetaSGD, PerLayerPerStepLR, UpdateRule
from metarl.core.params import Params, leaves

__all__ = [
    "SGD",
    "AllParameters",
    "Context",
    "Head",
    "InnerLoop",
    "InnerState",
    "Latent",
    "Loss",
    "MetaLSTM",
    "MetaSGD",
    "Params",
    "PerLayerPerStepLR",
    "TaskParameters",
    "UpdateRule",
    "batched",
    "leaves",
    "parameters",
]
