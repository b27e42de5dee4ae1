"""Minutes of Doom: what a decision costs, and what is counted."""

import dataclasses
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.tasks.doom import TASK, scores
from jaxdiff.tasks.doom import environment as games
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.play import (
    Demonstrator,
    DoomOptions,
    delay,
    first_turns,
    play_minutes,
    random_player,
)


def installed():
    try:
        games.make_env()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="vizdoom is not installed")


class Counting:
    """Shows its tic; remembers what was done in each; the player dies when told to."""

    def __init__(self, dies=(), tics=1):
        self.observation_space = spaces.Box(0, 255, (2, 1, 1), np.uint8)
        self.dies, self.tics, self.seeds, self.done = dies, tics, [], []

    def reset(self, seed=None):
        self.seeds.append(seed)
        return self._shown(), {"tics": 0}

    def step(self, action):
        self.done.append(np.array(action))
        dead = len(self.done) in self.dies
        return self._shown(), 1.0, dead, False, {"tics": self.tics}

    def close(self):
        pass

    def _shown(self):
        return np.full((2, 1, 1), len(self.done), np.uint8)


def counted(monkeypatch, envs, *, latency=0.0, live=False, **options):
    """Play with a policy that does what it sees, and keep what it was told."""
    left, told = iter(envs), []
    monkeypatch.setattr(games, "make_env", lambda *args, **kwargs: next(left))

    class Copying:
        def __call__(self, observation, goal=None):
            told.append(observation[:, 0].tolist())
            return np.repeat(observation[:, :1].astype(float), 3, 1)

        def reset(self, mask=None, seeds=None):
            told.append(list(seeds) if mask is None else mask.tolist())

    played = play_minutes(
        lambda games, seeds: Copying(), 4, DoomOptions(latency, live), **options
    )
    return played, told


@pytest.mark.parametrize(
    ("latency", "tics"), [(0, 1), (1 / 35, 1), (0.03, 2), (2 / 35, 2), (0.1, 4)]
)
def test_a_decision_costs_the_tics_that_it_takes(latency, tics, monkeypatch):
    assert delay(latency) == tics
    env = Counting()
    played, told = counted(monkeypatch, [env], minutes=1, latency=latency, tics=12)
    # The action of the picture of tic t is done in the last of the tics that follow.
    expected = np.repeat([[0, 0, -1]], 12, 0)
    expected[tics - 1 :: tics] = np.arange(0, 12, tics)[:, None]
    np.testing.assert_array_equal(env.done, expected)
    # A picture to compile for, the seeds of the games, and then every decision.
    assert told == [[0], [0], *[[t] for t in range(0, 12, tics)]]
    assert played.decisions.tolist() == [12 // tics]
    found = scores.rates(played)
    assert found["decisions_per_second"] == pytest.approx(35 / tics)
    assert found["tics_per_decision"] == tics
    assert found["kills_per_10min"] == 120
    np.testing.assert_allclose(played.turned[0], 15 * np.array(env.done)[:, :2])
    same = scores.turn_distances(played, played, (1, 6))
    assert same == {"action_w_1": 0.0, "action_w_6": 0.0}
    other = dataclasses.replace(played, turned=played.turned + np.float32([3.0, 4.0]))
    apart = scores.turn_distances(played, other, (2,))
    assert apart["action_w_2"] == pytest.approx(10.0)


def test_minutes_have_seeds_of_their_own_and_the_dead_begin_again(monkeypatch):
    envs = [Counting(dies=(3,)), Counting()]
    played, told = counted(
        monkeypatch, envs, minutes=3, num_envs=2, seed=40, latency=0.05, tics=6
    )
    assert envs[0].seeds == [40, None, 42]
    assert envs[1].seeds == [41, 43]  # of which the last does not count
    assert played.kills.tolist() == [6, 6, 6]
    assert played.deaths.tolist() == [1, 0, 0]
    # Who died in the first tic of a decision knows nothing of it afterwards, and what
    # had been decided is not done.
    assert told[1] == [40, 41]
    assert told[4] == [True, False]
    assert [42, 43] in told
    np.testing.assert_array_equal(envs[0].done[3], doom.IDLE)
    np.testing.assert_array_equal(envs[1].done[3], [2, 2, 2])


def test_live_tics_are_those_that_passed(monkeypatch):
    env = Counting(tics=3)
    played, _ = counted(monkeypatch, [env], minutes=1, latency=None, live=True, tics=12)
    assert played.decisions.tolist() == [4]
    assert played.tics.tolist() == [12]
    found = scores.rates(played)
    assert found["decisions_per_second"] == pytest.approx(4 / played.seconds[0])
    assert found["latency"] == played.thinking
    # Of three tics that pass the first moves.
    assert (played.turned[0, 3::3] != 0).all()
    assert not played.turned[0, 1::3].any()


def test_the_latency_is_measured_unless_it_is_given(monkeypatch):
    played, _ = counted(
        monkeypatch, [Counting(), Counting()], minutes=1, latency=None, tics=3
    )
    assert 0 < played.latency < 1
    assert scores.rates(played)["latency"] == played.latency


def test_what_cannot_be_played_is_said():
    for wrong, words in (
        ({"minutes": 0}, "`episodes` is 0"),
        ({"num_envs": 0}, "`num_envs` is 0"),
    ):
        with pytest.raises(UserError, match=words):
            play_minutes(random_player, 4, DoomOptions(0.0), **{"minutes": 1, **wrong})
    for wrong, words in (
        ({"live": True, "latency": 0.1}, "leave out `latency`"),
        ({"latency": -0.1}, "`latency` is -0.1"),
        ({"latency": 60.0}, "`latency` is 60.0; it must be below a minute"),
        ({"latency": float("nan")}, "`latency` is nan"),
    ):
        with pytest.raises(UserError, match=words):
            DoomOptions(**wrong)


def test_the_demonstrator_begins_anew_where_it_is_told_to():
    class Game:
        unwrapped = property(lambda self: self)

        def monsters(self):
            return []

        def pitch(self):
            return 0.0

    def ways(player, steps=1):
        return np.sign([player(None)[:, 0] for _ in range(steps)])

    player = Demonstrator([Game()] * 8, range(8))
    first = ways(player, 5)
    assert (first == first[0]).all()
    assert set(first[0]) == {-1, 1}
    player.reset(np.arange(8) < 4, seeds=range(8))
    again = ways(player)[0]
    np.testing.assert_array_equal(again, first[0])
    # A noise that belongs to a game does not depend on the others.
    np.testing.assert_array_equal(
        ways(Demonstrator([Game()] * 2, [0, 1]))[0], first[0, :2]
    )


def test_first_turns_are_added_up(monkeypatch):
    class Right:
        def __call__(self, observation, goal=None):
            return np.tile([0.2, 0.0, -1.0], (len(observation), 1))

        def reset(self, mask=None, seeds=None):
            asked.append(list(seeds))

    asked = []
    monkeypatch.setattr(games, "make_env", lambda *args, **kwargs: Counting())
    turns = first_turns(lambda games, seeds: Right(), 4, repeats=10, seed=7, tics=5)
    np.testing.assert_allclose(turns, np.full(10, 15 * 0.2 * 5))
    assert asked == [list(range(7, 15)), list(range(15, 23))]


def still_run(path):
    """A run whose policy shoots straight ahead."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        ahead = jnp.tile(jnp.array([0.0, 0.0, 1.0]), (len(observation), 1))
        return ActOutput(action=ahead), carry

    return stub_run(
        path, act, doom.ENVIRONMENTS[4], observation_shape=(38, 70, 3), action_dim=3,
        dataset="doom-quarter", references={"random": 10.0, "expert": 80.0},
    )  # fmt: skip


@simulated
@pytest.mark.slow
def test_a_run_is_scored_by_its_kills(tmp_path):
    run = still_run(tmp_path)
    options = {"episodes": 2, "num_envs": 2, "seed": 3, "options": {"latency": 0.0}}
    record, played = evaluate(run, **options)
    kills = played.kills.mean()
    assert 0 < kills < 80
    assert record["kills_per_10min"] == pytest.approx(10 * kills)
    assert record["score"] == pytest.approx(100 * (kills - 10) / 70)
    assert record["decisions_per_second"] == 35
    json.dumps(record, allow_nan=False)
    again, _ = evaluate(run, **options)
    assert {**again, "seconds": 0} == {**record, "seconds": 0}


def test_the_score_runs_from_random_to_the_demonstrator(monkeypatch):
    played, _ = counted(monkeypatch, [Counting()], minutes=1, tics=12)
    record = TASK.score(played, DoomOptions(0.0), {"random": 4.0, "expert": 20.0})
    assert record["score"] == pytest.approx(100 * (12 - 4) / 16)
    assert "40 kills in 10 minutes" in record["scale"]
    assert record["live"] is False
    assert "score" not in TASK.score(played, DoomOptions(), {})


@simulated
def test_a_live_game_does_not_wait():
    tics = []
    for thinking in (0.0, 0.06):

        class Slow:
            def __call__(self, observation, goal=None, thinking=thinking):
                time.sleep(thinking)
                return np.tile(doom.IDLE, (len(observation), 1))

            def reset(self, mask=None, seeds=None):
                pass

        played = play_minutes(
            lambda games, seeds: Slow(),
            4, DoomOptions(live=True), minutes=1, tics=20,
        )  # fmt: skip
        assert 20 <= played.tics[0] <= 40
        assert played.seconds[0] > 15 / 35
        tics.append(scores.rates(played)["tics_per_decision"])
    assert tics[0] < tics[1]
    assert tics[1] >= 2
