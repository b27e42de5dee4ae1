"""A learner small enough to know by heart: least squares on a line."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Learner, TrainState, ema, pmean

SLOPE, OFFSET = 2.0, -1.0


def line_data(count=64, *, poison=False):
    x = jnp.linspace(-1.0, 1.0, count)
    y = SLOPE * x + OFFSET
    return {"x": x, "y": y.at[0].set(jnp.nan) if poison else y}


def line_learner(*, learning_rate=0.1):
    optimizer = optax.adam(learning_rate)

    def draw(data, key):
        return jax.tree.map(
            lambda v: v[jax.random.randint(key, (), 0, v.shape[0])], data
        )

    def init(key, batch, frozen):
        params = {"slope": jax.random.normal(key), "offset": jnp.zeros(())}
        return TrainState(
            step=jnp.int32(0),
            params=params,
            slow={"ema": params},
            model_state={},
            opt_state=optimizer.init(params),
        )

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        # Noise of its own for each example: a batch split in another way must not
        # change it.
        jitter = 0.01 * jax.vmap(jax.random.normal)(keys)

        def loss(params):
            error = params["slope"] * batch["x"] + params["offset"] - batch["y"]
            return jnp.mean((error + jitter) ** 2)

        value, grads = pmean(jax.value_and_grad(loss)(state.params), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        state = dataclasses.replace(
            state,
            step=step,
            params=params,
            slow={"ema": ema(state.slow["ema"], params, step, decay=0.9)},
            opt_state=opt_state,
        )
        return state, {"loss": value}

    return Learner(lambda data, frozen, key: data, draw, init, update)


def line_algorithm(**options):
    return Algorithm(
        learners={"line": line_learner(**options)},
        act=lambda *args, **kwargs: None,
        init_carry=lambda batch: None,
    )
