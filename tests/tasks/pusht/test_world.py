"""PushT's demonstrator: its geometry, and where gym-pusht is there, what it does."""

import sys

import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.rollouts import Rollouts
from jaxdiff.tasks.lookup import load_dataset
from jaxdiff.tasks.pusht import TASK
from jaxdiff.tasks.pusht import world as pusht
from jaxdiff.tasks.pusht.environment import make_raw
from jaxdiff.tasks.pusht.recipe import record_episode

# The block to the upper left, the agent to its lower right: either way round will do.
START = np.array([400.0, 400.0, 200.0, 200.0, np.pi / 4])


def installed():
    try:
        make_raw()
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
        make_raw()


def play(*, hand, seed=0, noise=0.0, start=None):
    rng = np.random.default_rng(seed)
    env = make_raw()
    return record_episode(env, hand, rng, seed=seed, noise=noise, start=start)


@simulated
def test_the_block_moves_as_the_model_says():
    env = make_raw()
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
def test_the_dataset_holds_successes(tmp_path):
    recipe = TASK.recipes["pusht"]
    recipe.make(steps=500, seed=3, root=tmp_path)
    dataset = load_dataset("pusht", root=tmp_path)
    episodes = dataset.episodes
    assert episodes.terminated.all()
    assert episodes.lengths.sum() >= 500 > episodes.lengths[:-1].sum()
    assert episodes.observations.shape[1] == 5
    assert episodes.actions.min() >= 0
    assert episodes.actions.max() <= 512
    assert dataset.environment.id == pusht.ENVIRONMENT
    again = recipe.make(steps=500, seed=3, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint


def test_bad_requests_are_one_sentence(tmp_path):
    recipe = TASK.recipes["pusht"]
    assert recipe.options().noise == 4.0
    for wrong, words in (
        ({"steps": 0}, "`steps` is 0"),
        ({"noise": -1.0}, "`noise` is -1.0; it must be at least 0"),
    ):
        with pytest.raises(UserError, match=words):
            recipe.make(**{"steps": 5, "root": tmp_path, **wrong})


def idle_run(path):
    """A run whose policy stays where it is."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=observation[:, :2]), carry

    return stub_run(path, act, pusht.ENVIRONMENT, observation_shape=(5,), action_dim=2)


@simulated
def test_success_is_the_score(tmp_path):
    record, played = evaluate(idle_run(tmp_path), episodes=2, num_envs=2)
    assert (record["success_rate"], record["score"]) == (0.0, 0.0)
    assert (record["score_low"], record["score_high"]) == (0.0, 0.0)
    assert record["mean_length"] == 300
    assert not played.successes.any()
    figure = TASK.draw(idle_run(tmp_path), played)
    assert figure.axes[0].get_title() == "stub"


def test_the_score_is_the_rate_of_success():
    played = Rollouts(
        returns=np.array([5.0, 9.0, 7.0, 3.0]),
        peaks=np.ones(4),
        successes=np.array([True, False, True, True]),
        lengths=np.full(4, 20),
        observations=np.zeros((4, 21, 5)),
        goals=None,
        plans=None,
    )
    record = TASK.score(played, None, {"random": 0.0, "expert": 1.0})
    assert record["score"] == 75
    assert record["score_low"] < 75 < record["score_high"] <= 100
    assert record["mean_return"] == 6
    assert TASK.layout(None).position == (0, 1)
