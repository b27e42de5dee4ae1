"""Doom: its demonstrator, and where ViZDoom is there, the game and its minutes."""

import dataclasses
import json
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from benchmarks import doom as benchmark
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.cli import main
from jaxdiff.data.episodes import load_dataset
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.run import Run
from jaxdiff.tasks.doom import scores
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.world import DemonstratorState, Monster, demonstrate
from jaxdiff.tasks.imitation_figures import plot_first_turns, plot_sights
from jaxdiff.tasks.presets import preset
from jaxdiff.tasks.recipes import RECIPES


def installed():
    try:
        doom.make_env()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="vizdoom is not installed")


def monster(number=0, *, right, down=0.0, size=20.0):
    """A monster whose middle stands so many degrees off the picture's."""
    x, y = doom.FOCAL * np.tan(np.deg2rad([right, down])) + [140, 75]
    return Monster(number, x - size / 2, y - size / 2, size, size)


# The demonstrator.


def test_bearings_undo_the_projection():
    for right, down in ((0, 0), (30, -5), (-49, 12)):
        found = doom.bearing(monster(right=right, down=down))
        np.testing.assert_allclose(found, (right, down), atol=1e-9)


def test_it_turns_to_its_target_and_shoots_when_it_is_there():
    rng = np.random.default_rng(0)
    for right, down in ((20.0, -10.0), (-20.0, 10.0)):
        turns = [
            demonstrate(DemonstratorState(), [monster(right=right, down=down)], 0, rng)
            for _ in range(200)
        ]
        shares = np.array([action[:2] for action, _ in turns]) * 15 / [right, down]
        np.testing.assert_allclose(shares.mean(0), 0.35, atol=0.03)
        assert all(action[2] == -1 for action, _ in turns)
        assert all(state.target == 0 for _, state in turns)
    # A box of 20 pixels is close within 6 of them, 2.9 degrees.
    for right, shot in ((0, 1), (2.7, 1), (-2.7, 1), (3.1, -1), (-3.1, -1)):
        action, _ = demonstrate(DemonstratorState(), [monster(right=right)], 0, rng)
        assert action[2] == shot
    action, _ = demonstrate(DemonstratorState(), [monster(right=49)], 0, rng)
    assert 12 < 15 * action[0] <= 14.01  # as fast as a hand goes


def test_it_keeps_its_target_until_that_has_fallen():
    rng = np.random.default_rng(0)
    both = [monster(7, right=-30), monster(8, right=25)]
    first, kept = [], 0
    for _ in range(400):
        _, state = demonstrate(DemonstratorState(), both, 0, rng)
        first.append(state.target)
        _, after = demonstrate(state, both, 0, rng)
        kept += after.target == state.target
    assert 0.4 < np.mean(np.array(first) == 7) < 0.6
    assert set(first) == {7, 8}
    assert 385 <= kept < 400
    _, state = demonstrate(DemonstratorState(target=7), both[1:], 0, rng)
    assert state.target == 8


def test_it_searches_either_way_and_keeps_to_it():
    rng = np.random.default_rng(0)
    ways = []
    for _ in range(200):
        state, turned, pitch = DemonstratorState(), [], 0.0
        for _ in range(20):
            action, state = demonstrate(state, [], pitch, rng)
            turned.append(15 * action[0])
            pitch += 15 * action[1]
        assert len(set(np.sign(turned))) == 1
        assert 4 < np.abs(turned).mean() < 8
        # To the right along an arc: it comes to look down, and no further.
        assert np.sign(turned[0]) * pitch == pytest.approx(4, abs=1.5)
        ways.append(np.sign(turned[0]))
    assert 0.4 < np.mean(np.array(ways) == 1) < 0.6
    # Who has been found is forgotten: the next search may go the other way.
    _, state = demonstrate(DemonstratorState(search=1), [monster(right=0)], 0, rng)
    assert state.search == 0


def test_the_trigger_is_held_and_then_rests():
    rng = np.random.default_rng(0)
    state, clicks = DemonstratorState(), []
    for _ in range(40):
        action, state = demonstrate(state, [monster(right=0)], 0, rng)
        clicks.append(int(action[2] > 0))
    np.testing.assert_array_equal(clicks, ([1] * 5 + [0] * 14) * 2 + [1] * 2)


def test_pictures_of_every_size():
    for block, shape in ((1, (150, 280, 3)), (2, (75, 140, 3)), (4, (38, 70, 3))):
        assert doom.image_shape(block) == shape
        picture = np.random.default_rng(0).integers(0, 256, (150, 280, 3))
        shown = doom.shrink(picture.astype(np.uint8), block)
        assert (shown.shape, shown.dtype) == (shape, np.uint8)
        for i, j in ((0, 0), (20, 69), (shape[0] - 1, 3)):
            square = picture[block * i : block * (i + 1), block * j : block * (j + 1)]
            if len(square) == block:
                assert np.abs(shown[i, j] - square.mean((0, 1))).max() <= 0.5
        assert doom.block_of_environment(doom.ENVIRONMENTS[block]) == block
    assert doom.block_of_environment("Other-v0") is None


def test_a_missing_game_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(UserError, match=r'pip install "jaxdiff\[doom\]"'):
        doom.make_env()


# The game.


def box(env):
    (one,) = env.unwrapped.monsters()
    return one


@simulated
def test_an_action_turns_by_as_much_as_it_says():
    env = doom.make_env(labels=True)
    env.reset(seed=3)
    # A game begins with a monster straight ahead.
    assert abs(doom.bearing(box(env))[0]) < 1
    for action, moved in (
        ((0.8, 0, -1), (-12, 0)),
        ((-0.8, 0, -1), (12, 0)),
        ((0, -0.4, -1), (0, 6)),
        ((0, 0.4, -1), (0, -6)),
    ):
        before = np.array(doom.bearing(box(env)))
        env.step(np.array(action, np.float32))
        after = np.array(doom.bearing(box(env)))
        # Looking up and down moves a picture as a whole, by 7.1 degrees for 6.
        np.testing.assert_allclose(after - before, moved, atol=1.3)
    assert env.unwrapped.pitch() == pytest.approx(0, abs=0.1)
    env.close()


@simulated
def test_kills_pay_and_seeds_tell_episodes_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = doom.make_env(4, labels=True)

    def play(seed):
        shown, _ = env.reset(seed=seed)
        assert env.observation_space.contains(shown)
        pictures, rewards, policy = [], [], scores.demonstrator([env], 0)
        for tic in range(60):
            action = policy(None, None, [tic == 0])[0][0]
            shown, reward, dead, over, info = env.step(action)
            assert not dead
            assert not over
            assert info == {"tics": 1}
            pictures.append(shown)
            rewards.append(reward)
        return np.stack(pictures), rewards

    first, other, again = play(1), play(2), play(1)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    assert sum(first[1]) >= 1
    assert set(first[1]) == {0.0, 1.0}
    assert env.unwrapped.render().shape == (150, 280, 3)
    np.testing.assert_array_equal(doom.shrink(env.unwrapped.render(), 4), again[0][-1])
    env.close()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left


@simulated
def test_the_dataset_holds_pictures_as_bytes(tmp_path, capsys):
    options = ("--steps", "150", "--seed", "3", "--root", str(tmp_path))
    main(["data", "make", "doom-quarter", *options])
    dataset = load_dataset("doom-quarter", root=tmp_path)
    episodes = dataset.episodes
    assert episodes.lengths.tolist() == [150]
    assert not episodes.terminated.any()
    assert episodes.observations.dtype == np.uint8
    assert episodes.observations.shape == (151, 38 * 70 * 3)
    assert dataset.observation_shape == (38, 70, 3)
    assert dataset.environment == doom.ENVIRONMENTS[4]
    assert set(np.unique(episodes.actions[:-1, 2])) == {-1, 1}
    per_tic = episodes.rewards.sum() / 150
    assert dataset.references["expert"] == pytest.approx(2100 * per_tic)
    assert dataset.references["random"] < 30
    again = RECIPES["doom-quarter"].make(steps=150, seed=3, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint
    with pytest.raises(SystemExit):
        main(["data", "make", "doom", "--steps", "0", "--root", str(tmp_path)])
    assert "--steps is 0" in capsys.readouterr().err


# Minutes of play, in a game that only counts.


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


def counted(monkeypatch, envs, *, act=None, **options):
    """Play with a policy that does what it sees, and keep what it was told."""
    left, told = iter(envs), []
    monkeypatch.setattr(doom, "make_env", lambda *args, **kwargs: next(left))

    def make_policy(games, seed):
        def policy(observation, goal, reset):
            told.append((observation[:, 0].tolist(), reset.tolist()))
            return np.repeat(observation[:, :1].astype(float), 3, 1), None

        return policy

    return scores.play_minutes(make_policy, 4, **options), told


@pytest.mark.parametrize(
    ("latency", "tics"), [(0, 1), (1 / 35, 1), (0.03, 2), (2 / 35, 2), (0.1, 4)]
)
def test_a_decision_costs_the_tics_that_it_takes(latency, tics, monkeypatch):
    assert scores.delay(latency) == tics
    env = Counting()
    played, told = counted(monkeypatch, [env], minutes=1, latency=latency, tics=12)
    # The action of the picture of tic t is done in the last of the tics that follow.
    expected = np.repeat([[0, 0, -1]], 12, 0)
    expected[tics - 1 :: tics] = np.arange(0, 12, tics)[:, None]
    np.testing.assert_array_equal(env.done, expected)
    assert told[1:][0] == ([0], [True])  # after the one that warms up
    assert all(reset == [False] for _, reset in told[2:])
    assert played.decisions.tolist() == [12 // tics]
    found = scores.rates(played, latency)
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
    assert told[3][1] == [True, False]
    np.testing.assert_array_equal(envs[0].done[3], doom.IDLE)
    np.testing.assert_array_equal(envs[1].done[3], [2, 2, 2])


def test_live_tics_are_those_that_passed(monkeypatch):
    env = Counting(tics=3)
    played, _ = counted(monkeypatch, [env], minutes=1, latency=None, live=True, tics=12)
    assert played.decisions.tolist() == [4]
    assert played.tics.tolist() == [12]
    found = scores.rates(played, None)
    assert found["decisions_per_second"] == pytest.approx(4 / played.seconds[0])
    assert found["latency"] == played.thinking
    # Of three tics that pass the first moves.
    assert (played.turned[0, 3::3] != 0).all()
    assert not played.turned[0, 1::3].any()


def test_what_cannot_be_played_is_said():
    for wrong, words in (
        ({"minutes": 0}, "--episodes is 0"),
        ({"num_envs": 0}, "--num-envs is 0"),
        ({"live": True, "latency": 0.1}, "leave out --latency"),
        ({"latency": -0.1}, "--latency is -0.1"),
        ({"latency": float("nan")}, "--latency is nan"),
    ):
        with pytest.raises(UserError, match=words):
            scores.play_minutes(scores.at_random, 4, **{"minutes": 1, **wrong})


# Runs, and the benchmark.


def still_run(path, environment=doom.ENVIRONMENTS[4]):
    """A run whose policy shoots straight ahead."""

    def act(states, carry, key, observation, reset, goal=None):
        ahead = jnp.tile(jnp.array([0.0, 0.0, 1.0]), (len(observation), 1))
        return ActOutput(action=ahead), carry

    document = {
        "dataset": {
            "name": "doom-quarter",
            "environment": environment,
            "references": {"random": 10.0, "expert": 80.0},
            "action_dim": 3,
        }
    }
    config = types.SimpleNamespace(encoder="strided")
    algorithm = Algorithm({}, act, lambda batch: jnp.zeros(batch))
    return Run(path, "still", config, None, algorithm, {}, document)


@simulated
def test_a_run_is_scored_by_its_kills(tmp_path):
    run = still_run(tmp_path)
    options = {"episodes": 2, "num_envs": 2, "seed": 3}
    record, played = evaluate_run(run, latency=0.0, **options)
    kills = played.kills.mean()
    assert 0 < kills < 80
    assert record["kills_per_10min"] == pytest.approx(10 * kills)
    assert record["score"] == pytest.approx(100 * (kills - 10) / 70)
    assert record["decisions_per_second"] == 35
    json.dumps(record, allow_nan=False)
    again, _ = evaluate_run(run, latency=0.0, **options)
    assert {**again, "seconds": 0} == {**record, "seconds": 0}


@simulated
def test_a_live_game_does_not_wait():
    tics = []
    for thinking in (0.0, 0.06):

        def slow(envs, seed, thinking=thinking):
            def policy(observation, goal, reset):
                time.sleep(thinking)
                return np.tile(doom.IDLE, (len(envs), 1)), None

            return policy

        played = scores.play_minutes(
            slow, 4, minutes=1, live=True, latency=None, tics=20
        )
        assert 20 <= played.tics[0] <= 40
        assert played.seconds[0] > 15 / 35
        tics.append(scores.rates(played, None)["tics_per_decision"])
    assert tics[0] < tics[1]
    assert tics[1] >= 2


def test_tasks_that_wait_for_actions_take_no_time(tmp_path):
    run = still_run(tmp_path, environment="Other-v0")
    for wrong in ({"live": True}, {"latency": 0.1}):
        with pytest.raises(UserError, match="leave out --live and --latency"):
            evaluate_run(run, episodes=1, **wrong)
    with pytest.raises(UserError, match="not Doom"):
        scores.evaluate_doom(run)


@simulated
@pytest.mark.slow
def test_the_benchmark_writes_rows_and_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "load_run", lambda path, overrides: still_run(path))
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    options = benchmark.Options(
        runs=(Path("a"),), methods=("ahead",), minutes=1, in_turn=True, repeats=8
    )
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "doom.json").read_text())
    found = {(r["setting"], r["method"], r["metric"]): r["value"] for r in rows}
    kills = {
        key[:2]: value for key, value in found.items() if key[2] == "kills_per_10min"
    }
    nobody, strided = "no encoder, in turn", "strided, 38 x 70, in turn"
    assert kills[nobody, "demonstrator"] > 600
    assert kills[nobody, "random"] < 300
    assert kills[strided, "ahead"] < 600
    assert found[nobody, "random", "decisions_per_second"] == 35
    assert 0 < found[strided, "ahead", "milliseconds"] < 1000
    for name in ("doom-sights", "doom-turns-strided-38x70"):
        assert (tmp_path / "figures" / f"{name}.png").is_file()


def test_the_benchmark_refuses_other_runs(monkeypatch):
    monkeypatch.setattr(
        benchmark, "load_run", lambda path, overrides: still_run(path, "Other-v0")
    )
    with pytest.raises(UserError, match="no run of Doom"):
        list(benchmark.players(benchmark.Options(runs=(Path("a"),))))
    with pytest.raises(UserError, match="--in-turn"):
        benchmark.main(benchmark.Options(latency=0.1))


def test_sights_show_which_monster_is_aimed_at():
    picture = np.zeros((150, 280, 3), np.uint8)
    one, other = monster(4, right=10), monster(5, right=-20)
    figure = plot_sights([(picture, [one, other], 5), (picture, [], -1)])
    boxes = {patch.get_gid(): patch for patch in figure.axes[0].patches}
    assert boxes["target"].get_xy() == (other.left, other.top)
    assert boxes["other"].get_xy() == (one.left, one.top)
    assert not figure.axes[1].patches


def test_turns_are_drawn_on_one_scale():
    picture = np.zeros((150, 280, 3), np.uint8)
    turns = {"two ways": np.array([-70.0, -71, 72]), "none": np.zeros(3)}
    figure = plot_first_turns(picture, turns, seconds=1.0)
    _, two, none = figure.axes
    assert two.get_xlim() == none.get_xlim()
    heights = [patch.get_height() for patch in two.patches]
    middles = [patch.get_x() + patch.get_width() / 2 for patch in two.patches]
    assert np.dot(heights, np.array(middles) < 0) == 2
    assert sum(heights) == 3


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_presets_know_the_pictures(name):
    for dataset, shape in (
        ("doom", (150, 280, 3)),
        ("doom-half", (75, 140, 3)),
        ("jaxdiff/doom/quarter-v0", (38, 70, 3)),
    ):
        diffusion, _ = preset("diffusion-bc", name, dataset)
        plain, training = preset("bc", name, dataset)
        assert diffusion.image_shape == plain.image_shape == shape
        assert diffusion.history == 2
        assert diffusion.diffusion_steps == 20
        assert diffusion.schedule == ("linear_rescaled" if name == "demo" else "linear")
        assert diffusion.host_memory == (dataset == "doom")
        assert training["policy"].num_steps == plain.learning_rate_decay
    assert preset("diffusion-bc", name, "claw")[0].diffusion_steps == 50
