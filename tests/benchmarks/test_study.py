"""The study of maze options: its variants."""

import dataclasses

import pytest

from benchmarks import study
from benchmarks.study import VARIANTS, variant
from jaxdiff.algorithms.planning.diffuser import declared_horizons
from jaxdiff.errors import UserError


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_names_and_can_be_built(name):
    plain, usual = variant("plain", "pointmaze-medium", 10)
    config, training = variant(name, "pointmaze-medium", 10)
    changes = VARIANTS[name]
    for key in changes:
        where = training if key == "batch_size" else config
        assert getattr(where, key) == changes[key]
    same = {key: getattr(plain, key) for key in changes if key != "batch_size"}
    assert dataclasses.replace(config, **same) == plain
    assert dataclasses.replace(training, batch_size=usual.batch_size) == usual
    assert declared_horizons(config)


def test_a_variant_unheard_of_is_refused():
    with pytest.raises(UserError, match="no variant 'best'"):
        study.main(study.Options(variants=("best",)))
