import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.planning.receding_horizon import Plans, cost, strain
from jaxdiff.algorithms.planning.support import fit_support, ood_distance

RNG = np.random.default_rng(0)
RING = RNG.uniform(0, 2 * np.pi, 20_000)
RING = np.stack([np.cos(RING), np.sin(RING)], axis=1).astype(np.float32)


@pytest.mark.parametrize("count", [2, 101, 20_000])
def test_the_data_themselves_depart_as_rarely_as_declared(count):
    support = fit_support(RING[:count])
    assert len(support.states) == min((count + 1) // 2, 4096)
    found = np.asarray(ood_distance(support, RING[:, None]))
    if count == 20_000:
        assert 0.9975 < np.mean(found <= 1) < 1
        # The nearest of K random states on a circle: the gap beside one has an
        # exponential law of mean 2 pi / K, and the limit is its quantile.
        gap = 2 * np.pi / 4096
        assert support.limit == pytest.approx(gap / 2 * np.log(1000), rel=0.25)
    kept = ood_distance(support, support.states[:, None])
    np.testing.assert_allclose(kept * support.limit, 0, atol=1e-3)


def test_one_step_that_leads_away_is_enough_and_its_distance_counts():
    support = fit_support(RING)
    path = np.repeat(RING[:1], 8, axis=0)
    away = path.copy()
    away[5] *= 1.3
    near, far = np.asarray(ood_distance(support, np.stack([path, away])))
    assert near <= 1
    assert far * support.limit == pytest.approx(0.3, abs=0.01)
    through = np.linspace(RING[0], -RING[0], 9)  # across the hole, to the centre
    assert ood_distance(support, through) * support.limit == pytest.approx(1, abs=0.01)


def test_without_goals_nothing_departs():
    support = fit_support(RING[:, :0])
    found = np.asarray(ood_distance(support, np.zeros((3, 2, 8, 0))))
    np.testing.assert_array_equal(found, np.zeros((3, 2)))


def test_states_that_are_all_the_same_have_a_limit():
    support = fit_support(np.ones((50, 2)))
    assert support.limit > 0
    assert np.isfinite(ood_distance(support, np.ones((4, 2))))
    assert ood_distance(support, np.full((4, 2), 1.1)) > 1


def test_a_plan_through_a_wall_comes_after_those_that_go_round():
    plans = Plans(
        trajectories=jnp.zeros((1, 4, 2, 2)),
        dynamics_error=jnp.array([[1.0, 70.0, 2.0, 80.0]]),
        ood_distance=jnp.array([[1.5, 0.9, 4.0, 0.2]]),
    )
    assert list(np.argsort(cost(plans, "consistency")[0])) == [1, 3, 0, 2]
    unseen = Plans(plans.trajectories, plans.dynamics_error)
    np.testing.assert_array_equal(strain(unseen), plans.dynamics_error)
