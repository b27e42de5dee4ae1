"""Doom: its demonstrator, and where ViZDoom is there, the game."""

import sys

import numpy as np
import pytest

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.tasks.doom import TASK
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.environment import make_env
from jaxdiff.tasks.doom.play import Demonstrator, DoomOptions
from jaxdiff.tasks.doom.world import DemonstratorState, Monster, demonstrate
from jaxdiff.tasks.lookup import load_dataset


def installed():
    try:
        make_env()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="vizdoom is not installed")


def monster(number=0, *, right, down=0.0, size=20.0):
    """A monster whose middle stands so many degrees off the picture's."""
    x, y = doom.FOCAL * np.tan(np.deg2rad([right, down])) + [140, 75]
    return Monster(number, x - size / 2, y - size / 2, size, size)


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
        assert doom.block_of(Environment(doom.ENVIRONMENTS[block])) == block


def test_a_missing_game_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(UserError, match=r'pip install "jaxdiff\[doom\]"'):
        make_env()


def box(env):
    (one,) = env.unwrapped.monsters()
    return one


@simulated
def test_an_action_turns_by_as_much_as_it_says():
    env = make_env(labels=True)
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
    env = make_env(4, labels=True)

    def play(seed):
        shown, _ = env.reset(seed=seed)
        assert env.observation_space.contains(shown)
        pictures, rewards, player = [], [], Demonstrator([env], [0])
        for _ in range(60):
            action = player(None)[0]
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


@pytest.mark.slow
@simulated
def test_the_dataset_holds_pictures_as_bytes(tmp_path):
    recipe = TASK.recipes["doom-quarter"]
    recipe.make(steps=150, seed=3, root=tmp_path)
    dataset = load_dataset("doom-quarter", root=tmp_path)
    episodes = dataset.episodes
    assert episodes.lengths.tolist() == [150]
    assert not episodes.terminated.any()
    assert episodes.observations.dtype == np.uint8
    assert episodes.observations.shape == (151, 38 * 70 * 3)
    assert dataset.observation_shape == (38, 70, 3)
    assert dataset.environment.id == doom.ENVIRONMENTS[4]
    assert set(np.unique(episodes.actions[:-1, 2])) == {-1, 1}
    per_tic = episodes.rewards.sum() / 150
    assert dataset.references["expert"] == pytest.approx(2100 * per_tic)
    assert dataset.references["random"] < 30
    again = recipe.make(steps=150, seed=3, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint
    with pytest.raises(UserError, match="`steps` is 0"):
        recipe.make(steps=0, root=tmp_path)


@simulated
def test_policies_see_flat_pictures():
    recorded = {"block": 4, "labels": True}
    env = TASK.make_env(Environment(doom.ENVIRONMENTS[4], recorded), DoomOptions())
    shown, _ = env.reset(seed=0)
    assert shown.shape == env.observation_space.shape == (38 * 70 * 3,)
    assert shown.dtype == np.uint8
    env.close()
