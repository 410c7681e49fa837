"""Names for people of methods, task families, tasks and evaluations; ids are for commands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from metarl.evaluation.tasks import CUSTOM

METHODS = {
    "anil": "ANIL",
    "cavia": "CAVIA",
    "cavia_ppo": "CAVIA-PPO",
    "continual_cavia": "CAVIA for sequences",
    "continual_maml": "MAML for sequences",
    "continual_meta_sgd": "Meta-SGD for sequences",
    "continual_rl2": "RL² for sequences",
    "demo": "MAML-TRPO, short",
    "dice_maml": "DiCE-MAML",
    "emaml": "E-MAML",
    "fomaml": "First-order MAML",
    "leo": "LEO",
    "loaded_dice_maml": "Loaded-DiCE MAML",
    "lslr": "MAML with step sizes per layer",
    "maml": "MAML",
    "maml_ppo": "MAML-PPO",
    "maml_trpo": "MAML-TRPO",
    "maml_trpo_drift": "MAML-TRPO with drift",
    "meta_lstm": "Meta-LSTM",
    "meta_sgd": "Meta-SGD",
    "oracle": "Oracle",
    "pearl": "PEARL",
    "pretrained": "Pretrained",
    "promp": "ProMP",
    "random": "Random",
    "reptile": "Reptile",
    "rl2": "RL²",
    "robust_maml": "Robust MAML",
    "varibad": "VariBAD",
}
"""Names of methods, by the ids of the configs that come with the package."""
ENDINGS = {
    "_tuned": "tuned",
    "_gymnasium": "published environment",
    "_sparse": "sparse rewards",
    "_100": "100 steps",
}
"""Endings of ids of configs that have other settings of a method or an environment."""
FAMILIES = {
    "ant_dir": "Ant, direction",
    "ant_goal": "Ant, goal position",
    "ant_vel": "Ant, goal velocity",
    "bandit": "Bandit",
    "gridworld": "Gridworld",
    "gymnasium": "Gymnasium environment",
    "half_cheetah_body": "HalfCheetah, other bodies",
    "half_cheetah_dir": "HalfCheetah, direction",
    "half_cheetah_vel": "HalfCheetah, goal velocity",
    "hopper_params": "Hopper, other dynamics",
    "humanoid_dir": "Humanoid, direction",
    "metaworld": "Meta-World",
    "point_nav": "2D navigation",
    "tabular_mdp": "Tabular MDPs",
    "walker_params": "Walker, other dynamics",
    "walker_vel": "Walker, goal velocity",
}
"""Names of the task families that come with the package."""
VELOCITY = ("goal velocity (m/s)",)
DIRECTION, HEADING = ("direction (+1 forward, -1 backward)",), ("heading (rad)",)
TASKS = {
    "ant_dir": DIRECTION,
    "ant_goal": ("goal x (m)", "goal y (m)"),
    "ant_vel": VELOCITY,
    "gridworld": ("goal x (cell)", "goal y (cell)"),
    "half_cheetah_dir": DIRECTION,
    "half_cheetah_vel": VELOCITY,
    "humanoid_dir": HEADING,
    "point_nav": ("goal x", "goal y"),
    "walker_vel": VELOCITY,
}
"""Names of the numbers of a task, by family, with units where they have one."""
PERTURBATIONS = {
    "observation_noise": "noise of observations (standard deviation)",
    "action_delay": "delay of actions (steps)",
    "motor_strength": "strength of motors (share)",
}
PROTOCOLS = {
    "k_step": "Adaptation",
    "few_episode": "Episodes of experience",
    "ood": "Tasks out of distribution",
    "robust": "Noise, delays and weak motors",
    "continual": "Sequences of tasks",
    "drift": "Tasks that drift",
}
SPLITS = {
    "train": "training tasks",
    "validation": "validation tasks",
    "test": "test tasks",
    "ood": "tasks out of distribution",
    CUSTOM: "tasks of your own",
}


COUNTS = {"tasks": "task", "episodes": "episode", "steps": "adaptation", "trials": "trial"}
"""What the settings of an evaluation count."""


def setting_text(setting: str) -> str:
    """Return a setting in the name of an evaluation, such as `episodes_5`, as text."""
    if setting == "deterministic_true":
        return "deterministic actions"
    key, _, value = setting.partition("_")
    if key in COUNTS and value.isdecimal():
        return f"{value} {COUNTS[key]}{'s' if value != '1' else ''}"
    if number := re.fullmatch(r"([\w.]*?[a-z])_(-?\d.*)", setting):
        key, value = number.groups()
        return f"{key if '.' in key else key.replace('_', ' ')} {value.replace('_', ' ')}"
    return setting.replace("_", " ")


def method_text(label: str) -> str:
    """Return the name of a method in a label, such as `maml_trpo, adapted`; what follows the id
    stays, and so does the name of a method of the user's."""
    head = re.split(r" \(|, ", label, maxsplit=1)[0]
    rest = label[len(head) :]
    for name in PERTURBATIONS:
        rest = rest.replace(f", {name} ", f", {name.replace('_', ' ')} ")
    for ending, text in ENDINGS.items():
        stem = head.removesuffix(ending)
        if stem != head and stem in METHODS:
            return f"{METHODS[stem]}, {text}{rest}"
    return METHODS.get(head, head) + rest


def method_texts(labels: Iterable[str]) -> dict[str, str]:
    """Return the name of each method by its label; where names are equal, these are the labels."""
    texts = {label: method_text(label) for label in labels}
    counts = Counter(texts.values())
    return {label: text if counts[text] == 1 else label for label, text in texts.items()}


def family_text(name: str) -> str:
    """Return the name of a family; that of a family of the user's is its id."""
    return FAMILIES.get(name, name)


def task_texts(family: str, tasks: np.ndarray) -> list[str]:
    """Return the names of the numbers of the tasks of a family, (n, size)."""
    known, size = TASKS.get(family, ()), tasks.shape[1]
    if known == DIRECTION and not (np.abs(tasks) == 1).all():  # ant_dir with headings
        known = HEADING
    if len(known) == size:
        return [*known]
    return ["task"] if size == 1 else [f"task, number {number + 1}" for number in range(size)]


def evaluation_text(name: str) -> str:
    """Return the title of an evaluation by its name, such as `k_step-test-tasks_5`: protocol,
    tasks, and the settings that the name has."""
    protocol, split, *rest = re.split(r"(?<!_)(?<!\de)-", name)  # not at a minus sign
    settings = ", ".join(map(setting_text, rest))
    text = f"{PROTOCOLS.get(protocol, protocol)}, {SPLITS.get(split, split)}"
    return f"{text} ({settings})" if settings else text


def time_unit(hours: float) -> tuple[str, int]:
    """Return the unit in which a time is at least 1, or seconds, and how many of it an hour has."""
    return next(
        (name, number)
        for name, number in (("hours", 1), ("minutes", 60), ("seconds", 3600))
        if hours * number >= 1 or name == "seconds"
    )


def time_text(hours: float) -> str:
    """Return a time as text, in the unit of `time_unit`."""
    unit, number = time_unit(hours)
    text = f"{hours * number:.3g}"
    return f"{text} {unit.removesuffix('s') if text == '1' else unit}"


def seeds_text(number: int) -> str:
    """Return a number of seeds as text."""
    return "1 seed" if number == 1 else f"{number} seeds"
