"""A new network inside Diffuser in one file: dense layers over a whole trajectory."""

import flax.linen as nn
import jax.numpy as jnp

from jaxdiff.algorithms.planning.network import NETWORKS, TrajectoryNetwork


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, time, condition=None):
        flat = jnp.concatenate([x.reshape(len(x), -1), time[:, None] / 100], -1)
        return nn.Dense(x[0].size)(nn.relu(nn.Dense(64)(flat))).reshape(x.shape)


NETWORKS["dense"] = TrajectoryNetwork(lambda config: Dense())
