"""Presets of bc and diffusion-bc keep the options of release 0.1."""

import pytest

from jaxdiff.data.spec import Spec
from jaxdiff.tasks.claw import TASK as CLAW
from jaxdiff.tasks.doom import TASK as DOOM
from jaxdiff.tasks.kitchen import TASK as KITCHEN
from jaxdiff.tasks.pusht import TASK as PUSHT

PICTURE = Spec((32, 32, 3), 2)


def preset(task, algorithm, name, spec):
    return task.presets[algorithm, name](None, spec)


@pytest.mark.parametrize("name", ["demo", "released"])
@pytest.mark.parametrize("task", [CLAW, DOOM, KITCHEN, PUSHT])
def test_both_algorithms_have_the_same_networks_and_training(task, name):
    plain = preset(task, "bc", name, PICTURE)
    diffusion = preset(task, "diffusion-bc", name, PICTURE)
    assert plain.training == diffusion.training
    for option in ("network", "hidden", "norm", "history", "learning_rate"):
        assert getattr(plain.config, option) == getattr(diffusion.config, option)
    assert plain.config.learning_rate_decay == 1.0
    assert set(task.presets) == {
        (algorithm, each)
        for algorithm in ("bc", "diffusion-bc")
        for each in ("demo", "released")
    }


def test_the_laptop_learns_a_smaller_model_of_the_claw():
    demo, released = (
        preset(CLAW, "diffusion-bc", name, PICTURE) for name in ("demo", "released")
    )
    assert (demo.config.network, released.config.network) == ("sieve", "transformer")
    assert (demo.config.hidden, released.config.hidden) == (128, 512)
    assert demo.training["policy"].num_steps == 22_500
    assert released.training["policy"].num_steps == 56_250
    assert released.config.ema_decay == 0.0
    assert demo.config.diffusion_steps == 50


@pytest.mark.parametrize("name", ["demo", "released"])
def test_presets_know_the_pictures_of_doom(name):
    for shape, full in (((150, 280, 3), True), ((38, 70, 3), False)):
        diffusion = preset(DOOM, "diffusion-bc", name, Spec(shape, 3)).config
        assert diffusion.history == 2
        assert diffusion.diffusion_steps == 20
        assert diffusion.schedule == ("linear_rescaled" if name == "demo" else "linear")
        assert diffusion.host_memory == full


def test_only_the_laptop_learns_offsets_in_pusht():
    demo, released = (
        preset(PUSHT, "bc", name, Spec((5,), 2)) for name in ("demo", "released")
    )
    assert (demo.config.relative, released.config.relative) == (True, False)
    assert demo.training["policy"].num_steps == 30_000
    assert released.training["policy"].save_every == 10_000
    kitchen = preset(KITCHEN, "bc", "demo", Spec((30,), 9))
    assert not kitchen.config.relative
    assert kitchen.training["policy"].num_steps == 20_000
