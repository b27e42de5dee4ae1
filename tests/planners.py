"""What tests of planners share: states that are made up, networks put in by name."""

import dataclasses

import jax

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.planning.network import NETWORKS, TrajectoryNetwork
from jaxdiff.data.spec import Layout, Spec

# The point of `points.py`: two numbers to observe, which are the goal's too.
POINT = Spec((2,), action_dim=2, goal_dim=2, layout=Layout(goal=(0, 1)))

# A point with a velocity, whose entries can be tracked.
MOVING = Spec(
    (4,), action_dim=2, goal_dim=2,
    layout=Layout(position=(0, 1), velocity=(2, 3), goal=(0, 1, 2, 3)),
)  # fmt: skip


def held(params):
    """A state that only acting reads."""
    return TrainState(step=0, params=None, slow={"ema": params}, opt_state=())


def keys_of(batch, seed=0):
    """A key for each problem `[batch]`."""
    return jax.random.split(jax.random.key(seed), batch)


def replaced(config, acting, options):
    """Replace options in whichever of the two has them."""
    names = {field.name for field in dataclasses.fields(config)}
    mine = {name: value for name, value in options.items() if name in names}
    other = {name: value for name, value in options.items() if name not in names}
    return dataclasses.replace(config, **mine), dataclasses.replace(acting, **other)


def use_network(monkeypatch, module, *, name="made-up", multiple=1, takes_length=False):
    """Let the option `network` name a network of the test's own; return the name."""
    thing = TrajectoryNetwork(
        lambda config: module, lambda config: multiple, takes_length
    )
    monkeypatch.setitem(NETWORKS, name, thing)
    return name
