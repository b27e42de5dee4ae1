import numpy as np
import pytest

from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.tasks.antmaze import TASK

SPEC = Spec((29,), 8, 2)


def preset(algorithm, name, environment, dataset_id=""):
    dataset = Dataset(
        "data",
        None,
        (29,),
        "",
        evaluation=Environment(environment),
        metadata={"dataset_id": dataset_id} if dataset_id else {},
    )
    return TASK.presets[algorithm, name](dataset, SPEC)


@pytest.mark.parametrize("size", [27, 105])
def test_the_position_comes_first(size):
    raw = {
        "observation": np.arange(3.0 * size).reshape(3, size),
        "achieved_goal": np.full((3, 2), -1.0),
        "desired_goal": np.full((3, 2), 7.0),
    }
    seen, goal = TASK.split(raw)
    assert seen.shape == (3, size + 2)
    np.testing.assert_array_equal(seen[:, :2], raw["achieved_goal"])
    np.testing.assert_array_equal(seen[:, 2:], raw["observation"])
    np.testing.assert_array_equal(goal, raw["desired_goal"])


def test_observations_that_have_the_position_stay_as_they_are():
    raw = np.arange(58.0).reshape(2, 29)
    seen, goal = TASK.split(raw)
    np.testing.assert_array_equal(seen, raw)
    assert goal is None
    both = {"observation": raw, "achieved_goal": raw[:, :2], "desired_goal": raw[:, :2]}
    np.testing.assert_array_equal(TASK.split(both)[0], raw)


def test_a_live_maze_shows_what_stored_data_show():
    pytest.importorskip("gymnasium_robotics")
    env = TASK.make_env(Environment("AntMaze_UMaze-v4", {}, 20), TASK.options())
    seen, _ = env.reset(seed=0)
    raw = env.unwrapped
    np.testing.assert_allclose(seen["observation"][:2], raw.ant_env.data.qpos[:2])
    assert seen["observation"].shape == (29,)
    assert seen["desired_goal"].shape == (2,)
    assert env.spec.max_episode_steps == 20
    env.close()


def test_all_mazes_that_are_registered_belong_to_the_task():
    gymnasium_robotics = pytest.importorskip("gymnasium_robotics")
    import gymnasium

    gymnasium.register_envs(gymnasium_robotics)
    known = {id for id in gymnasium.registry if id.startswith("AntMaze_")}
    assert set(TASK.environments) == known


def test_numbers_depend_on_the_maze_and_on_the_kind_of_data():
    def numbers(environment, dataset_id=""):
        srpo = preset("srpo", "released", environment, dataset_id).config
        ql = preset("diffusion-ql", "released", environment, dataset_id).config
        return (
            srpo.temperature,
            ql.max_gradient,
            ql.eta,
            ql.backup_candidates,
            ql.learning_rate,
        )

    umaze, medium = "AntMaze_UMaze-v4", "AntMaze_Medium_Diverse_GR-v4"
    large = "AntMaze_LargeDense-v5"
    assert numbers(umaze, "D4RL/antmaze/umaze-v1") == (0.02, 2.0, 0.5, 1, 3e-4)
    diverse = "D4RL/antmaze/umaze-diverse-v1"
    assert numbers(umaze, diverse) == (0.04, 3.0, 2.0, 1, 3e-4)
    play = "D4RL/antmaze/medium-play-v1"
    assert numbers(medium, play) == (0.08, 2.0, 2.0, 10, 1e-3)
    assert numbers(medium) == (0.05, 1.0, 3.0, 10, 3e-4)
    assert numbers(large) == (0.05, 7.0, 3.5, 10, 3e-4)
    assert numbers("AntMaze_Open-v4") == numbers(large)


def test_sparse_rewards_have_options_of_their_own():
    large = "AntMaze_Large-v4"
    iql = preset("iql", "released", large).config
    assert (iql.rewards, iql.expectile, iql.temperature) == ("minus-one", 0.9, 10.0)
    srpo = preset("srpo", "released", large).config
    # The policy alone is deeper there.
    assert (srpo.unit_gradient, srpo.policy_widths) == (True, (256,) * 4)
    assert srpo.widths == (256, 256)
    assert preset("cql", "demo", large).config.rewards == "centred"
    assert preset("fql", "demo", large).config.alpha == 3.0
    assert preset("fql", "demo", "AntMaze_UMaze-v4").config.alpha == 10.0
    fql = preset("fql", "released", large).config
    assert (fql.widths, fql.layer_norm, fql.alpha) == ((512,) * 4, True, 3.0)
    assert preset("td3-bc", "released", large).config.normalizer == "none"
