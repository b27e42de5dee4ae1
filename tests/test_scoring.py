"""Scores and intervals: known answers, and how often an interval holds the truth."""

import numpy as np
import pytest

from jaxdiff.errors import UserError
from jaxdiff.scoring import bootstrap, on_scale, reference_scores, score

RNG = np.random.default_rng(0)
CHANCE, EXPERT = RNG.uniform(0, 20, 40), RNG.uniform(100, 200, 40)


def test_score_runs_from_random_to_expert():
    assert score(CHANCE, CHANCE, EXPERT) == (0.0, 0.0, 0.0)
    assert score(EXPERT, CHANCE, EXPERT) == (100.0, 100.0, 100.0)
    value, low, high = score((CHANCE + 3 * EXPERT) / 4, CHANCE, EXPERT)
    np.testing.assert_allclose([value, low, high], 75.0)


def test_score_may_leave_the_scale():
    assert score(EXPERT + 50, CHANCE, EXPERT)[0] > 100
    assert score(CHANCE - 5, CHANCE, EXPERT)[0] < 0


def test_interval_of_a_score_holds_it_and_is_the_seeds():
    returns = RNG.uniform(0, 200, 40)
    value, low, high = score(returns, CHANCE, EXPERT)
    assert low < value < high
    assert score(returns, CHANCE, EXPERT) == (value, low, high)
    assert score(returns, CHANCE, EXPERT, seed=1)[1:] != (low, high)
    # Half the confidence, a narrower interval within.
    narrow = score(returns, CHANCE, EXPERT, confidence=0.5)
    assert low < narrow[1] < value < narrow[2] < high


def test_score_needs_an_expert_better_than_chance():
    for expert in (CHANCE, CHANCE - 1, np.zeros(40) + CHANCE.mean()):
        with pytest.raises(UserError, match=r"40 episodes .*more `episodes`"):
            score(EXPERT, CHANCE, expert)


def test_few_episodes_of_which_one_pays_all_alike_have_an_interval():
    # One draw in four holds the first episode only, where 0 / 0 says nothing.
    value, low, high = score(np.array([5.0, 30]), np.zeros(2), np.array([0.0, 50]))
    np.testing.assert_allclose([value, low, high], [70, 60, 70])


def test_interval_is_of_its_statistic():
    # The last axis is resampled, and what belongs to one episode stays together.
    x = RNG.normal(size=30)
    assert bootstrap([x, x + 1], lambda drawn: (drawn[1] - drawn[0]).mean()) == (
        pytest.approx(1.0), pytest.approx(1.0),
    )  # fmt: skip
    assert bootstrap([1.0] * 9 + [100.0], np.median) == (1.0, 1.0)


def test_interval_of_a_mean_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for repeat in range(300):
        low, high = bootstrap(rng.exponential(size=40), draws=300, seed=repeat)
        hits += low < 1.0 < high
    assert 0.88 < hits / 300 < 0.98


def test_interval_shrinks_with_the_root_of_n():
    x = np.random.default_rng(2).normal(3.0, 2.0, 1600)
    low, high = bootstrap(x)
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2 / 40, rtol=0.1)
    few = bootstrap(x[:100])
    np.testing.assert_allclose((few[1] - few[0]) / (high - low), 4, rtol=0.25)
    assert bootstrap(np.ones(10)) == (1.0, 1.0)


def test_a_return_is_put_on_the_scale_of_two_references():
    assert on_scale(3.0, 1.0, 5.0) == 50.0
    found = reference_scores({"random": 1.0, "expert": 5.0}, 3.0, (2.0, 6.0))
    assert found == {"score": 50.0, "score_low": 25.0, "score_high": 125.0}


@pytest.mark.parametrize(
    "references",
    [
        {},
        {"random": 1.0},
        {"random": 2.0, "expert": 2.0},
        {"random": 2.0, "expert": 1.0},
        {"random": 0.0, "expert": float("nan")},
    ],
)
def test_references_that_span_no_scale_give_no_score(references):
    assert reference_scores(references, 3.0, (2.0, 6.0)) == {}
