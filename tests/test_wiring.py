"""Which copies of which parameters each loss reads, by perturbing each.

A loss that reads the online actor where its paper reads the slow one still falls, and
its first step is the same, because slow copies begin as the online ones. Here they
differ, actions have two dimensions, and Adam has moments, so that its step shows the
size of a gradient and not only its sign.

Two more wires are seen here: a second update reads all that the first one wrote, and
no random key is used twice.
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
from jaxdiff.algorithms.offline.common import OfflineConfig
from jaxdiff.data.spec import Layout

EPISODES = straight_lines()
SPEC = spec_of(EPISODES, layout=Layout(position=(0, 1), goal=(0, 1)))
# Large rates show small changes of gradients.
SMALL = {"widths": (16,), "learning_rate": 0.1, "target_rate": 0.1}
SCORE = {**SMALL, "score_width": 16, "score_blocks": 1, "ema_decay": 0.9}
VAE = {**SMALL, "vae_widths": (16,)}

# Algorithm -> options, and learner -> part of its parameters -> the parts that its step
# depends on. "critic:slow.target" is the slow copy "target" of the finished learner
# "critic"; "?" begins what another part of the same step read, and may hardly show.
WIRES: dict[str, tuple[dict[str, Any], dict[str, dict[str, set[str]]]]] = {
    # Equations (1) and (2) of each module.
    "td3-bc": (
        {**SMALL, "policy_delay": 1},
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
        {**SCORE, "eta": 1.0, "ema_every": 1, "ema_start": 0},
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
    "idql": (
        SCORE,
        {
            "critic": {
                "params.v": {"params.v", "slow.target"},
                "params.q": {"params.q", "params.v"},
            },
            "behaviour": {"params": {"params"}},
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


# The keys that updates consumed, in the order of the draws.
CONSUMED: list[bytes] = []
CONSUMERS = ("split", "normal", "uniform", "bernoulli", "categorical", "randint")


def recorded(draw):
    """Let a function of `jax.random` note the key that it consumes."""

    def wrapped(key, *args, **options):
        data = jax.random.key_data(key)
        jax.debug.callback(lambda data: CONSUMED.append(data.tobytes()), data)
        return draw(key, *args, **options)

    return wrapped


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
        with pytest.MonkeyPatch.context() as patch:
            for consumer in CONSUMERS:
                draw = getattr(jax.random, consumer)
                patch.setattr(jax.random, consumer, recorded(draw))
            update = update.lower(state, dict(frozen)).compile()
        found[name] = (update, state, dict(frozen))
        frozen[name] = state
    return found


def apart(one, other):
    """The largest difference of two trees."""
    away = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), one, other)
    return max(map(float, jax.tree.leaves(away)))


each_learner = pytest.mark.parametrize(
    ("algorithm", "learner"), [(a, name) for a in WIRES for name in WIRES[a][1]]
)


def test_every_offline_algorithm_is_here():
    offline = {
        name
        for name in ALGORITHMS
        if issubclass(ALGORITHMS[name].config, OfflineConfig)
    }
    assert offline == set(WIRES)


@each_learner
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
            if apart(step, usual[path]) > 1e-5:
                found.setdefault(path, set()).add(other)
    wanted = WIRES[algorithm][1][learner]
    assert found.keys() == wanted.keys()
    for path, read in wanted.items():
        surely = {name for name in read if not name.startswith("?")}
        assert surely <= found[path] <= {name.lstrip("?") for name in read}, path


@each_learner
def test_a_second_update_reads_all_that_the_first_one_wrote(algorithm, learner):
    update, before, frozen = wired(algorithm)[learner]
    once = update(before, frozen)
    twice = update(once, frozen)
    assert int(twice.step) == int(before.step) + 2
    old, new, end = parts(before), parts(once), parts(twice)
    for path, read in WIRES[algorithm][1][learner].items():
        # Without what the first update wrote to a part, the second step is another.
        for source in read:
            if source in new:
                assert apart(old[source], new[source]) > 0, source
                if source != path:
                    other = parts(update(with_part(once, source, old[source]), frozen))
                    assert apart(other[path], end[path]) > 1e-6, (path, source)
    # Moments of gradients are read and written too.
    forgotten = update(dataclasses.replace(once, opt_state=before.opt_state), frozen)
    for path in WIRES[algorithm][1][learner]:
        assert apart(parts(forgotten)[path], end[path]) > 1e-6, path


# Slow copies whose parts have other names; all others are named for their part.
PARTS = {"slow.ema": "params", "slow.target": "params.q"}
# Nobody reads the averages of these models.
UNREAD = {("bcq", "behaviour"), ("bear", "behaviour")}


@each_learner
def test_slow_copies_follow_what_an_update_has_written(algorithm, learner):
    update, before, frozen = wired(algorithm)[learner]
    once = update(before, frozen)
    old, new = parts(before), parts(once)
    for path in new:
        if path.startswith("slow."):
            online = PARTS.get(path, path.replace("slow.target", "slow"))
            online = online.replace("slow", "params")
            kept = 0.0 if (algorithm, learner) in UNREAD else 0.9
            expected = jax.tree.map(
                lambda slow, fast, kept=kept: kept * slow + (1 - kept) * fast,
                old[path], new[online],
            )  # fmt: skip
            assert apart(new[path], expected) < 1e-5, path


@each_learner
def test_no_key_is_used_twice(algorithm, learner):
    update, state, frozen = wired(algorithm)[learner]
    jax.effects_barrier()
    CONSUMED.clear()
    jax.block_until_ready(update(state, frozen))
    jax.effects_barrier()
    assert len(set(CONSUMED)) == len(CONSUMED)
