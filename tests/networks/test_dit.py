"""The transformer of trajectories, and conditions in it and in the U-Net."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines
from toy import spec_of

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
)
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.algorithms.planning.trajectories import measure
from jaxdiff.errors import UserError
from jaxdiff.host_program import call
from jaxdiff.networks import Conditioned, DiT, TemporalUNet
from jaxdiff.networks.dit import DiTBlock
from jaxdiff.networks.layers import MLP, Attention

SMALL = DiT(dim=8, width=16, depth=2, heads=2)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def randomised(params, seed=0):
    """Parameters none of which is zero any more."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), params
    )


@pytest.fixture(scope="module")
def dit():
    x, time = jnp.ones((1, 6, 3)), jnp.ones(1)
    fresh = call(SMALL.init, jax.random.key(0), x, time, jnp.ones((1, 5)))
    return jax.jit(SMALL.apply), fresh, randomised(fresh)


def test_it_starts_with_an_output_of_zero_and_learns(dit):
    apply, fresh, params = dit
    x, time, condition = draw(0, 2, 6, 3), jnp.array([0, 7]), draw(1, 2, 5)
    np.testing.assert_array_equal(apply(fresh, x, time, condition), 0)
    assert np.abs(apply(params, x, time, condition)).min() > 0
    slope = jax.grad(lambda p: apply(p, x, time, condition).sum())(fresh)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def modulated_block(**modulation):
    """A block of fixed modulation, at random x: input, output, and its parameters."""
    width = 8
    x, embedding = draw(0, 2, 5, width), draw(1, 2, 4)
    block = DiTBlock(heads=2)
    params = call(block.init, jax.random.key(2), x, embedding)
    np.testing.assert_array_equal(block.apply(params, x, embedding), x)
    names = ("s1", "b1", "g1", "s2", "b2", "g2")
    bias = np.repeat([modulation.get(name, 0.0) for name in names], width)
    params["params"]["ZeroLinear_0"]["bias"] = jnp.asarray(bias, jnp.float32)
    return np.asarray(x), block.apply(params, x, embedding), params["params"]


def test_a_block_adds_its_halves_scaled_and_shifted():
    x, out, params = modulated_block(g1=0.5, s1=2.0, b1=-0.3)
    attended = Attention(heads=2, width=4).apply(
        {"params": params["Attention_0"]}, 3 * layer_norm(x) - 0.3
    )
    np.testing.assert_allclose(out, x + 0.5 * attended, atol=1e-4)
    x, out, params = modulated_block(g2=-2.0, s2=1.0, b2=0.4)
    mlp = MLP(8, widths=(32,)).apply(
        {"params": params["MLP_0"]}, 2 * layer_norm(x) + 0.4
    )
    np.testing.assert_allclose(out, x - 2 * mlp, atol=1e-4)


@pytest.mark.parametrize("horizon", [2, 7])
def test_it_takes_any_horizon_and_every_row_sees_every_row(dit, horizon):
    apply, _, params = dit
    x, time, condition = draw(0, 2, horizon, 3), jnp.zeros(2), draw(1, 2, 5)
    base = apply(params, x, time, condition)
    assert base.shape == x.shape
    for row in (0, horizon - 1):
        moved = apply(params, x.at[1, row, 2].add(1.0), time, condition)
        np.testing.assert_allclose(moved[0], base[0], atol=1e-6)
        assert (np.abs(moved[1] - base[1]).max(-1) > 1e-5).all()
    for moved in (
        apply(params, x, time.at[1].add(1.0), condition),
        apply(params, x, time, condition.at[1, 4].add(1.0)),
    ):
        np.testing.assert_allclose(moved[0], base[0], atol=1e-6)
        assert np.abs(moved[1] - base[1]).max() > 1e-4


def test_rows_know_their_place(dit):
    apply, _, params = dit
    x, time, condition = draw(0, 1, 6, 3), jnp.zeros(1), draw(1, 1, 5)
    order = np.array([3, 0, 5, 1, 2, 4])
    moved = apply(params, x[:, order], time, condition)
    assert np.abs(moved - apply(params, x, time, condition)[:, order]).max() > 1e-3


def test_patches_are_tokens():
    network = dataclasses.replace(SMALL, patch=3)
    x = draw(0, 1, 6, 2)
    params = call(network.init, jax.random.key(0), x, jnp.zeros(1))
    assert network.apply(params, x, jnp.zeros(1)).shape == x.shape
    assert params["params"]["Linear_0"]["kernel"].shape == (6, 16)
    with pytest.raises(ValueError, match="horizon 7 is not divisible by 3"):
        network.apply(params, draw(0, 1, 7, 2), jnp.zeros(1))


# --- conditions ----------------------------------------------------------------------

BACKBONES = {"dit": SMALL, "unet": TemporalUNet(dim=8, dim_mults=(1, 2))}


@pytest.mark.parametrize("name", list(BACKBONES))
def test_what_is_dropped_is_the_embedding_and_not_the_condition(name):
    network = Conditioned(BACKBONES[name], dim=8)
    x, time = draw(0, 3, 4, 2), jnp.zeros(3)
    keep = jnp.array([True, True, False])
    init = jax.eval_shape(
        network.init, jax.random.key(0), x, time, jnp.zeros((3, 1)), keep
    )
    params = randomised(init)

    @jax.jit
    def apply(x, condition, keep):
        return network.apply(params, x, time, condition, keep)

    zero, one = jnp.zeros((3, 1)), jnp.ones((3, 1))
    # Conditions make a difference only where they are kept.
    np.testing.assert_array_equal(apply(x, zero, keep)[2], apply(x, one, keep)[2])
    assert np.abs(apply(x, zero, keep)[:2] - apply(x, one, keep)[:2]).min() > 0
    # A condition of zero differs from no condition.
    told, untold = (apply(x, zero, jnp.full(3, kept)) for kept in (True, False))
    assert np.abs(told - untold).max() > 1e-3
    # No condition is the embedding zero.
    inner = {"params": params["params"]["network"]}
    expected = BACKBONES[name].apply(inner, x, time, jnp.zeros((3, 8)))
    np.testing.assert_allclose(untold, expected, atol=1e-5)


def test_the_released_network_has_its_size():
    network = Conditioned(TemporalUNet(dim=128, dim_mults=(1, 4, 8)), dim=128)
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        *(jnp.ones((1, 100, 11)), jnp.ones(1), jnp.ones((1, 1)), jnp.ones(1, bool)),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 59_732_491


# --- in Diffuser ---------------------------------------------------------------------

TINY = DiffuserConfig(
    horizon=7, goal_dim=2, network="dit", dit_width=32, dit_depth=1, dim=8,
    diffusion_steps=3,
)  # fmt: skip


def test_diffuser_plans_with_it():
    episodes = straight_lines(20)
    spec = spec_of(episodes)
    statistics = measure(TINY, episodes, spec)
    algorithm = diffuser(TINY, DiffuserActing(), statistics, spec)
    learner = algorithm.learners["denoiser"]
    state = call(learner.init, jax.random.key(0), jnp.zeros((1, 7, 4)), {})
    assert "DiTBlock_0" in state.params["params"]
    start, goal = np.float32([[0.1, 0.2]]), np.float32([[-0.5, 0.4]])
    held = TrainState(step=0, params=None, slow=state.slow, opt_state=())
    keys = jax.random.split(jax.random.key(1), 1)
    problem = Problem(history=start[:, None], goal=goal)
    plans = jax.jit(algorithm.plan)({"denoiser": held}, keys, problem)
    x = np.asarray(plans.trajectories)
    assert x.shape == (1, 1, 7, 4)
    np.testing.assert_allclose(x[0, 0, [0, -1], 2:], [start[0], goal[0]], atol=1e-6)


def test_options_of_the_transformer_are_checked():
    with pytest.raises(UserError, match=r"`dit_width` is 40; .*multiple of 32"):
        dataclasses.replace(TINY, dit_width=40)
    with pytest.raises(UserError, match=r"horizon 7 is not a multiple of 4.*choose 8"):
        dataclasses.replace(TINY, patch=4)
