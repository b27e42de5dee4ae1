import pytest

from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.tasks.locomotion import TASK
from jaxdiff.tasks.locomotion.presets import quality_of

SPEC = Spec((11,), 3)


def preset(algorithm, name, environment, dataset_id=""):
    dataset = Dataset(
        "data",
        None,
        (11,),
        "",
        evaluation=Environment(environment),
        metadata={"dataset_id": dataset_id} if dataset_id else {},
    )
    return TASK.presets[algorithm, name](dataset, SPEC)


def test_all_versions_that_gymnasium_registers_belong_to_the_task():
    import gymnasium

    names = ("Hopper", "Walker2d", "HalfCheetah")
    known = {id for id in gymnasium.registry if id.rpartition("-v")[0] in names}
    assert set(TASK.environments) == known


@pytest.mark.parametrize(
    ("metadata", "quality"),
    [
        ({"dataset_id": "mujoco/hopper/medium-v0"}, "medium"),
        ({"dataset_id": "D4RL/hopper-medium-replay-v2"}, "medium-replay"),
        ({"dataset_id": "mujoco/walker2d/expert-v0"}, "expert"),
        ({"dataset_id": "hopper-medium-v0", "quality": "simple"}, "simple"),
        # Whole words only.
        ({"dataset_id": "my/mediumwave-expertise-v0"}, ""),
        ({}, ""),
    ],
)
def test_the_quality_is_what_the_dataset_says(metadata, quality):
    assert quality_of(metadata) == quality


def test_diffuser_has_the_released_options():
    config, acting, training, _ = preset("diffuser", "released", "Hopper-v4")
    assert (config.horizon, config.diffusion_steps) == (32, 20)
    assert config.dim_mults == (1, 2, 4, 8)
    assert config.normalizer == "gaussian"
    assert config.clip is None
    assert config.return_model
    assert acting.candidates == 64
    assert (acting.guide_scale, acting.guide_steps, acting.guide_stop) == (0.1, 2, 2)
    assert (acting.rank, acting.replan_every) == ("return", 1)
    assert training["denoiser"].num_steps == 1_000_000
    assert training["returns"].num_steps == 200_000
    cheetah = preset("diffuser", "released", "HalfCheetah-v5")
    assert (cheetah.config.horizon, cheetah.config.attention) == (4, True)
    assert cheetah.acting.guide_scale == 1e-3


def test_diffuser_has_a_laptops_options():
    config, acting, training, _ = preset("diffuser", "demo", "Hopper-v5")
    assert (config.prediction, config.dim_mults) == ("v", (1, 2, 4))
    assert (config.learning_rate, config.learning_rate_decay) == (1e-3, 1.0)
    assert (acting.sampling_steps, acting.temperature) == (5, 0.5)
    assert (acting.candidates, acting.replan_every) == (8, 4)
    assert training["denoiser"].num_steps == 20_000


def test_the_guidance_depends_on_the_quality():
    named = ("Hopper-v4", "D4RL/hopper/medium-expert-v2")
    for name, scale in (("demo", 1e-2), ("released", 1e-4)):
        acting = preset("diffuser", name, *named).acting
        assert (acting.guide_scale, acting.guide_stop) == (scale, 4)
    assert preset("diffuser", "paper", *named).acting.guide_at == "mean"
    config = preset("decision-diffuser", "released", *named).config
    assert config.return_range == (0.0, 400.0)


def test_decision_diffuser_has_the_options_of_code_and_paper():
    released = preset("decision-diffuser", "released", "Walker2d-v3")
    assert (released.config.horizon, released.config.diffusion_steps) == (100, 200)
    assert (released.config.dim, released.acting.target) == (128, 0.9)
    assert released.acting.temperature == 0.5
    scales = (released.config.normalizer, released.config.inverse_normalizer)
    assert scales == ("cdf", "cdf")
    paper = preset("decision-diffuser", "paper", "Walker2d-v3")
    assert (paper.config.history, paper.config.diffusion_steps) == (20, 100)
    assert paper.acting.target == 1.0
    demo = preset("decision-diffuser", "demo", "Walker2d-v3")
    assert (demo.config.normalizer, demo.config.clip) == ("cdf", 1.0)
    assert (demo.acting.candidates, demo.acting.replan_every) == (1, 4)


def test_offline_numbers_depend_on_robot_and_quality():
    def numbers(environment, dataset_id):
        srpo = preset("srpo", "released", environment, dataset_id).config
        ql = preset("diffusion-ql", "released", environment, dataset_id).config
        return srpo.temperature, ql.max_gradient

    assert numbers("Hopper-v4", "hopper-medium-v2") == (0.05, 9.0)
    assert numbers("Hopper-v4", "hopper-medium-replay-v2") == (0.2, 4.0)
    assert numbers("Walker2d-v5", "mujoco/walker2d/medium-v0") == (0.05, 1.0)
    assert numbers("HalfCheetah-v2", "halfcheetah-medium-expert-v2") == (0.01, 7.0)
    assert numbers("HalfCheetah-v2", "") == (0.2, 9.0)
    iql = preset("iql", "released", "Hopper-v4")
    assert (iql.config.rewards, iql.config.expectile) == ("range", 0.7)
    assert iql.config.policy_decay == 1.0
    assert preset("bear", "demo", "Walker2d-v4").config.kernel == "gaussian"
    assert preset("bear", "demo", "Hopper-v4").config.kernel != "gaussian"
    assert preset("idql", "released", "Hopper-v4").acting.candidates == 64
