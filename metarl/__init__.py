"""Meta-reinforcement learning: agents that learn a new task from a few episodes.

config = metarl.load_config("half_cheetah_vel/maml_trpo", seed=1)
run = metarl.train(config)
agent = metarl.load(run.directory)
result = metarl.evaluate(agent, config.env, split="test", tasks=40, steps=3)
result.returns  # (tasks, steps + 1, episodes)
metarl.render(agent, config.env, task=[1.5], steps=3, out="adaptation.mp4")
adapted = agent.adapt_to(run.make_env(task=[1.5]))
action, _ = adapted.predict(observation)
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.config import Config
    from metarl.config_files import load_config
    from metarl.core.errors import ConfigError, UserError
    from metarl.evaluation.evaluate import evaluate
    from metarl.evaluation.loaded import load
    from metarl.reporting.video.adaptation import adaptation_video as render
    from metarl.runs.result import Evaluation
    from metarl.runs.run import Run
    from metarl.training.callbacks import Callback
    from metarl.training.loop import resume, train

    __version__: str

__all__ = [
    "Callback",
    "Config",
    "ConfigError",
    "Evaluation",
    "Run",
    "UserError",
    "evaluate",
    "load",
    "load_config",
    "render",
    "resume",
    "train",
]

_HOMES = {
    "Callback": "metarl.training.callbacks:Callback",
    "Config": "metarl.config:Config",
    "ConfigError": "metarl.core.errors:ConfigError",
    "Evaluation": "metarl.runs.result:Evaluation",
    "Run": "metarl.runs.run:Run",
    "UserError": "metarl.core.errors:UserError",
    "evaluate": "metarl.evaluation.evaluate:evaluate",
    "load": "metarl.evaluation.loaded:load",
    "load_config": "metarl.config_files:load_config",
    "render": "metarl.reporting.video.adaptation:adaptation_video",
    "resume": "metarl.training.loop:resume",
    "train": "metarl.training.loop:train",
}

_MODULES = ("adaptation", "envs")


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch, MuJoCo and W&B take seconds, and `metarl --version` needs none.
    if name == "__version__":
        return importlib.metadata.version("metarl-torch")
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *__all__, "__version__", *_MODULES})
