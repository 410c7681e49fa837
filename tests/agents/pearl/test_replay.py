"""metarl.agents.pearl.replay: rows of transitions, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.agents.pearl.replay import Replay, RowFormat
from metarl.rollout.episodes import Episodes

FORMAT = RowFormat(1, np.zeros(1, np.float32), np.ones(1, np.float32))


def episodes(values, lengths=None, terminated=False, task_ids=None) -> Episodes:
    """Episodes whose observations count from `values`, (B, E), by one, of at most 3 steps."""
    values = np.asarray(values, np.float32)
    lengths = np.full(values.shape, 3) if lengths is None else np.asarray(lengths)
    mask = np.arange(3) < lengths[..., None]
    count = values[..., None] + np.arange(3, dtype=np.float32)
    return Episodes(
        obs=(count * mask)[..., None],
        action=(count / 1000 * mask)[..., None],
        reward=10 * count * mask,
        mask=mask,
        last_obs=np.where(lengths > 0, values + lengths, 0)[..., None].astype(np.float32),
        terminated=np.broadcast_to(terminated, values.shape) & (lengths > 0),
        bootstrap=np.zeros(values.shape, bool),
        tasks=np.zeros((len(values), 1)),
        task_ids=np.arange(len(values)) if task_ids is None else np.asarray(task_ids),
    )


def contents(replay: Replay, task: int, *, prior: bool = False) -> list[float]:
    """The observations that can be drawn, in the order of their index."""

    class InOrder:
        def integers(self, low, high, number):
            return np.arange(low, high)

    draw = replay.draw_prior if prior else replay.draw
    return draw([task], 0, InOrder())[0, :, 0].tolist()


def test_rows_by_hand():
    """The next observation of the last step is the one after it; only terminal states end."""
    played = episodes([[1, 5], [20, 30]], [[3, 2], [0, 1]], [[False, True], [False, False]])
    rows, mask = FORMAT.rows(played), played.mask
    assert rows[0, 0].tolist() == pytest.approx(
        np.array([[1, 0.001, 10, 2, 1], [2, 0.002, 20, 3, 1], [3, 0.003, 30, 4, 1]])
    )
    assert rows[0, 1][mask[0, 1]] == pytest.approx(
        np.array([[5, 0.005, 50, 6, 1], [6, 0.006, 60, 7, 0]])
    )
    assert rows[1, 1][mask[1, 1]] == pytest.approx(np.array([[30, 0.03, 300, 31, 1]]))


def test_actions_are_scaled_to_one():
    scaled = RowFormat(1, np.float32([3.0]), np.float32([2.0]))
    played = episodes([[0]])
    played.action[0, 0, :, 0] = [1.0, 4.0, 5.1]
    assert scaled.rows(played)[0, 0, :, 1].tolist() == [-1.0, 0.5, 1.0]


def test_whole_iterations_are_dropped_oldest_first():
    replay = Replay(14, FORMAT, 1)
    assert replay.record(1, [episodes([[1], [100]])]) == 1
    assert replay.record(2, [episodes([[11]])]) == 1
    assert replay.record(3, [episodes([[21]], [[1]])]) == 1
    assert contents(replay, 0) == [1, 2, 3, 11, 12, 13, 21]
    assert (contents(replay, 1), replay.size) == ([100, 101, 102], 10)
    assert replay.record(4, [episodes([[31], [131]])]) == 2
    assert contents(replay, 0) == [11, 12, 13, 21, 31, 32, 33]
    assert (contents(replay, 1), replay.size) == ([131, 132, 133], 10)
    assert replay.tasks == [0, 1]
    assert replay.record(5, [episodes([[41, 51, 61, 71]])]) == 5
    assert replay.tasks == [0]
    assert replay.size == 12


def test_the_context_is_of_the_last_episodes_under_the_prior():
    replay = Replay(100, FORMAT, 1)
    replay.record(1, [episodes([[1], [100]]), episodes([[4], [104]])])
    replay.record(2, [episodes([[11]]), episodes([[14]])])
    assert contents(replay, 0, prior=True) == [11, 12, 13]
    assert contents(replay, 1, prior=True) == [100, 101, 102]
    assert contents(replay, 1) == [100, 101, 102, 104, 105, 106]
    both = Replay(100, FORMAT, 2)
    both.record(1, [episodes([[1]]), episodes([[4]]), episodes([[7]])])
    assert contents(both, 0, prior=True) == [1, 2, 3, 4, 5, 6]


def test_a_context_of_a_trial_ends_after_a_random_episode():
    replay = Replay(100, FORMAT, 1)
    replay.record(1, [episodes([[90]])])
    replay.record(2, [episodes([[1]]), episodes([[4]], [[2]]), episodes([[7]])])
    rng, found = np.random.default_rng(0), set()
    for _ in range(60):
        drawn = replay.draw_trial([0], 200, rng)[0, :, 0]
        found.add(tuple(np.unique(drawn)))
    assert found == {(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 7, 8, 9)}
    later = Replay(100, FORMAT, 2)
    later.record(1, [episodes([[1]]), episodes([[4]]), episodes([[7]])])
    found = {len(np.unique(later.draw_trial([0], 200, rng)[0, :, 0])) for _ in range(40)}
    assert found == {6, 9}


def test_a_task_that_was_drawn_twice_in_an_iteration_has_both():
    replay = Replay(100, FORMAT, 1)
    twice = {"task_ids": [5, 5]}
    replay.record(1, [episodes([[1], [11]], **twice), episodes([[4], [14]], **twice)])
    assert replay.tasks == [5]
    assert sorted(contents(replay, 5)) == [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]
    assert sorted(contents(replay, 5, prior=True)) == [1, 2, 3, 11, 12, 13]


def test_episodes_that_were_left_out_are_not_kept():
    replay = Replay(100, FORMAT, 1)
    assert replay.record(1, [episodes([[1, 11]], [[0, 0]])]) == 1
    assert replay.tasks == []
    replay.record(2, [episodes([[1, 11], [21, 31]], [[0, 2], [0, 0]])])
    assert replay.tasks == [0]
    assert contents(replay, 0) == [11, 12]


def test_draws_after_the_buffer_has_wrapped_are_those_of_what_is_kept():
    """Bit for bit, in a new buffer that was given the iterations since the oldest kept one only."""
    rng = np.random.default_rng(0)
    phases = [
        [
            episodes(rng.normal(size=(3, 2)), rng.integers(0, 4, (3, 2)), task_ids=ids)
            for _ in range(2)
        ]
        for ids in (rng.choice(6, 3, replace=False) for _ in range(30))
    ]
    replay = Replay(70, FORMAT, 1)
    oldest = [replay.record(i, each) for i, each in enumerate(phases, 1)]
    assert oldest == sorted(oldest)
    assert oldest[-1] > 20
    again = Replay(70, FORMAT, 1)
    found = [again.record(i, phases[i - 1]) for i in range(oldest[-1], 31)]
    assert found[-1] == oldest[-1]
    assert again.tasks == replay.tasks
    assert again.size == replay.size <= 70
    for _ in range(2):  # and so it stays
        for draw in ("draw", "draw_prior", "draw_trial"):
            one, other = (
                getattr(each, draw)(replay.tasks, 50, np.random.default_rng(1))
                for each in (replay, again)
            )
            assert one.tobytes() == other.tobytes()
        assert replay.record(31, phases[4]) == again.record(31, phases[4])
