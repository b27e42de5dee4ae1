"""A learner small enough to know by heart: least squares on a line."""

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, supervised

SLOPE, OFFSET = 2.0, -1.0


def line_data(count=64, *, poison=False):
    x = jnp.linspace(-1.0, 1.0, count)
    y = SLOPE * x + OFFSET
    return {"x": x, "y": y.at[0].set(jnp.nan) if poison else y}


def line_learner(*, learning_rate=0.1):
    def draw(data, key):
        return jax.tree.map(
            lambda v: v[jax.random.randint(key, (), 0, v.shape[0])], data
        )

    def init_params(key, batch):
        return {"slope": jax.random.normal(key), "offset": jnp.zeros(())}

    def loss(params, keys, batch):
        # Noise of its own for each example: a batch split in another way must not
        # change it.
        jitter = 0.01 * jax.vmap(jax.random.normal)(keys)
        error = params["slope"] * batch["x"] + params["offset"] - batch["y"]
        value = jnp.mean((error + jitter) ** 2)
        return value, {"loss": value}

    return supervised(
        lambda data, frozen, key: data,
        draw,
        init_params,
        [loss],
        optax.adam(learning_rate),
        averaging=Averaging(0.9),
    )


def line_algorithm(**options):
    return Algorithm(
        learners={"line": line_learner(**options)},
        act=lambda *args, **kwargs: None,
        init_carry=lambda batch: None,
    )
