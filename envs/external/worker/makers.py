"""Where an environment comes from: its class or function, found by name and checked."""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Callable
from typing import Any

META_WORLD_ENV = os.path.realpath(os.path.join(__file__, "..", "..", "meta_world_env.py"))
INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")  # sysconfig's names of folders


class EnvRejected(Exception):
    """The environment cannot be used like this; the message says why, and names a remedy."""


def find_maker(name: str) -> Callable[..., Any]:
    """Return the class or function that makes the environment from keyword arguments.

    Args:
        name: a Gymnasium id, `package.module:Name`, or `/path/to/file.py:Name`. The name after the
            colon may be an id, too, which the module or the file registers.

    Raises:
        EnvRejected: if it cannot be found, or a config must not call it.
    """
    module, _, attribute = name.rpartition(":")
    if not module:
        return gymnasium_maker(name)
    try:
        loaded = import_file(module) if module.endswith(".py") else importlib.import_module(module)
        maker = getattr(loaded, attribute) if attribute.isidentifier() else None
    except Exception as error:
        raise EnvRejected(f"cannot be imported by {sys.executable}: {short(error)}") from error
    if maker is None:
        return gymnasium_maker(attribute, module)
    check_maker(maker)
    return maker


def import_file(path: str) -> types.ModuleType:
    """Import a file as Python runs it: its folder comes first on the import path, for the files
    beside it, and its module is known by name, as dataclasses and pickles need it.

    A file may have the name of a module that is in use: then its module has another.
    """
    name, folder = os.path.basename(path)[: -len(".py")], os.path.dirname(os.path.realpath(path))
    if folder not in (os.path.dirname(META_WORLD_ENV), sys.path[0]):
        sys.path.insert(0, folder)
    name = f"environment_{name}" if name in sys.modules else name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_maker(maker: Any) -> None:
    """Reject everything but classes of environments and the user's own functions: a config chooses
    the arguments, so that other functions, such as those of the standard library, are unsafe."""
    if isinstance(maker, type):
        if not (hasattr(maker, "reset") and hasattr(maker, "step")):
            raise EnvRejected("is a class, but not of environments: it has no reset and no step")
        return
    if not isinstance(maker, types.FunctionType):
        raise EnvRejected("is neither a class nor a function")
    file = os.path.realpath(maker.__code__.co_filename)
    if file == META_WORLD_ENV:
        return
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places = [sysconfig.get_path(name, scheme) for name in INSTALLED for scheme in schemes]
    installed = {os.path.realpath(place) for place in places if place}
    if any(file.startswith(folder + os.sep) for folder in installed) or not os.path.isfile(file):
        raise EnvRejected(
            "is a function of Python or an installed package, which might do anything; name the "
            "environment's class, or a function of your own that calls this one"
        )


def gymnasium_maker(name: str, module: str = "") -> Callable[..., Any]:
    """Return the constructor of a registered environment, without its time limit: the family has
    its own horizon.

    Args:
        name: the id.
        module: the module or file that has just been imported to register it, if any.

    Raises:
        EnvRejected: if Gymnasium is not installed, or does not know the id.
    """
    try:
        import gymnasium
    except ImportError as error:
        help = f"install it with: {sys.executable} -m pip install gymnasium"
        raise EnvRejected(
            f"needs Gymnasium, which {sys.executable} does not have; {help}"
        ) from error
    try:
        spec = copy.deepcopy(gymnasium.spec(name))
    except (gymnasium.error.Error, ImportError) as error:
        known = list(gymnasium.registry)
        near = difflib.get_close_matches(name, known, 3, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else f" ({short(error)})"
        after = f" after the import of {module}" if module else ""
        raise EnvRejected(f"is not an environment that Gymnasium knows{after}{hint}") from error
    spec.max_episode_steps = None
    return lambda **kwargs: gymnasium.make(spec, disable_env_checker=True, **kwargs)


def short(error: BaseException) -> str:
    """Return the type and the message of an error."""
    return f"{type(error).__name__}: {error}"
