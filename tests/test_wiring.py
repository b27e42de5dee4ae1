"""Which copies of which parameters each loss reads, by perturbing each.

A loss that reads the online actor where its paper reads the slow one still falls, and
its first step is the same, because slow copies begin as the online ones. Here they
differ, actions have two dimensions, and Adam has moments, so that its step shows the
size of a gradient and not only its sign.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines
from toy import spec_of

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.spec import Layout

EPISODES = straight_lines()
SPEC = spec_of(EPISODES, layout=Layout(position=(0, 1), goal=(0, 1)))
# Large rates show small changes of gradients.
SMALL = {"widths": (16,), "learning_rate": 0.1}
SCORE = {**SMALL, "score_width": 16, "score_blocks": 1}
VAE = {**SMALL, "vae_widths": (16,)}

# Algorithm -> options, and learner -> part of its parameters -> the parts that its step
# depends on. "critic:slow.target" is the slow copy "target" of the finished learner
# "critic"; "?" begins what another part of the same step read, and may hardly show.
WIRES: dict[str, tuple[dict[str, Any], dict[str, dict[str, set[str]]]]] = {
    # Equations (1) and (2) of each module.
    "td3-bc": (
        SMALL,
        {
            "policy": {
                # The policy climbs the critic after its step, which read the copies.
                "params.actor": {
                    *("params.actor", "params.q"),
                    *("?slow.target.actor", "?slow.target.q"),
                },
                "params.q": {"params.q", "slow.target.actor", "slow.target.q"},
            }
        },
    ),
    "diffusion-ql": (
        {**SCORE, "eta": 1.0},
        {
            "policy": {
                "params.actor": {"params.actor", "params.q"},
                "params.q": {"params.q", "slow.actor", "slow.target"},
            }
        },
    ),
    # The one-step actor climbs the online critic; its own actions back it up.
    "fql": (
        {**SMALL, "flow_steps": 2},
        {
            "policy": {
                "params.flow": {"params.flow"},
                "params.actor": {"params.actor", "params.flow", "params.q"},
                "params.q": {"params.q", "params.actor", "slow.target"},
            }
        },
    ),
    "bcq": (
        {**VAE, "phi": 1.0, "backup_candidates": 2},
        {
            "behaviour": {"params": {"params"}},
            "policy": {
                "params.mover": {"params.mover", "params.q", "behaviour:params"},
                "params.q": {
                    *("params.q", "slow.mover", "slow.target", "behaviour:params"),
                },
            },
        },
    ),
    "bear": (
        {**VAE, "multiplier_rate": 0.1, "warm_up": 0, "backup_candidates": 2},
        {
            "behaviour": {"params": {"params"}},
            "policy": {
                "params.actor": {
                    *("params.actor", "params.multiplier", "params.q"),
                    "behaviour:params",
                },
                "params.multiplier": {
                    *("params.multiplier", "params.actor", "behaviour:params"),
                },
                "params.q": {"params.q", "slow.actor", "slow.target"},
            },
        },
    ),
    "cql": (
        {**SMALL, "policy_rate": 0.1, "penalty_actions": 2, "warm_up": 0},
        {
            "policy": {
                "params.actor": {"params.actor", "params.entropy", "params.q"},
                "params.entropy": {"params.actor"},
                "params.q": {
                    "params.q", "params.actor", "slow.target",
                },
            }
        },
    ),
    "iql": (
        SMALL,
        {
            "critic": {
                "params.v": {"params.v", "slow.target"},
                "params.q": {"params.q", "params.v"},
            },
            "policy": {"params": {"params", "critic:params.v", "critic:slow.target"}},
        },
    ),
    "srpo": (
        SCORE,
        {
            "behaviour": {"params": {"params"}},
            "policy": {
                "params": {"params", "behaviour:slow.ema", "critic:slow.target"},
            },
        },
    ),
    "qgpo": (
        {**SCORE, "support_actions": 2, "energy_width": 16, "energy_blocks": 1},
        {
            "behaviour": {"params": {"params"}},
            "critic": {"params.q": {"params.q", "slow.target"}},
            "energy": {"params.energy": {"params.energy", "critic:slow.target"}},
        },
    ),
}  # fmt: skip


def shaken(tree, seed, size=0.1, positive=False):
    """Move every number of a tree."""
    rng = np.random.default_rng(seed)

    def move(x):
        if not jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
            return x
        noise = rng.normal(size=np.shape(x))
        # No number moves hardly at all.
        x = x + jnp.asarray(size * (noise + np.sign(noise)), jnp.float32)
        return jnp.abs(x) if positive else x

    return jax.tree.map(move, tree)


def parts(state):
    """Give the parameters and slow copies of a state, each by its path."""
    found = {}
    for path, tree in {
        "params": state.params,
        **{f"slow.{name}": copy for name, copy in state.slow.items()},
    }.items():
        if isinstance(tree, dict) and "params" not in tree:
            found |= {f"{path}.{name}": part for name, part in tree.items()}
        else:
            found[path] = tree
    return found


def with_part(state, path, part):
    """Return the state with another part at a path."""
    field, *names = path.split(".")

    def put(tree, names):
        return {**tree, names[0]: put(tree[names[0]], names[1:])} if names else part

    return dataclasses.replace(state, **{field: put(getattr(state, field), names)})


@functools.cache
def wired(algorithm):
    """Learner -> its updates, a state whose copies differ, and what was frozen."""
    entry = ALGORITHMS[algorithm]
    config = entry.config(**WIRES[algorithm][0])
    statistics = entry.measure(config, EPISODES, SPEC)
    built = entry.build(config, entry.acting(), statistics, SPEC)
    frozen, found = {}, {}
    for name, learner in built.learners.items():
        keys = jax.random.split(jax.random.key(1), 8)

        def begin(frozen, learner=learner, keys=keys):
            data = learner.prepare(EPISODES, frozen, jax.random.key(0))
            batch = jax.vmap(learner.draw, (None, 0))(data, keys)
            return batch, learner.init(jax.random.key(2), batch, frozen)

        batch, state = jax.jit(begin)(frozen)
        slow = {
            copy: shaken(tree, 10 + i)
            for i, (copy, tree) in enumerate(sorted(state.slow.items()))
        }
        state = dataclasses.replace(
            state, params=shaken(state.params, 1), slow=slow,
            opt_state=shaken(state.opt_state, 3, positive=True), step=jnp.int32(999),
        )  # fmt: skip
        update = jax.jit(
            lambda state, frozen, learner=learner, batch=batch, keys=keys: (
                learner.update(state, keys, batch, frozen, {"num_steps": 4000.0})[0]
            )
        )
        found[name] = (update, state, dict(frozen))
        frozen[name] = state
    return found


@pytest.mark.parametrize(
    ("algorithm", "learner"), [(a, name) for a in WIRES for name in WIRES[a][1]]
)
def test_a_step_depends_on_what_its_equation_reads_and_on_nothing_else(
    algorithm, learner
):
    update, state, frozen = wired(algorithm)[learner]
    others = {
        path: (with_part(state, path, shaken(part, 7, 0.05)), frozen)
        for path, part in parts(state).items()
    }
    for name, done in frozen.items():
        for path, part in parts(done).items():
            changed = with_part(done, path, shaken(part, 7, 0.05))
            others[f"{name}:{path}"] = (state, {**frozen, name: changed})

    def steps(state, frozen):
        before, after = parts(state), parts(update(state, frozen))
        return {
            path: jax.tree.map(jnp.subtract, after[path], before[path])
            for path in after
            if path.startswith("params")
        }

    usual, found = steps(state, frozen), {}
    for other, changed in others.items():
        for path, step in steps(*changed).items():
            away = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), step, usual[path])
            if max(map(float, jax.tree.leaves(away))) > 1e-5:
                found.setdefault(path, set()).add(other)
    wanted = WIRES[algorithm][1][learner]
    assert found.keys() == wanted.keys()
    for path, read in wanted.items():
        surely = {name for name in read if not name.startswith("?")}
        assert surely <= found[path] <= {name.lstrip("?") for name in read}, path
