"""Environments that do not repeat an episode, given its seed: training refuses them."""

from __future__ import annotations

import pytest

import metarl
from metarl.cli.main import main
from metarl.envs import GymnasiumFamily, Perturbed, PointNav, TaskObserved, WorkerError

KINDS = {
    "remembers": """
class Odd(Walk):
    episodes = 0
    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.episodes += 1
        self.x += self.episodes
        return self.observe(), info
""",
    "does not clear its state": """
class Odd(Walk):
    x = 0.0
    def reset(self, *, seed=None, options=None):
        self.t = 0
        gymnasium.Env.reset(self, seed=seed)
        return self.observe(), {}
""",
    "does not use its seed": """
class Odd(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset()
""",
    "draws its rewards elsewhere": """
class Odd(Walk):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, np.random.normal(), *rest
""",
    "draws from a generator that all share": """
class Odd(Walk):
    def reset(self, *, seed=None, options=None):
        np.random.seed(seed)
        return super().reset(seed=seed, options=options)
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, np.random.normal(), *rest
""",
    "ends at chance": """
class Odd(Walk):
    episodes = 0
    def reset(self, **kwargs):
        self.episodes += 1
        return super().reset(**kwargs)
    def step(self, action):
        obs, reward, _, cut, info = super().step(action)
        return obs, reward, self.episodes > 1, cut, info
""",
}


@pytest.fixture
def odd(walk, tmp_path):
    """Makes families of an environment whose class is given as text."""

    def make(text: str) -> GymnasiumFamily:
        family = walk()
        file = tmp_path / "walk.py"
        file.write_text(file.read_text() + text)
        return GymnasiumFamily(env_id=f"{file}:Odd", parameters=family.parameters, horizon=10)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_that_does_not_repeat_its_episodes_is_refused(odd, kind):
    family = odd(KINDS[kind])
    with pytest.raises(WorkerError, match=r"two episodes with one seed differ: a.* its ") as error:
        family.check_repeatable()
    assert "expected a reset that forgets" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_difference_is_named(odd):
    """Walk is seeded, and its first position is shifted by the number of resets."""
    text = KINDS["remembers"].replace("self.x +=", "self.x =")
    with pytest.raises(WorkerError, match="at the reset its obs is 1, then 2, so that"):
        odd(text).check_repeatable()


@pytest.mark.parametrize("cls", ["Walk", "Push"])
def test_an_environment_that_repeats_its_episodes_is_taken(walk, cls):
    for family in (walk(cls=cls), walk(cls=cls, horizon=1), TaskObserved(walk(cls=cls))):
        family.check_repeatable()
    walk("self.x = np.nan", cls=cls).check_repeatable()
    GymnasiumFamily().check_repeatable()
    PointNav().check_repeatable()


@pytest.mark.parametrize("wrapper", [TaskObserved, Perturbed])
def test_the_environment_of_a_wrapper_is_checked(odd, wrapper):
    with pytest.raises(WorkerError, match="two episodes with one seed differ"):
        wrapper(odd(KINDS["remembers"])).check_repeatable()


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "train"])
def test_normalised_observations_are_refused_before_training(tmp_path, capsys, dry):
    (tmp_path / "normalised.py").write_text(
        "import gymnasium\n"
        "def make(**kwargs):\n"
        "    env = gymnasium.make('Pendulum-v1', **kwargs)\n"
        "    return gymnasium.wrappers.NormalizeObservation(env)\n"
    )
    config = tmp_path / "c.yaml"
    config.write_text(
        "env: {family: gymnasium, env_id: 'normalised.py:make', parameters: {g: [5, 15]}}\n"
    )
    out = tmp_path / "run"
    assert main(["train", str(config), "--out", str(out), *dry]) == 1
    error = capsys.readouterr().err
    assert "two episodes with one seed differ: at the reset its obs is" in error
    assert "(in place of NormalizeObservation set agent.normalize_observations to true)" in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
    with pytest.raises(WorkerError):
        metarl.train(metarl.load_config(config), out)
