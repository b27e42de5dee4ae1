"""TD3+BC on tables, where values and the policy are arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Plain, TableQ, run, table

from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig, td3_bc_learner
from jaxdiff.errors import UserError

DISCOUNT = 0.5
# One action; a loop that no time limit ends, and a way to an end.
BATCH = table([(0, 0, 1.0, 0, False), (1, 0, 1.0, 1, True)], states=2, actions=1)


class One(Plain):
    """A policy that begins at the only action."""

    def init(self, key, inputs):
        return {"mean": jnp.ones((inputs.shape[-1], 1)), "std": jnp.ones(1)}


class Slope:
    """Twins that rise by 3 and 5 with the action; nothing of them is to be trained."""

    def init(self, key, inputs, actions):
        return jnp.asarray([3.0, 5.0])

    def apply(self, params, inputs, actions):
        return params[:, None] * actions.sum(-1)


def learner(q, actor, **options):
    config = TD3BCConfig(discount=DISCOUNT, **options)
    return td3_bc_learner(config, actor, q, lambda data, frozen, key: data)


def test_values_are_known():
    built = learner(
        TableQ(), One(1), temperature=0.0, smoothing=0.0, learning_rate=0.02,
        target_rate=0.1,
    )  # fmt: skip
    _, state, _ = run(built, BATCH, 1500)
    found = state.params["q"][..., 0]
    np.testing.assert_allclose(found, [[1 / (1 - DISCOUNT), 1]] * 2, atol=0.01)


@pytest.mark.parametrize(("smoothing", "bound"), [(0.0, 0.5), (5.0, 0.0), (5.0, 0.5)])
def test_critics_look_ahead_to_smoothed_actions_within_bounds(smoothing, bound):
    # From the action 1 noise leads down only, for what is above is clipped.
    built = learner(Slope(), One(1), smoothing=smoothing, smoothing_bound=bound)
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 4096, axis=0), BATCH)
    *_, metrics = run(built, batch, 1)
    # Ahead lies 3 (the smaller twin) times the action, 1 or, with noise far beyond the
    # bound, as often 1/2: the wanted value is 1 + DISCOUNT 3 a', found are 3 and 5.
    wide = smoothing > 0 and bound > 0
    actions = [1.0, 0.5] if wide else [1.0]
    errors = [(q - 1 - DISCOUNT * 3 * a) ** 2 for a in actions for q in (3.0, 5.0)]
    np.testing.assert_allclose(metrics["loss"], np.mean(errors), rtol=0.05)
    np.testing.assert_allclose(metrics["q"], 4.0, rtol=1e-5)


def test_the_policy_moves_every_second_time_and_copies_with_it():
    built = learner(Slope(), Plain(1), target_rate=0.1)
    before, once, _ = run(built, BATCH, 1)
    _, twice, _ = run(built, BATCH, 2)
    np.testing.assert_array_equal(once.params["actor"]["mean"], 0)
    assert (once.params["q"] != before.params["q"]).all()
    for name in ("actor", "q"):
        for same, start in zip(
            jax.tree.leaves(once.slow["target"][name]),
            jax.tree.leaves(before.params[name]),
            strict=True,
        ):
            np.testing.assert_array_equal(same, start)
    assert (twice.params["actor"]["mean"] > 0).all()
    np.testing.assert_allclose(
        twice.slow["target"]["actor"]["mean"],
        0.1 * twice.params["actor"]["mean"],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        twice.slow["target"]["q"],
        0.9 * before.params["q"] + 0.1 * twice.params["q"],
        rtol=1e-6,
    )


def test_the_policy_climbs_the_critics_that_the_same_update_has_moved():
    class Blank(Slope):
        def init(self, key, inputs, actions):
            return jnp.zeros(2)

    # At the action of the data cloning pulls nowhere, and critics of zero neither.
    built = learner(Blank(), One(1), policy_delay=1, learning_rate=0.01)
    _, once, _ = run(built, BATCH, 1)
    np.testing.assert_allclose(once.params["q"], 0.01, rtol=1e-4)
    np.testing.assert_allclose(once.params["actor"]["mean"], 1.01, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.5])
def test_the_policy_is_as_greedy_as_it_is_told(temperature):
    # Q = 3 a: the gradient of alpha Q / mean |Q| is alpha / (number of states |a|), and
    # that of cloning 2 (a - 1) / number of states: a^2 - a - alpha / 2 = 0.
    # The second twin falls, for the policy climbs the first one alone.
    class Still(Slope):
        def apply(self, params, inputs, actions):
            return super().apply(jnp.asarray([3.0, -5.0]), inputs, actions)

    built = learner(
        Still(), One(1), temperature=temperature, learning_rate=0.02, policy_delay=1
    )
    _, state, _ = run(built, BATCH, 800)
    expected = (1 + np.sqrt(1 + 2 * temperature)) / 2
    np.testing.assert_allclose(state.params["actor"]["mean"], expected, atol=0.02)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"temperature": -1.0}, "`temperature`"),
        ({"policy_delay": 0}, "`policy_delay`"),
        ({"smoothing": -0.1}, "`smoothing`"),
        ({"discount": 2.0}, "`discount`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        TD3BCConfig(**wrong)
