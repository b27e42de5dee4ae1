"""Every preset of every algorithm can be built, and trains the learners it has."""

import pytest
from points import straight_lines

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.tasks.offline_presets import OFFLINE
from jaxdiff.tasks.presets import PRESETS, preset

DATA = straight_lines(4)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("algorithm", OFFLINE)
def test_presets_train_the_learners_that_there_are(algorithm, name):
    for dataset in ("pointmaze-umaze", "hopper-medium-v2", "antmaze-large-play-v2"):
        config, training = preset(algorithm, name, dataset)
        entry = ALGORITHMS[algorithm]
        assert type(config) is entry.config
        if dataset == "pointmaze-umaze":
            built = entry.build(config, entry.measure(config, DATA), action_dim=2)
            assert list(built.learners) == list(training)
    # What is released is trained on raw observations, a laptop's on normalised ones.
    if algorithm != "td3-bc":
        assert config.normalizer == ("gaussian" if name == "demo" else "none")


def test_a_laptop_trains_for_less():
    for algorithm in OFFLINE:
        for dataset in ("hopper-medium-v2", "antmaze-umaze-v2"):
            _, short = preset(algorithm, "demo", dataset)
            _, long = preset(algorithm, "released", dataset)
            for learner in long:
                assert short[learner].num_steps < long[learner].num_steps
