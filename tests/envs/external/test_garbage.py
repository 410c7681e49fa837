"""Workers that answer with garbage, for real: their environment writes into the pipe of answers."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from metarl.envs import GymnasiumFamily, WorkerError
from metarl.envs.external.pool import MAX_RESTARTS
from metarl.envs.external.process import WorkerLost, parse

PREAMBLE = """
import stat

def say(content):
    # Of all the pipes only that of the answers can be written to.
    for fd in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, content)
        except OSError:
            pass

def once(name):
    flag = Path(__file__).with_name(name)
    found = flag.exists()
    flag.touch()
    return not found
"""


def test_garbage_between_the_answers_changes_no_result(walk, history, tmp_path):
    """Such a worker is replaced: what it says cannot be relied on any more."""
    garbage = {2: rb"\xff\xfe\x00{", 4: rb'{"number": 2, "done": null}', 6: rb'{"number": 6, "do'}
    said = {step: text + (b"" if step == 6 else b"\n") for step, text in garbage.items()}
    family = walk(
        "self.t in SAID and once(f'said {self.t}') and say(SAID[self.t])",
        preamble=f"{PREAMBLE}\nSAID = {said}",
    )
    disturbed = history(family, 4, 1, steps=8)
    assert len(list(tmp_path.glob("said *"))) == 3
    assert np.array_equal(disturbed, history(family, 4, 1, steps=8))


def test_garbage_again_and_again_is_an_error(walk, history):
    family = walk(r"say(b'oops, printed here\n')", preamble=PREAMBLE)
    with pytest.raises(WorkerError) as error:
        history(family, 4, 2)
    text = str(error.value)
    assert (
        f"started again {MAX_RESTARTS} times, sent what is no answer: b'oops, printed here'" in text
    )
    assert "at step 0 of episode" in text


def test_an_endless_message_is_cut_off(walk, history):
    """Not when the memory is used up: of these 64 MiB only the first are taken."""
    deed = r"self.t == 2 and say(b'x' * (1 << 26))"
    family = walk(deed, preamble=PREAMBLE)
    with pytest.raises(WorkerError, match=r"sent \d,\d{3},\d{3} bytes without an end"):
        history(family, 2, 1)


def test_a_worker_that_dies_as_it_starts_is_replaced(walk, history, tmp_path):
    """That which describes the environment, and one that plays."""
    family = walk(preamble=f"{PREAMBLE}\nonce('first') and os._exit(9)")
    assert family.observation_space.shape == (2,)
    (tmp_path / "first").unlink()
    disturbed = history(family, 4, 2, steps=4)
    assert (tmp_path / "first").exists()
    assert np.array_equal(disturbed, history(family, 4, 2, steps=4))


def test_an_observation_of_another_size_is_refused(walk, history):
    """One number would otherwise fill all places, silently."""
    family = walk("self.t == 3 and setattr(self, 'observe', lambda: np.zeros(1))")
    with pytest.raises(WorkerError, match="observes 1 numbers, not 2 as its observation space"):
        history(family)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            "(self.observe(), np.zeros(2), False, False, {})",
            r"returned array\(\[0., 0.\]\) as the reward, an array of the shape \(2,\): expected a",
        ),
        ("(self.observe(), None, False, False, {})", "returned None as the reward: expected a num"),
        (
            "(self.observe(), 'x', False, False, {})",
            "returned 'x' as the reward: expected a number",
        ),
        (
            "(self.observe(), 0.0, False)",
            r"returned 3 values from step, .*: expected \(observation, reward, terminated, trunc",
        ),
        ("(self.observe(), 0.0, False, {})", "returned 4 values from step, .*suitably wrapped"),
        ("self.observe()", r"returned array\(.* from step: expected \(observation, reward"),
        ("None", "returned None from step: expected"),
        (
            "(self.observe(), 0.0, False, False, None)",
            "returned None as the last value of step: expected info, a dict",
        ),
        ("(self.observe(), 0.0, None, False, {})", "returned None as terminated: expected true or"),
        ("(self.observe(), 0.0, False, [1], {})", r"returned \[1\] as truncated, .* expected true"),
        (
            "(self.observe(), 0.0, False, False, dict(success=None))",
            r"returned None as info\['success'\]: expected true or false, or no such entry",
        ),
        ("(dict(x=1), 0.0, False, False, {})", r"observes \{'x': 1\}: expected numbers, as its ob"),
        (
            "([[1], [1, 2]], 0.0, False, False, {})",
            r"observes \[\[1\], \[1, 2\]\]: expected numbers",
        ),
    ],
)
def test_an_outcome_of_a_wrong_kind_is_an_error(walk, history, tmp_path, outcome, message):
    odd = with_method(walk(), tmp_path, "step(self, action)", outcome)
    with pytest.raises(WorkerError, match=message):
        history(odd)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ("self.observe()[0]", r"returned array\(.*, dtype=float32\) from reset: expected \(obs"),
        ("(self.observe(), 1.0)", "returned 1.0 as the last value of reset: expected info, a dict"),
        ("({'x': 1}, {})", r"observes \{'x': 1\}: expected numbers"),
    ],
)
def test_a_reset_that_returns_a_wrong_kind_is_an_error(walk, tmp_path, outcome, message):
    odd = with_method(walk(), tmp_path, "reset(self, *, seed=None, options=None)", outcome)
    with pytest.raises(WorkerError, match=message):
        odd.observation_space  # noqa: B018


def test_numbers_may_be_arrays_without_axes(walk, history, tmp_path):
    """And of NumPy's types, as environments return them."""
    outcome = "(self.observe(), np.array(-1.5), np.bool_(False), 0, dict(success=np.array(True)))"
    odd = with_method(walk(), tmp_path, "step(self, action)", outcome)
    rows = history(odd, 1, 1, steps=2)
    assert rows[-1, 0, -3:].tolist() == [-1.5, 0.0, 1.0]


def with_method(family, folder, signature: str, outcome: str) -> GymnasiumFamily:
    """Return the family of Walk with one method that returns something else."""
    file = folder / "walk.py"
    before = "self.x, self.t, self.pull = 0.0, 0, 0.0"
    body = (
        f"\n\nclass Odd(Walk):\n    def {signature}:\n        {before}\n        return {outcome}\n"
    )
    file.write_text(file.read_text() + body)
    return GymnasiumFamily(env_id=f"{file}:Odd", parameters=family.parameters, horizon=5)


def test_what_a_failed_worker_says_of_its_place_is_not_relied_on(walk):
    """It may have written anything into the shared memory, before it is asked for the error."""
    family = walk(
        preamble=f"{PREAMBLE}\nHERE = Path(__file__).parent\n"
        "number = len(list(HERE.glob('start*')))\nonce(f'start {number}')\n"
        "number >= 2 and os._exit(1)  # that which describes, that which plays, and no successor"
    )
    env = family.make_batch(4, 1)
    env.reset(np.zeros((4, 1)), [np.random.default_rng(i) for i in range(4)])
    env.pool.views["row"][:] = 10**15
    os.kill(env.pool.pids[0], signal.SIGKILL)
    with pytest.raises(WorkerError, match="of episode 3, seed"):
        env.step(np.ones((4, 1)))


def test_a_worker_lost_while_it_draws_is_replaced(walk, tmp_path):
    drawn = """
    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    def __init__(self, render_mode=None, **kwargs):
        super().__init__(**kwargs)
    def render(self):
        if self.t == 2 and once("once"):
            os._exit(1)
        return np.full((8, 8, 3), self.t, np.uint8)
"""
    family = walk(preamble=PREAMBLE)
    file = tmp_path / "walk.py"
    file.write_text(file.read_text() + f"\n\nclass Drawn(Walk):{drawn}")
    family = GymnasiumFamily(env_id=f"{file}:Drawn", parameters=family.parameters, horizon=5)
    pool = family.make_pool(1, 1, render=True)
    pool.reset(np.zeros((1, 1)), np.zeros(1, np.int64))
    for _ in range(2):
        pool.step(np.ones((1, 1)), np.ones(1, bool))
    assert (pool.render(0) == 2).all()
    assert os.path.exists(tmp_path / "once")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"7",
        b"[1, 2]",
        b"[" * 10**5,
        b"\xff\xfe",
        b'{"number": 1}',
        b'{"done": null}',
        b'{"number": 2, "done": null}',
        b'{"number": 1, "did": null}',
        b'{"number": 1, "raised": "x"}',
        b'{"number": 1, "refused": 3}',
    ],
    ids=lambda line: repr(line[:20]),
)
def test_what_is_no_answer(line):
    with pytest.raises(WorkerLost, match="sent what is no answer"):
        parse(line, 1)
    assert parse(b'{"number": 1, "done": [1]}', 1) == {"done": [1]}
