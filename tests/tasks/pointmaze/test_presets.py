"""Presets are those of release 0.1 in D4RL's mazes, and scale with other mazes."""

import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Layout, Spec
from jaxdiff.tasks.lookup import find_preset, presets_of
from jaxdiff.tasks.pointmaze.presets import PRESETS
from jaxdiff.tasks.pointmaze.world import MAZES, environment_of

SPEC = Spec((4,), 2, 2, Layout(position=(0, 1), velocity=(2, 3), goal=(0, 1, 2, 3)))


def data_of(environment, setting="multi"):
    return Dataset(
        name="data",
        episodes=None,
        observation_shape=(4,),
        fingerprint="",
        environment=environment,
        evaluation=environment,
        metadata={"setting": setting},
    )


def preset(algorithm, name, maze, setting="multi"):
    environment = environment_of(MAZES[maze])
    return PRESETS[algorithm, name](data_of(environment, setting), SPEC)


@pytest.mark.parametrize(
    ("maze", "config", "acting", "updates"),
    [
        (
            "umaze",
            {"horizon": 128, "train_horizons": (40, 72, 104), "dim_mults": (1, 2, 4)},
            {"sampling_steps": 4, "spacing": "quadratic", "candidates": 2, "lost": 0.5},
            3_000,
        ),
        (
            "medium",
            {"horizon": 256, "horizons": (48, 80, 112, 144, 184, 224, 272, 320)},
            {"sampling_steps": 16, "candidates": 4, "choose": "earliest"},
            14_000,
        ),
        (
            "large",
            {"horizon": 384, "train_horizons": (128, 224, 320), "patch": 4},
            {"sampling_steps": 16, "candidates": 16, "slack": 1.15},
            22_000,
        ),
    ],
)
def test_a_laptop_has_the_options_of_its_maze(maze, config, acting, updates):
    found = preset("diffuser", "demo", maze)
    assert {name: getattr(found.config, name) for name in config} == config
    assert {name: getattr(found.acting, name) for name in acting} == acting
    assert found.training["denoiser"].num_steps == updates
    assert found.config.learning_rate_decay == (0.0 if maze == "umaze" else 1.0)


def test_paper_and_code_of_diffuser_differ():
    for maze, horizons in {"umaze": (128, 128), "medium": (256, 264)}.items():
        code, paper = (preset("diffuser", name, maze) for name in ("released", "paper"))
        assert (code.config.horizon, paper.config.horizon) == horizons
        assert (code.config.learning_rate, paper.config.learning_rate) == (2e-4, 4e-5)
        assert code.training["denoiser"].num_steps == 2_000_000
        assert paper.training["denoiser"].num_steps == 500_000
        assert code.acting == paper.acting


def test_decision_diffuser_has_diffusers_network_and_is_told_what_pays():
    diffuser = preset("diffuser", "demo", "medium")
    multi, single = (
        preset("decision-diffuser", "demo", "medium", setting)
        for setting in ("multi", "single")
    )
    for name in ("horizon", "horizons", "dim_mults", "normalizer", "goal_dim"):
        assert getattr(multi.config, name) == getattr(diffuser.config, name)
    assert (multi.config.discount, multi.config.termination_penalty) == (0.99, 0)
    assert (multi.acting.choose, single.acting.choose) == ("earliest", "fixed")
    assert (single.config.goal_dim, single.acting.replan_every) == (0, 32)
    assert set(multi.training) == {"denoiser", "inverse"}
    # Few steps were compared for Diffuser alone.
    acting = preset("decision-diffuser", "demo", "umaze").acting
    assert (acting.sampling_steps, acting.spacing) == (32, "even")


def corridor(cells):
    walls = [1] * (cells + 2)
    kwargs = {"maze_map": [walls, [1, *[0] * cells, 1], walls]}
    return data_of(Environment("PointMaze_UMaze-v3", kwargs))


def test_horizons_scale_with_the_longest_path_of_another_maze():
    # Paths of 2, 11 and 38 steps: a third of the U-maze's, the medium's, twice the
    # large one's.
    for cells, horizon, updates in (
        (3, 40, 1_000),
        (12, 256, 14_000),
        (39, 768, 44_000),
    ):
        found = PRESETS["diffuser", "demo"](corridor(cells), SPEC)
        assert found.config.horizon == horizon
        assert found.training["denoiser"].num_steps == updates
        assert PRESETS["diffuser", "released"](corridor(cells), SPEC)


@pytest.mark.parametrize("key", PRESETS, ids=" ".join)
def test_every_preset_builds_options_of_its_algorithm(key):
    algorithm, name = key
    entry = ALGORITHMS.find(algorithm)
    for maze in MAZES:
        for setting in ("multi", "single"):
            found = preset(algorithm, name, maze, setting)
            assert type(found.config) is entry.config
            assert type(found.acting) is entry.acting
            assert found.training


def test_a_maze_is_found_by_its_environment_and_starts_with_the_demo():
    dataset = data_of(environment_of(MAZES["medium"]))
    assert presets_of("diffuser", dataset) == ["demo", "released", "paper", "generic"]
    found = find_preset("diffuser", dataset, SPEC)
    assert found.name == "demo"
    assert found.config.horizon == 256
