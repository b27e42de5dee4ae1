"""PushT's demonstrator: its geometry, and where gym-pusht is there, what it does."""

import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import pusht as benchmark
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.cli import main
from jaxdiff.data.episodes import load_dataset
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.rollouts import play_wave
from jaxdiff.run import Run
from jaxdiff.tasks.imitation_figures import plot_pushes
from jaxdiff.tasks.pusht import world as pusht
from jaxdiff.tasks.pusht.recipe import record_episode
from jaxdiff.tasks.recipes import RECIPES

# The block to the upper left, the agent to its lower right: either way round will do.
START = benchmark.START


def installed():
    try:
        pusht.make_env()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="gym-pusht is not installed")


def test_contacts_lie_on_the_sides_and_nothing_else_is_touched():
    places = pusht.contacts()
    distance = pusht._distance(places.points)
    np.testing.assert_allclose(distance, 0)
    disc = places.points - pusht.AGENT * places.normals
    np.testing.assert_allclose(pusht._distance(disc), pusht.AGENT)
    np.testing.assert_allclose(np.linalg.norm(places.normals, axis=1), 1)
    # A push through the centre of mass does not turn; the two ends of the bar's outer
    # side turn it either way.
    outer = places.points[:, 1] == 0
    middle = outer & (np.abs(places.points[:, 0]) < 1)
    np.testing.assert_allclose(places.levers[middle], 0)
    right = outer & (places.points[:, 0] > 50)
    assert (places.levers[right] > 0).all()
    np.testing.assert_allclose(sorted(places.levers), sorted(-places.levers))


def test_what_is_needed_brings_the_block_home():
    goal = np.array(pusht.GOAL)
    displacement, turn = pusht.needed(goal)
    np.testing.assert_allclose([*displacement, turn], 0, atol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(20):
        block = np.array([*rng.uniform(100, 400, 2), rng.uniform(0, 2 * np.pi)])
        displacement, turn = pusht.needed(block)
        assert -np.pi <= turn < np.pi
        centre = pusht._rotate(pusht._CENTRE, block[2]) + block[:2]
        moved = centre + pusht._rotate(displacement, block[2])
        angle = block[2] + turn
        origin = moved - pusht._rotate(pusht._CENTRE, angle)
        np.testing.assert_allclose(origin, goal[:2], atol=1e-9)
        np.testing.assert_allclose(
            (angle - goal[2]) % (2 * np.pi) % 6.28318, 0, atol=1e-4
        )


def test_a_missing_simulator_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(UserError, match=r'pip install "jaxdiff\[pusht\]"'):
        pusht.make_env()


def play(*, hand, seed=0, noise=0.0, start=None):
    rng = np.random.default_rng(seed)
    env = pusht.make_env()
    return record_episode(env, hand, rng, seed=seed, noise=noise, start=start)


@simulated
def test_the_block_moves_as_the_model_says():
    env = pusht.make_env()
    block = env.unwrapped
    env.reset(seed=0)
    np.testing.assert_allclose(block.block.center_of_gravity, pusht._CENTRE)
    inertia = block.block.moment / block.block.mass
    np.testing.assert_allclose(inertia, pusht._GYRATION)
    shapes = np.concatenate([s.get_vertices() for s in block.block.shapes])
    corners = {(round(x), round(y)) for x, y in shapes}
    assert {tuple(corner) for corner in pusht.CORNERS.tolist()} <= corners
    # A push at the end of the bar, by equation (1); it turns a little on the way.
    places = pusht.contacts()
    for contact in (2, 40):
        point, normal = places.points[contact], places.normals[contact]
        lever = places.levers[contact]
        start = point - (pusht.AGENT + 0.2) * normal
        pose = np.array([250.0, 250.0, 0.0])
        # Its setter turns the block about its centre of mass only if the angle is set.
        env.reset(options={"reset_to_state": [*(start + pose[:2]), *pose]})
        before = np.array([*block.block.position, block.block.angle])
        target = start + before[:2] + 12 * normal
        for _ in range(15):
            env.step(target.astype(np.float32))
        after = np.array([*block.block.position, block.block.angle])
        centres = [pusht._rotate(pusht._CENTRE, p[2]) + p[:2] for p in (before, after)]
        share = 11.8 / (1 + lever**2 / pusht._GYRATION)
        np.testing.assert_allclose(centres[1] - centres[0], share * normal, atol=1.5)
        turn = lever / pusht._GYRATION * share
        np.testing.assert_allclose(after[2] - before[2], turn, atol=0.03)


@simulated
def test_the_demonstrator_succeeds():
    episodes = [
        play(hand=1 if seed % 2 else -1, seed=seed, noise=4.0) for seed in range(12)
    ]
    assert np.mean([episode["terminations"][-1] for episode in episodes]) >= 0.9
    assert np.median([len(episode["actions"]) for episode in episodes]) < 150


@simulated
def test_its_hands_are_two_ways_round():
    ways = {
        hand: [
            pusht.way_round(
                play(hand=hand, seed=s, noise=4.0, start=START)["observations"]
            )
            for s in range(3)
        ]
        for hand in (-1, 1)
    }
    assert ways == {-1: [-1] * 3, 1: [1] * 3}
    mirrored = [play(hand=hand, start=START) for hand in (-1, 1)]
    assert all(episode["terminations"][-1] for episode in mirrored)


@simulated
def test_the_dataset_holds_successes(tmp_path, capsys):
    options = ("--steps", "500", "--seed", "3", "--root", str(tmp_path))
    main(["data", "make", "pusht", *options])
    dataset = load_dataset("pusht", root=tmp_path)
    episodes = dataset.episodes
    assert episodes.terminated.all()
    assert episodes.lengths.sum() >= 500 > episodes.lengths[:-1].sum()
    assert episodes.observations.shape[1] == 5
    assert episodes.actions.min() >= 0
    assert episodes.actions.max() <= 512
    assert dataset.environment == pusht.ENVIRONMENT
    again = RECIPES["pusht"].make(steps=500, seed=3, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint
    for wrong, words in ((["--steps", "0"], "--steps is 0"), (["--noise", "-1"], "-1")):
        with pytest.raises(SystemExit):
            main(["data", "make", "pusht", "--root", str(tmp_path), *wrong])
        assert words in capsys.readouterr().err


def idle_run(path, environment=pusht.ENVIRONMENT):
    """A run whose policy stays where it is."""

    def act(states, carry, key, observation, reset, goal=None):
        return ActOutput(action=observation[:, :2]), carry

    document = {
        "dataset": {
            "name": "pusht",
            "environment": environment,
            "references": {},
            "action_dim": 2,
        }
    }
    algorithm = Algorithm({}, act, lambda batch: jnp.zeros(batch))
    return Run(path, "idle", None, None, algorithm, {}, document)


@simulated
def test_success_is_the_score(tmp_path):
    record, rollouts = evaluate_run(idle_run(tmp_path), episodes=2, num_envs=2)
    assert (record["success_rate"], record["score"]) == (0.0, 0.0)
    assert record["mean_length"] == 300
    assert not rollouts.successes.any()


@simulated
def test_the_benchmark_counts_ways_and_successes(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "load_run", lambda path, overrides: idle_run(path))
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    options = benchmark.Options(
        runs=(Path("a"),), methods=("still",), episodes=1, repeats=6
    )
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "pusht.json").read_text())
    found = {(r["setting"], r["method"], r["metric"]): r["value"] for r in rows}
    assert found["pusht-one-start", "demonstrator", "success"] == 1.0
    assert 0 < found["pusht-one-start", "demonstrator", "right_hand"] < 1
    assert found["pusht", "still", "success"] == 0.0
    assert found["pusht", "still", "steps"] == 300
    # Who never touches the block covers what it lay on; who succeeds all but 5%.
    assert 0 <= found["pusht", "still", "coverage"] < 0.95
    assert found["pusht", "demonstrator", "coverage"] == pytest.approx(0.95)
    assert (tmp_path / "figures" / "pusht.png").is_file()


def test_the_benchmark_refuses_other_runs(monkeypatch):
    monkeypatch.setattr(
        benchmark, "load_run", lambda path, overrides: idle_run(path, "Other-v0")
    )
    one = (Path("a"),)
    for options, words in (
        (benchmark.Options(runs=one), "no run of PushT"),
        (benchmark.Options(runs=one, methods=("x", "y")), "2 entries for 1 runs"),
        (benchmark.Options(runs=(), methods=("x",)), "1 entries for 0 runs"),
    ):
        with pytest.raises(UserError, match=words):
            list(benchmark._players(options))


def test_success_is_read_under_either_name():
    def env_of(info):
        return types.SimpleNamespace(
            reset=lambda seed, options: (np.zeros(3), {}),
            step=lambda action: (np.zeros(3), 0.0, True, False, info),
        )

    infos = [{"success": True}, {"is_success": True}, {"is_success": False}, {}]
    wave = play_wave(
        lambda observation, goal, reset: (np.zeros((4, 2)), None),
        [env_of(info) for info in infos],
        [0, 1, 2, 3],
    )
    assert wave["successes"].tolist() == [True, True, False, False]


def test_the_peak_is_the_best_reward_of_an_episode():
    rewards = iter([-2.0, 0.75, 0.25])
    left = [2, 1, 0]

    def step(action):
        return np.zeros(3), next(rewards), left.pop(0) == 0, False, {}

    env = types.SimpleNamespace(
        reset=lambda seed, options: (np.zeros(3), {}), step=step
    )
    wave = play_wave(lambda *_: (np.zeros((1, 2)), None), [env], [0])
    assert (wave["peaks"].tolist(), wave["returns"].tolist()) == ([0.75], [-1.0])


def test_the_picture_has_a_path_for_each_episode():
    line = np.linspace([400, 400, 200, 200, 0.8], [300, 100, 256, 256, 0.8], 20)
    other = line.copy()
    other[:, 0] = 420
    panels = {"two": [line, other, line], "one": [other]}
    figure = plot_pushes(panels, {"two": [1, -1, 1], "one": [-1]})
    assert [axes.get_title() for axes in figure.axes] == ["two", "one"]
    assert len([one for one in figure.axes[1].lines if one.get_gid() == "agent"]) == 1
    paths = [one for one in figure.axes[0].lines if one.get_gid() == "agent"]
    assert len(paths) == 3
    assert paths[0].get_color() == paths[2].get_color() != paths[1].get_color()
    np.testing.assert_allclose(paths[1].get_xdata(), 420)
    low, high = figure.axes[0].get_ylim()
    assert low > high  # y goes down
