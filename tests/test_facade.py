"""import metarl: its names, for completion and type checkers."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

import metarl


def test_all_names_are_there():
    names = {name for name in dir(metarl) if not name.startswith("_")}
    assert names == {*metarl.__all__, "adaptation", "envs"}
    for name in [*names, "__version__"]:
        assert getattr(metarl, name) is not None
    assert metarl.__version__ == importlib.metadata.version("metarl-torch")
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        _ = metarl.evaluat  # pyright: ignore


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: metarl.load(None), "directory"),
        (lambda: metarl.resume(metarl.load_config("point_nav/maml_trpo")), "directory"),
        (lambda: metarl.Run.open(3), "directory"),
        (lambda: metarl.train(metarl.load_config("point_nav/maml_trpo"), ""), "out"),
        (
            lambda: metarl.train(metarl.load_config("point_nav/maml_trpo"), "x", init_from=3),
            "init_",
        ),
        (lambda: metarl.load_config(3), "source"),
    ],
)
def test_what_is_no_path_is_refused(call, field):
    with pytest.raises(metarl.ConfigError, match=rf"^{field}\w*: expected (a path|the name)"):
        call()


def test_numbers_of_numpy_are_numbers():
    config = metarl.load_config(
        "point_nav/maml_trpo", seed=np.int64(3), **{"agent.policy.hidden": [np.int32(7)]}
    )
    assert (config.seed, config.agent.policy.hidden) == (3, (7,))  # pyright: ignore
    assert type(config.seed) is int


@pytest.mark.parametrize("name", [3, None, {"family": "point_nav"}])
def test_what_is_no_name_is_no_family(name):
    with pytest.raises(ValueError, match="expected the name of a family, got"):
        metarl.envs.make_family(name)


def test_its_types_are_for_others_too():
    assert (Path(metarl.__file__).parent / "py.typed").is_file()
