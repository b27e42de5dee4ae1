"""Every preset of every task has the options of its algorithm, and can be built."""

import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.tasks.antmaze import TASK as ANTMAZE
from jaxdiff.tasks.locomotion import TASK as LOCOMOTION
from jaxdiff.tasks.lookup import TASKS
from jaxdiff.tasks.offline import Numbers, offline_presets

_LINES = straight_lines(4)
DATA = _LINES.replace(
    # Returns must differ where rewards are scaled by their range.
    rewards=np.arange(len(_LINES.rewards), dtype=np.float32)
)
SPEC = Spec((2,), 2, 2)
OFFLINE = offline_presets(lambda dataset: Numbers())


def dataset_in(environment):
    return Dataset("lines", DATA, (2,), "", evaluation=Environment(environment))


def _cases():
    for task in (LOCOMOTION, ANTMAZE):
        for key in task.presets:
            yield pytest.param(task, key, id=f"{task.name}-{'-'.join(key)}")


@pytest.mark.parametrize(("task", "key"), list(_cases()))
def test_presets_train_the_learners_that_there_are(task, key):
    entry = ALGORITHMS[key[0]]
    preset = task.presets[key](dataset_in(task.environments[0]), SPEC)
    assert type(preset.config) is entry.config
    assert type(preset.acting) is entry.acting
    statistics = entry.measure(preset.config, DATA, SPEC)
    built = entry.build(preset.config, preset.acting, statistics, SPEC)
    assert set(built.learners) == set(preset.training)


@pytest.mark.parametrize(("algorithm", "name"), OFFLINE)
def test_what_is_released_is_trained_on_raw_observations(algorithm, name):
    dataset = dataset_in("Toy-v0")
    config = OFFLINE[algorithm, name](dataset, SPEC).config
    if algorithm != "td3-bc":  # the paper normalises states
        assert config.normalizer == ("gaussian" if name == "demo" else "none")
    assert config.scale_actions == (name == "demo")
    assert config.rewards == "raw"


def test_a_laptop_trains_for_less():
    for task in (LOCOMOTION, ANTMAZE):
        dataset = dataset_in(task.environments[0])
        for algorithm in {owner for owner, name in task.presets if name == "released"}:
            short = task.presets[algorithm, "demo"](dataset, SPEC).training
            long = task.presets[algorithm, "released"](dataset, SPEC).training
            assert short.keys() == long.keys()
            for learner in long:
                assert short[learner].num_steps < long[learner].num_steps


def _papers():
    for task in TASKS.values():
        for algorithm, name in task.presets:
            if name == "paper":
                yield pytest.param(task, algorithm, id=f"{task.name}-{algorithm}")


@pytest.mark.parametrize(("task", "algorithm"), list(_papers()))
def test_the_paper_has_presets_where_it_differs_from_what_is_released(task, algorithm):
    """In every environment of the task, and in what is trained, not how long."""
    for environment in task.environments:
        dataset = dataset_in(environment)
        paper, released = (
            task.presets[algorithm, name](dataset, SPEC)
            for name in ("paper", "released")
        )
        assert paper.config != released.config, environment
