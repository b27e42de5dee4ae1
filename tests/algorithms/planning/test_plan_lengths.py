"""Plans of several horizons in arrays of one shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from planners import MOVING, POINT, held, keys_of, replaced, use_network
from points import straight_lines

from jaxdiff.algorithms.planning import decision_diffuser as decision
from jaxdiff.algorithms.planning import diffuser
from jaxdiff.algorithms.planning.dynamics import Dynamics, dynamics_error
from jaxdiff.algorithms.planning.options import PlannerActing, PlannerConfig
from jaxdiff.algorithms.planning.planner import Plans, Problem
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.algorithms.planning.support import Support
from jaxdiff.diffusion import Clamp
from jaxdiff.networks.lengths import counted

RNG = np.random.default_rng(0)
OPTIONS = {
    "horizon": 12, "horizons": (5, 8), "diffusion_steps": 4, "dim": 8, "history": 2,
    "goal_dim": 2, "network": "made-up", "action_weight": 1.0,
    "padding": True,
}  # fmt: skip


class Pooled(nn.Module):
    """Every row is shown the mean of all rows: small, and it mixes them."""

    @nn.compact
    def __call__(self, x, time, condition=None, length=None):
        rows = x.shape[1] if length is None else length[:, None]
        mean = counted(x, length).sum(1) / rows
        parts = [x, jnp.broadcast_to(mean[:, None], x.shape)]
        if condition is not None:
            shown = jnp.broadcast_to(condition[:, None], (*x.shape[:2], 8))
            parts.append(shown)
        hidden = nn.Dense(8)(jnp.concatenate(parts, axis=-1))
        return nn.Dense(x.shape[-1])(nn.tanh(hidden + 0.1 * time[:, None, None]))


def built(module, monkeypatch, **options):
    """An algorithm of a planner, states that were drawn, and its options."""
    use_network(monkeypatch, Pooled(), takes_length=True)
    entry = module.ENTRY
    config, acting = replaced(entry.config(), entry.acting(), {**OPTIONS, **options})
    episodes = straight_lines(60)
    statistics = entry.measure(config, episodes, POINT)
    # Fewer states, so that plans lead more or less away from them.
    support = Support(states=statistics.support.states[:9], limit=np.float32(0.01))
    object.__setattr__(statistics, "support", support)
    algorithm = entry.build(config, acting, statistics, POINT)
    states = {}
    for name, learner in algorithm.learners.items():
        data = learner.prepare(episodes, {}, jax.random.key(0))
        batch = jax.vmap(learner.draw, (None, 0))(data, keys_of(2))
        shapes = jax.eval_shape(learner.init, jax.random.key(0), batch, {}).params
        draw = lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), jnp.float32)  # noqa: E731
        states[name] = held(jax.tree.map(draw, shapes))
    return algorithm, states


def asked(**fields):
    point = RNG.uniform(-0.9, 0.9, (3, 2, 2)).astype(np.float32)
    mask = np.zeros((11, 4), bool)
    mask[2, 3] = True
    known = Clamp(values=np.full((11, 4), 0.3, np.float32), mask=mask)
    return Problem(history=point, goal=-point[:, 0], known=known, **fields)


CASES = {
    "diffuser": (diffuser, {}),
    "warm": (diffuser, {"warm_start": 2}),
    "inverse": (
        decision,
        {"inverse_kind": "autoregressive", "inverse_width": 8, "bins": 4},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_that_of_an_array_of_its_own(case, monkeypatch):
    module, options = CASES[case]
    algorithm, states = built(module, monkeypatch, **options)
    init = RNG.uniform(-1, 1, (3, 11, 4)).astype(np.float32)
    problem = asked(init=init if case == "warm" else None)
    plan = jax.jit(algorithm.plan, static_argnames=("horizon", "candidates"))
    lengths = [5, 8, 12]
    found = plan(
        states, keys_of(3), problem, horizon=12, length=jnp.array(lengths), candidates=2
    )
    for b, length in enumerate(lengths[:2]):
        rows = length - 1  # a window begins one row before the present state
        own = Problem(
            history=problem.history[b : b + 1],
            goal=problem.goal[b : b + 1],
            known=jax.tree.map(lambda leaf, rows=rows: leaf[:rows], problem.known),
            init=None if problem.init is None else problem.init[b : b + 1, :rows],
        )
        alone = plan(states, keys_of(3)[b : b + 1], own, horizon=length, candidates=2)
        x = found.trajectories[b]
        np.testing.assert_allclose(x[:, :rows], alone.trajectories[0], atol=1e-5)
        np.testing.assert_array_equal(
            x[:, rows:], jnp.broadcast_to(x[:, rows - 1 : rows], x[:, rows:].shape)
        )
        for name in ("dynamics_error", "ood_distance"):
            np.testing.assert_allclose(
                getattr(found, name)[b], getattr(alone, name)[0], rtol=2e-4
            )


@pytest.mark.parametrize("length", [2, 9, 23, 30])
def test_the_dynamics_error_is_that_of_the_rows_that_count(length):
    dynamics = Dynamics(weights=RNG.normal(size=(4, 2)), scale=np.ones(2))
    rows = RNG.normal(size=(5, 30, 3)).astype(np.float32)
    found = dynamics_error(dynamics, rows, jnp.full(5, length))
    alone = dynamics_error(dynamics, rows[:, :length])
    np.testing.assert_allclose(found, alone, rtol=1e-5)


# --- acting --------------------------------------------------------------------------


def needing(shapes):
    """A planner whose plans need as many steps as the observation's first entry says.

    Every entry of a plan is its horizon. `shapes` grows by the shape of every plan.
    """

    def plan(states, keys, problem, *, horizon, length=None):
        shapes.append((horizon, length is not None))
        need = problem.history[:, -1, 0]
        steps = jnp.full(len(need), horizon) if length is None else length
        x = jnp.broadcast_to(
            steps[:, None, None, None].astype(float), (len(need), 1, horizon, 6)
        )
        strain = jnp.where(steps >= need, 1.0, 100.0)
        return Plans(trajectories=x, dynamics_error=strain[:, None])

    return plan


def acts(takes_length, shapes, **options):
    options = {"horizon": 12, "goal_dim": 2, "dim_mults": (1, 2), **options}
    config, acting = replaced(PlannerConfig(), PlannerActing(), options)
    return receding_horizon(
        needing(shapes), config, acting, MOVING, takes_length=takes_length
    )


def test_horizons_share_the_shapes_that_are_compiled():
    observation = np.zeros((8, 4), np.float32)
    observation[:, 0] = [3, 4, 5, 6, 7, 9, 11, 12]
    plans = {}
    for takes_length in (False, True):
        shapes = []
        act, init_carry, _ = acts(
            takes_length, shapes, choose="earliest", horizons=(4, 6, 8, 10)
        )
        now = {}, init_carry(8), keys_of(8), observation, np.ones(8, bool)
        output, carry = jax.jit(act)(*now)
        plans[takes_length] = output.plan
        np.testing.assert_array_equal(carry.last + 1, [4, 4, 6, 6, 8, 10, 12, 12])
        expected = {(6, True), (12, True)}
        if not takes_length:
            expected = {(horizon, False) for horizon in (4, 6, 8, 10, 12)}
        assert set(shapes) == expected
    np.testing.assert_array_equal(plans[True], plans[False])


def test_a_horizon_that_shares_no_shape_is_given_no_length():
    shapes = []
    act, init_carry, _ = acts(True, shapes, choose="earliest", horizons=(4,))
    now = {}, init_carry(1), keys_of(1), np.zeros((1, 4), np.float32), np.ones(1, bool)
    jax.jit(act)(*now)
    assert set(shapes) == {(4, False), (12, False)}


@pytest.mark.parametrize("takes_length", [False, True])
def test_a_renewed_plan_covers_the_steps_that_remain(takes_length):
    act, init_carry, _ = acts(takes_length, [], horizons=(4, 6, 8, 10), replan_every=1)
    act, carry, seen = jax.jit(act), init_carry(2), []
    for t in range(11):
        # The second environment begins three steps later.
        reset = np.array([t == 0, t in (0, 3)])
        now = np.zeros((2, 4), np.float32)
        output, carry = act({}, carry, keys_of(2, t), now, reset)
        seen.append(np.asarray(output.plan[:, 0, 0]))
    # Steps that remain, the present row included: 12, 11, 10, ..
    expected = [12, 12, 10, 10, 8, 8, 6, 6, 4, 4, 4]
    np.testing.assert_array_equal([each[0] for each in seen], expected)
    np.testing.assert_array_equal([each[1] for each in seen][3:], expected[:8])
