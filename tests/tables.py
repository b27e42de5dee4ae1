"""Networks that are tables, and transitions to fill them: offline RL by hand.

States and actions are one-hot, so that a table's entry is the value of its state and
action, and what it must become is a line of arithmetic.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.transitions import Transitions


class TableV:
    """Values `[S]`, zero at first."""

    def init(self, key, inputs):
        return jnp.zeros(inputs.shape[-1])

    def apply(self, params, inputs):
        return inputs @ params


class TableQ:
    """Two tables `[2, S, A]`, of zeros and of ones at first."""

    def init(self, key, inputs, actions):
        shape = (inputs.shape[-1], actions.shape[-1])
        return jnp.stack([jnp.zeros(shape), jnp.ones(shape)])

    def apply(self, params, inputs, actions):
        return jnp.einsum("bs,ksa,ba->kb", inputs, params, actions)


class Slope:
    """Twins that rise by 3 and 5 with the action, whatever they are taught."""

    def init(self, key, inputs, actions):
        return jnp.zeros(2)

    def apply(self, params, inputs, actions):
        return jnp.asarray([[3.0], [5.0]]) * actions.sum(-1) + 0 * params[:, None]


class Crossed(Slope):
    """Twins of which one rises by 3 with the action and the other falls by 3."""

    def apply(self, params, inputs, actions):
        return jnp.stack([3 * actions.sum(-1), -3 * actions.sum(-1)]) + 0 * params.sum()


class Places(Slope):
    """Twins that see the state alone: the second state is worth 1, the first none."""

    def apply(self, params, inputs, actions):
        return jnp.stack([inputs[..., 1]] * 2) + 0 * params.sum()


class Plain:
    """A policy that is its parameters: a mean for each state, perhaps a spread."""

    def __init__(self, features, *, gaussian=False):
        self.features, self.gaussian = features, gaussian

    def init(self, key, inputs):
        mean = jnp.zeros((inputs.shape[-1], self.features))
        return {"mean": mean, "std": jnp.full(self.features, 0.8)}

    def apply(self, params, inputs):
        return inputs @ params["mean"], params["std"] if self.gaussian else None


def table(rows, *, states, actions):
    """Transitions of `(state, action, reward, next state, terminal)` rows."""
    columns = zip(*rows, strict=True)
    s, a, r, following, terminal = (np.asarray(column) for column in columns)
    states, actions = (np.eye(n, dtype=np.float32) for n in (states, actions))
    return Transitions(
        inputs=states[s],
        actions=actions[a],
        rewards=r.astype(np.float32),
        next_inputs=states[following],
        terminals=terminal.astype(bool),
    )


def run(learner: Any, batch: Any, steps: int, *, frozen=None, hyper=None, seed=0):
    """Update from one batch so often, with fresh keys: the states before and after.

    Also the metrics of every update. With one value of `hyper` a row, `[K]`, K
    learners are trained side by side, and all leaves begin with K.
    """

    def trained(hyper):
        key = jax.random.key(seed)
        before = learner.init(key, batch, frozen or {})

        def update(state, key):
            keys = jax.random.split(key, len(batch.rewards))
            return learner.update(state, keys, batch, frozen or {}, hyper)

        keys = jax.random.split(key, steps)
        after, metrics = jax.lax.scan(update, before, keys)
        return before, after, metrics

    # One program: operation by operation it would be hundreds.
    if hyper is None:
        return jax.jit(trained)({})
    return jax.jit(jax.vmap(trained))(hyper)
