"""The claw machine: what its demonstrator does, and what is recorded of it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.options import NoOptions
from jaxdiff.tasks.claw import TASK
from jaxdiff.tasks.claw import world as claw
from jaxdiff.tasks.claw.environment import make_env
from jaxdiff.tasks.claw.recipe import make_claw
from jaxdiff.tasks.lookup import load_dataset, task_of

FAMILIES = ("uniform", "biased")
SCENES = [(family, i) for family in FAMILIES for i in range(7)]

# Centres of all pixels of a mask, [64, 64, 2].
GRID = np.stack(np.meshgrid(*[(np.arange(64) + 0.5) / 64] * 2), axis=-1)


def scene_of(family, i):
    return claw.scenes(family)[i]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_differ_and_toys_do_not_hide_one_another(family):
    scenes = claw.scenes(family)
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes) == 7
    for scene in scenes:
        assert (scene.image.shape, scene.image.dtype) == ((32, 32, 3), np.uint8)
        assert set(np.unique(scene.labels)) == {-1, *range(len(scene.kinds))}
        # Nothing is cut off by the frame.
        frame = np.ones((64, 64), bool)
        frame[1:-1, 1:-1] = False
        assert (scene.labels[frame] == -1).all()
        # What is drawn is where the masks are: paper elsewhere, paint within.
        whole = scene.labels.reshape(32, 2, 32, 2)
        empty, full = (whole == -1).all((1, 3)), (whole >= 0).all((1, 3))
        paper = scene.image[0, 0].astype(int)
        away = np.abs(scene.image - paper).sum(-1)
        assert np.median(away[empty]) == 0
        assert np.median(away[full]) > 100


@pytest.mark.parametrize(("family", "i"), SCENES)
def test_density_integrates_to_one_and_is_flat_on_each_toy(family, i):
    scene = scene_of(family, i)
    density = claw.density(scene, GRID)
    np.testing.assert_allclose(density.mean(), 1.0)
    assert (density[scene.labels == -1] == 0).all()
    for number, share in enumerate(scene.shares):
        mine = density[scene.labels == number]
        np.testing.assert_allclose(mine, mine[0])
        np.testing.assert_allclose(mine.sum() / 64**2, share)
    if family == "uniform":
        np.testing.assert_allclose(density[scene.labels >= 0], density.max())
    elif len(scene.kinds) == 2:
        np.testing.assert_allclose(scene.shares, [0.9, 0.1])


@pytest.mark.parametrize(("family", "i"), SCENES)
def test_samples_have_the_density(family, i):
    scene = scene_of(family, i)
    count = 20_000
    actions = claw.draw_actions(
        claw.demonstrator(scene), count, np.random.default_rng(i)
    )
    assert actions.dtype == np.float32
    toys = claw.toy_of(scene, actions)
    assert (toys >= 0).all()
    shares = np.bincount(toys, minlength=len(scene.kinds)) / count
    np.testing.assert_allclose(shares, scene.shares, atol=5 * 0.5 / np.sqrt(count))
    # Half of a toy's mass lies left of the column that halves its pixels.
    for number in range(len(scene.kinds)):
        mine = actions[toys == number, 0]
        columns = np.sort(np.nonzero(scene.labels == number)[1])
        middle = (columns[len(columns) // 2] + 0.5) / 64
        np.testing.assert_allclose(np.median(mine), middle, atol=0.03)


def test_columns_come_first_and_rows_go_down():
    scene = scene_of("uniform", 2)  # red ball upper left, blue ball lower right
    assert scene.kinds == ("red ball", "blue ball")
    assert claw.toy_of(scene, np.array([0.22, 0.34])) == 0
    assert claw.toy_of(scene, np.array([0.76, 0.68])) == 1
    assert claw.toy_of(scene, np.array([0.34, 0.22])) == -1
    red = scene.image[9:14, 5:10].mean((0, 1))
    blue = scene.image[20:25, 22:27].mean((0, 1))
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50


def test_points_outside_or_not_finite_win_nothing():
    scene = scene_of("uniform", 1)
    points = [[-0.4, 0.56], [1.0, 0.5], [0.4, 1e9], [np.nan, 0.5], [0.4, np.inf]]
    np.testing.assert_array_equal(claw.toy_of(scene, np.array(points)), [-1] * 5)
    np.testing.assert_array_equal(claw.density(scene, np.array(points)), [0] * 5)


def test_guidance_turns_to_what_a_scene_has_for_itself():
    scenes = claw.scenes("biased")
    own = np.stack([scene.labels == 1 for scene in scenes])
    shares = {
        weight: (claw.guided("biased", weight) * own).sum((1, 2))
        for weight in (0.0, 1.0, 4.0)
    }
    # Toys of one scene only are 7 times as likely there as on average, and the common
    # one, of shares 1, 0.9, ..., 0.9, is 0.9 / (6.4 / 7) times: closed form of (2).
    for weight, share in shares.items():
        rare = 0.1 * 7**weight
        common = 0.9 * (0.9 * 7 / 6.4) ** weight
        np.testing.assert_allclose(share[1:], rare / (rare + common))
        assert share[0] == 0
    np.testing.assert_allclose(shares[0.0][1:], 0.1)
    assert shares[4.0].max() > 0.99


def test_guidance_without_weight_is_the_demonstrator():
    for family in FAMILIES:
        given = [claw.demonstrator(scene) for scene in claw.scenes(family)]
        np.testing.assert_allclose(claw.guided(family, 0.0), given)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_environment_pays_for_toys(family):
    env = make_env(family)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec.id == claw.ENVIRONMENTS[family]
    assert claw.family_of(Environment(env.spec.id)) == family
    rng = np.random.default_rng(0)
    for i, scene in enumerate(claw.scenes(family)):
        on = claw.draw_actions(claw.demonstrator(scene), 1, rng)[0]
        for action, paid in ((on, 1.0), (np.zeros(2, np.float32), 0.0)):
            image, info = env.reset(options={"scene": i})
            np.testing.assert_array_equal(image, scene.image)
            _, reward, terminated, truncated, after = env.step(action)
            assert (reward, after["success"]) == (paid, bool(paid))
            assert terminated
            assert not truncated
            assert info["scene"] == i


def test_a_session_draws_every_picture_anew():
    env = make_env("uniform", plays=400)
    _, info = env.reset(seed=3)
    shown, ends = [info["scene"]], []
    for _ in range(400):
        image, _, terminated, _, info = env.step(np.zeros(2, np.float32))
        np.testing.assert_array_equal(image, scene_of("uniform", info["scene"]).image)
        shown.append(info["scene"])
        ends.append(terminated)
    assert ends == [False] * 399 + [True]
    assert np.bincount(shown, minlength=7).min() > 30
    assert env.reset(seed=3)[1]["scene"] == shown[0]
    with pytest.raises(UserError, match="choose one of uniform, biased"):
        make_env("other")


def images_of(dataset):
    assert dataset.observation_shape == claw.IMAGE_SHAPE
    return dataset.episodes.observations.reshape(-1, *dataset.observation_shape)


@pytest.mark.parametrize(
    ("recipe", "family"), [("claw", "uniform"), ("claw-biased", "biased")]
)
def test_the_dataset_is_what_the_demonstrator_does(recipe, family, tmp_path):
    TASK.recipes[recipe].make(steps=2300, root=tmp_path)
    dataset = load_dataset(recipe, root=tmp_path)
    episodes = dataset.episodes
    np.testing.assert_array_equal(episodes.lengths, [1000, 1000, 300])
    assert episodes.terminated.all()
    assert dataset.environment.id == claw.ENVIRONMENTS[family]
    assert task_of(dataset.evaluation) is TASK
    assert dataset.references["expert"] == 1.0
    assert episodes.observations.dtype == np.uint8
    assert episodes.actions.dtype == np.float32
    images = images_of(dataset)
    played = np.ones(len(images), bool)
    played[episodes.starts + episodes.lengths] = False
    assert (episodes.rewards == played).all()
    counts = []
    for scene in claw.scenes(family):
        mine = played & (images == scene.image).all((1, 2, 3))
        assert (claw.toy_of(scene, episodes.actions[mine]) >= 0).all()
        counts.append(mine.sum())
    assert sum(counts) == 2300
    np.testing.assert_allclose(counts, 2300 / 7, rtol=0.3)


def test_single_plays_load_as_episodes_of_one_transition(tmp_path):
    folder = make_claw("uniform", steps=30, plays=1, root=tmp_path)
    dataset = load_dataset(folder)
    assert dataset.episodes.lengths.tolist() == [1] * 30
    assert len(images_of(dataset)) == 60
    import minari

    assert minari.MinariDataset(folder / "data").total_steps == 30


def test_seeds_make_datasets(tmp_path):
    prints = [
        load_dataset(make_claw("uniform", steps=50, seed=seed, root=tmp_path))
        for seed in (1, 1, 2)
    ]
    one, again, other = (dataset.fingerprint for dataset in prints)
    assert one == again != other


def test_minari_makes_the_environment_again(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make_claw("biased", steps=5)
    dataset = minari.load_dataset("jaxdiff/claw/biased-v0")
    env = dataset.recover_environment()
    assert env.spec.id == "jaxdiff/ClawMachineBiased-v0"
    image, _ = env.reset(seed=0)
    assert any((image == scene.image).all() for scene in claw.scenes("biased"))


def test_bad_requests_are_one_sentence(tmp_path):
    recipe = TASK.recipes["claw"]
    with pytest.raises(UserError, match="`steps` is 0; it must be at least 1"):
        recipe.make(steps=0, root=tmp_path)
    with pytest.raises(UserError, match="`plays` is 0"):
        recipe.make(steps=5, plays=0, root=tmp_path)
    assert recipe.options is NoOptions
    assert not list(tmp_path.iterdir())


def test_policies_see_flat_pictures():
    env = TASK.make_env(Environment(claw.ENVIRONMENTS["biased"], {"plays": 3}))
    shown, _ = env.reset(options={"scene": 2})
    np.testing.assert_array_equal(shown, scene_of("biased", 2).image.ravel())
    assert shown.dtype == np.uint8
    assert env.observation_space.shape == (3072,)
    assert [env.step(np.zeros(2))[2] for _ in range(3)] == [False, False, True]
    assert set(claw.ENVIRONMENTS.values()) <= set(gymnasium.registry)
