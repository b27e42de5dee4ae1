"""Costs of calls whose cost is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdiff.bench.costs import count_cost

A, B = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
PRODUCT = 2 * 3 * 4 * 5


def test_a_product_of_matrices():
    assert count_cost(lambda a, b: a @ b + 1, A, B).flops == PRODUCT


def test_a_product_of_batches():
    a, b = np.ones((7, 3, 4)), np.ones((7, 4, 5))
    assert count_cost(jnp.matmul, a, b).flops == 7 * PRODUCT
    assert count_cost(jax.vmap(jnp.dot), a, b).flops == 7 * PRODUCT


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution(groups):
    x, kernel = np.ones((2, 10, 4), np.float32), np.ones((3, 4 // groups, 6))
    cost = count_cost(
        lambda x, kernel: jax.lax.conv_general_dilated(
            x, kernel, (2,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        ),
        x, kernel.astype(np.float32),
    )  # fmt: skip
    # 5 steps of 2 sequences and 6 features, each a sum over 3 taps.
    assert cost.flops == 2 * (2 * 5 * 6) * 3 * 4 // groups


def test_a_scan_counts_as_often_as_it_runs_and_a_loop_once():
    def scanned(a, b):
        return jax.lax.scan(lambda x, _: (x @ b @ b.T, None), a, length=11)[0]

    assert count_cost(scanned, A, B).flops == 11 * 2 * PRODUCT

    def looped(a, b, n):
        return jax.lax.fori_loop(0, n, lambda i, x: x @ b @ b.T, a)

    assert count_cost(looped, A, B, 11).flops == 2 * PRODUCT


def test_of_branches_the_costliest_or_the_cheapest_counts():
    def either(a, b, wanted):
        return jax.lax.cond(wanted, lambda: a @ b @ b.T, lambda: a)

    assert count_cost(either, A, B, True).flops == 2 * PRODUCT
    assert count_cost(either, A, B, True, branch=min).flops == 0


def test_functions_inside_functions_count():
    @jax.custom_vjp
    def product(a, b):
        return a @ b

    product.defvjp(
        lambda a, b: (a @ b, (a, b)), lambda ab, g: (g @ ab[1].T, ab[0].T @ g)
    )
    assert count_cost(jax.jit(product), A, B).flops == PRODUCT
    slopes = jax.grad(lambda a, b: product(a, b).sum(), (0, 1))
    assert count_cost(slopes, A, B).flops == 3 * PRODUCT


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)


class Outer(nn.Module):
    def setup(self):
        self.layers = [Inner(), Inner()]

    def encode(self, x):
        return self.layers[0](x)

    def __call__(self, x):
        return self.layers[1](self.encode(x))


def test_networks_are_counted_by_name_and_layers_are_not():
    network, x = Outer(), np.ones((2, 4), np.float32)
    params = network.init(jax.random.key(0), x)

    def act(params, x):
        x = network.apply(params, x, method="encode")
        step = lambda x, _: (network.apply(params, x), None)  # noqa: E731
        return jax.lax.scan(step, x, length=5)[0]

    cost = count_cost(act, params, x)
    assert cost.network_calls == {"Outer.encode": 1, "Outer": 5}
    assert cost.flops == (1 + 2 * 5) * 2 * 2 * 4 * 4
    # The backward pass calls no network, and costs twice as much as the forward one.
    slopes = jax.grad(lambda params, x: act(params, x).sum())
    behind = count_cost(slopes, params, x)
    assert behind.network_calls == cost.network_calls
    assert 2 * cost.flops < behind.flops <= 3 * cost.flops


def test_a_network_is_counted_again_after_it_was_traced():
    network = Inner()
    x = np.ones((1, 4), np.float32)
    params = network.init(jax.random.key(0), x)
    apply = jax.jit(network.apply)
    apply(params, x)
    for _ in range(2):
        assert count_cost(network.apply, params, x).network_calls == {"Inner": 1}


def test_costs_grow_with_the_batch_and_need_no_values():
    network = Inner()
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 4)))
    one, many = (
        count_cost(network.apply, shapes, jax.ShapeDtypeStruct((batch, 4), jnp.float32))
        for batch in (1, 64)
    )
    assert one.network_calls == many.network_calls
    assert many.flops == 64 * one.flops
