"""The MuJoCo family of docs/extending.md, which is examples/swimmer.py."""

from pathlib import Path

import numpy as np
import pytest
from gymnasium.envs.mujoco import swimmer_v5

from metarl.envs import make_family
from metarl.envs.contract import check_family
from metarl.envs.mujoco.models import GYMNASIUM_ASSETS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def import_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_the_page_shows_the_example():
    page = (ROOT / "docs/extending.md").read_text()
    code = (ROOT / "examples/swimmer.py").read_text().partition("annotations\n\n")[2]
    assert f"```python\n{code}```" in page
    assert len([line for line in code.splitlines() if line.strip()]) <= 24


def test_it_keeps_the_contract():
    checks = check_family(make_family("examples.swimmer:SwimmerVel"))
    assert [check for check in checks if check.outcome == "FAIL"] == []
    assert next(check for check in checks if check.name == "stability").outcome == "pass"


def test_its_physics_are_gymnasiums_and_its_reward_is_the_distance_to_the_goal():
    """A policy action of 10 is the actuators' limit, 1."""
    family = make_family("examples.swimmer:SwimmerVel", action_scale=10.0)
    env = family.make_batch(1)
    first = env.reset(np.array([[0.15]]), [np.random.default_rng(0)])
    theirs = swimmer_v5.SwimmerEnv()
    state = env.render_state(0)
    theirs.reset(seed=0)
    theirs.set_state(*np.split(state, [5]))
    np.testing.assert_array_equal(first[0], np.concatenate([state[2:5], state[5:]]))
    action = np.array([0.5, -1.0])
    obs, reward, terminated = env.step(10 * action[None].astype(np.float32))
    expected, _, _, _, info = theirs.step(action)
    np.testing.assert_allclose(obs[0], expected, rtol=0, atol=1e-9)
    assert reward[0] == pytest.approx(-abs(info["x_velocity"] - 0.15), abs=1e-9)
    assert not terminated[0]
    theirs.close()


def test_the_model_may_be_a_file_of_ones_own(tmp_path):
    from examples.swimmer import SwimmerVel

    file = tmp_path / "robot.xml"
    file.write_text((GYMNASIUM_ASSETS / "swimmer.xml").read_text())
    family = type("Own", (SwimmerVel,), {"model_file": str(file)})()
    obs = family.make_batch(2).reset(
        family.tasks("test", 2), [np.random.default_rng(i) for i in (0, 1)]
    )
    assert obs.shape == (2, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ' ctrllimited="true" ctrlrange="-1 1"',
            "",
            "expected actuators with a ctrlrange.*number 0 has none",
        ),
        ("<motor", "<nothing", "XML Error: Schema violation: .* Element 'nothing', line"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_its_file(old, new, message, tmp_path):
    from examples.swimmer import SwimmerVel

    file = tmp_path / "robot.xml"
    file.write_text((GYMNASIUM_ASSETS / "swimmer.xml").read_text().replace(old, new))
    with pytest.raises(ValueError, match=f"family: model {file}: {message}"):
        type("Own", (SwimmerVel,), {"model_file": str(file)})()
