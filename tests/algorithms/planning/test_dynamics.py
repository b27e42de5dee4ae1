import dataclasses

import numpy as np

from jaxdiff.algorithms.planning.dynamics import Dynamics, dynamics_error, fit_dynamics

ACTIONS, OBSERVATIONS, HORIZON = 2, 3, 40

RNG = np.random.default_rng(0)
# A system that neither dies out nor explodes, with a constant drift.
WEIGHTS = np.concatenate(
    [
        RNG.normal(0, 0.3, (ACTIONS, OBSERVATIONS)),
        0.9 * np.linalg.qr(RNG.normal(size=(OBSERVATIONS, OBSERVATIONS)))[0],
        RNG.normal(0, 0.1, (1, OBSERVATIONS)),
    ]
)


def simulate(count, *, noise, seed, horizon=HORIZON):
    """Windows `[count, horizon, A + O]` of the system above."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (count, horizon, ACTIONS))
    states = [rng.normal(size=(count, OBSERVATIONS))]
    for h in range(horizon - 1):
        inputs = np.concatenate([actions[:, h], states[-1], np.ones((count, 1))], 1)
        jitter = rng.normal(size=(count, OBSERVATIONS)) * noise
        states.append(inputs @ WEIGHTS + jitter)
    return np.concatenate([actions, np.stack(states, 1)], 2).astype(np.float32)


def fitted(noise, *, seed=0, count=200):
    windows = simulate(count, noise=noise, seed=seed)
    return fit_dynamics(
        windows[:, :-1].reshape(-1, ACTIONS + OBSERVATIONS),
        windows[:, 1:, ACTIONS:].reshape(-1, OBSERVATIONS),
    )


def tolerance(dynamics):
    """What 95% of windows that the model was not fitted to stay below."""
    windows = simulate(1000, noise=NOISE, seed=1)
    return np.quantile(dynamics_error(dynamics, windows), 0.95)


NOISE = np.array([0.01, 0.05, 0.2])


def test_an_exact_system_is_recovered():
    dynamics = fitted(0.0)
    np.testing.assert_allclose(dynamics.weights, WEIGHTS, atol=1e-5)
    # In units of 1 rather than of its own tiny error nothing is left.
    plain = dataclasses.replace(dynamics, scale=np.ones(OBSERVATIONS, np.float32))
    assert np.max(dynamics_error(plain, simulate(50, noise=0.0, seed=9))) < 1e-5
    assert (dynamics.scale > 0).all()
    assert np.isfinite(dynamics_error(dynamics, simulate(5, noise=0.0, seed=9))).all()


def test_scale_is_the_noise_of_each_dimension():
    dynamics = fitted(NOISE)
    np.testing.assert_allclose(dynamics.weights, WEIGHTS, atol=0.02)
    np.testing.assert_allclose(dynamics.scale, NOISE, rtol=0.05)


def test_windows_of_other_episodes_are_as_consistent_as_any():
    # Of 39 residuals, each the largest of three normal deviations, the mean of the
    # three worst: by simulation of normal numbers alone.
    deviations = np.abs(np.random.default_rng(5).normal(size=(4000, 39, 3))).max(2)
    expected = np.sort(deviations, axis=1)[:, -3:].mean(1)
    found = np.asarray(
        dynamics_error(fitted(NOISE, count=1000), simulate(2000, noise=NOISE, seed=7))
    )
    np.testing.assert_allclose(
        np.quantile(found, [0.05, 0.5, 0.95]),
        np.quantile(expected, [0.05, 0.5, 0.95]),
        rtol=0.03,
    )


def test_one_teleport_is_found_wherever_it_is():
    dynamics = fitted(NOISE)
    window = simulate(1, noise=NOISE, seed=3)[0]
    assert dynamics_error(dynamics, window) < tolerance(dynamics)
    bound = tolerance(dynamics)
    for h in (1, HORIZON // 2, HORIZON - 1):
        for dim in range(OBSERVATIONS):
            torn = window.copy()
            torn[h:, ACTIONS + dim] += 30 * NOISE[dim]
            assert dynamics_error(dynamics, torn) > bound, (h, dim)


def test_actions_that_do_not_explain_the_states_are_found():
    dynamics = fitted(NOISE)
    windows = simulate(20, noise=NOISE, seed=3)
    windows[:, :, :ACTIONS] *= -1
    assert (dynamics_error(dynamics, windows) > tolerance(dynamics)).all()


def test_the_action_of_the_last_row_explains_nothing():
    dynamics = fitted(NOISE)
    window = simulate(1, noise=NOISE, seed=3)[0]
    other = window.copy()
    other[-1, :ACTIONS] = 100.0
    assert dynamics_error(dynamics, window) == dynamics_error(dynamics, other)


def still(scale):
    """The model of a point that stays where it is, whatever the action."""
    weights = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    return Dynamics(weights=weights, scale=np.array(scale))


def test_inconsistency_by_hand():
    # 41 rows, 40 steps: the mean of the 4 worst. Three jumps of 2, 4 and 6 scales.
    window = np.zeros((41, 3), np.float32)
    window[5:, 1] += 1.0  # scale 0.5: 2
    window[10:, 2] -= 1.0  # scale 0.25: 4
    window[20:, 1] += 3.0  # scale 0.5: 6
    np.testing.assert_allclose(dynamics_error(still([0.5, 0.25]), window), 12 / 4)
    # Two dimensions that jump at once count by the worse one.
    window[20:, 2] += 1.0
    np.testing.assert_allclose(dynamics_error(still([0.5, 0.25]), window), 12 / 4)


def test_the_shortest_plan_has_a_worst_step_too():
    window = np.array([[0.0, 0.0, 0.0], [0.0, 1.5, 0.0]], np.float32)
    np.testing.assert_allclose(dynamics_error(still([0.5, 1.0]), window), 3.0)


def test_batches_of_any_shape():
    dynamics = fitted(NOISE)
    windows = simulate(6, noise=NOISE, seed=3)
    one_by_one = [float(dynamics_error(dynamics, window)) for window in windows]
    batch = dynamics_error(dynamics, windows.reshape(2, 3, *windows.shape[1:]))
    assert batch.shape == (2, 3)
    np.testing.assert_allclose(np.ravel(batch), one_by_one, rtol=1e-5)
