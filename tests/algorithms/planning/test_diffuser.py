import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from points import line, straight_lines

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.planning import diffuser as module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserConfig,
    Plans,
    declared_horizons,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.algorithms.planning.receding_horizon import follow
from jaxdiff.data.normalizer import fit_normalizer, normalize, unnormalize
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.recipe import record_stream
from jaxdiff.tasks.presets import PRESETS, preset

TINY = DiffuserConfig(
    horizon=8,
    horizons=(4, 8, 12),
    diffusion_steps=5,
    dim=8,
    dim_mults=(1, 2),
    prediction="x0",
    action_weight=1.0,
    candidates=1,
    choose="fixed",
    controller="action",
)
EPISODES = straight_lines(60)
STATISTICS = measure(TINY, EPISODES)
START = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 2)).astype(np.float32)
GOAL = np.random.default_rng(1).uniform(-0.9, 0.9, (3, 2)).astype(np.float32)


def build(statistics=STATISTICS, **options):
    return diffuser(dataclasses.replace(TINY, **options), statistics, action_dim=2)


class Pointwise(nn.Module):
    """A network small enough to compile at once."""

    @nn.compact
    def __call__(self, x, time):
        return nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(x)))


@pytest.fixture
def pointwise(monkeypatch):
    monkeypatch.setattr(module, "_network", lambda config: Pointwise())


def holding(params):
    """A state that only the planner reads."""
    return TrainState(
        step=0, params=None, slow={"ema": params}, model_state={}, opt_state=()
    )


def fresh(learner, seed=0):
    """A state before training; made of its shapes alone, for compiling takes long."""
    batch = jnp.zeros((1, TINY.horizon, 4))
    shapes = jax.eval_shape(lambda: learner.init(jax.random.key(0), batch, {}))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype),
        shapes.params,
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return dataclasses.replace(zeros, params=params, slow={"ema": params})


# --- plans ---------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [4, 8, 12])
def test_plans_of_every_horizon_begin_and_end_as_asked(horizon):
    algorithm = build()
    states = {"denoiser": fresh(algorithm.learners["denoiser"])}
    plans = jax.jit(algorithm.plan, static_argnames=("horizon", "candidates"))(
        states, jax.random.key(1), START, GOAL, horizon=horizon, candidates=2
    )
    assert plans.trajectories.shape == (3, 2, horizon, 4)
    assert plans.dynamics_error.shape == (3, 2)
    assert plans.path is None
    x = np.asarray(plans.trajectories)
    np.testing.assert_allclose(x[:, :, 0, 2:], np.stack([START] * 2, 1), atol=1e-6)
    np.testing.assert_allclose(x[:, :, -1, 2:], np.stack([GOAL] * 2, 1), atol=1e-6)
    # Nothing is lost but what the way to normalised units and back rounds off.
    for row, point in ((0, START), (-1, GOAL)):
        known = np.concatenate([np.zeros_like(point), point], axis=1)
        back = unnormalize(
            STATISTICS.normalizer, normalize(STATISTICS.normalizer, known)
        )
        np.testing.assert_allclose(x[:, 0, row, 2:], back[:, 2:], rtol=1e-6)
    assert len(np.unique(x[:, :, 1])) == 3 * 2 * 4
    np.testing.assert_allclose(
        plans.dynamics_error,
        dynamics_error(STATISTICS.dynamics, normalize(STATISTICS.normalizer, x)),
        rtol=1e-3,
    )


class Perfect:
    """A network that knows the answer: the line between the ends that it is shown."""

    def apply(self, params, x, time):
        normalizer = STATISTICS.normalizer
        rows = unnormalize(normalizer, x)
        ends = rows[:, :1, 2:], rows[:, -1:, 2:]
        share = jnp.linspace(0, 1, x.shape[1])[:, None]
        positions = (1 - share) * ends[0] + share * ends[1]
        step = (ends[1] - ends[0]) / (x.shape[1] - 1) + 0 * positions
        return normalize(normalizer, jnp.concatenate([step, positions], -1))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp2m"])
def test_a_perfect_network_plans_the_line(monkeypatch, sampler):
    monkeypatch.setattr(module, "_network", lambda config: Perfect())
    algorithm = build(sampler=sampler, sampling_steps=3)
    plan = jax.jit(
        algorithm.plan, static_argnames=("horizon", "candidates", "return_path")
    )
    plans = plan(
        {"denoiser": holding({})}, jax.random.key(0), START, GOAL, horizon=12,
        candidates=2, return_path=True,
    )  # fmt: skip
    positions, step = line(START, GOAL, 12)
    x = np.asarray(plans.trajectories)
    for candidate in range(2):
        np.testing.assert_allclose(x[:, candidate, :, 2:], positions, atol=1e-5)
        np.testing.assert_allclose(
            x[:, candidate, :, :2], step[:, None] + np.zeros((3, 12, 2)), atol=1e-5
        )
    # A line without the data's noise is more consistent than any of the data.
    assert np.max(plans.dynamics_error) < 0.5
    assert plans.path.shape == (4, 3, 2, 12, 4)
    np.testing.assert_array_equal(plans.path[-1], plans.trajectories)
    # The ends stand in every one of the noise levels.
    np.testing.assert_allclose(
        plans.path[:, :, :, 0, 2:], START[:, None] + np.zeros((4, 3, 2, 2)), atol=1e-6
    )
    assert not np.allclose(plans.path[0], plans.path[1])


def test_the_planner_uses_averaged_parameters(pointwise):
    algorithm = build()
    one, other = (fresh(algorithm.learners["denoiser"], seed) for seed in (0, 1))
    plan = jax.jit(algorithm.plan)

    def planned(params, slow):
        state = dataclasses.replace(one, params=params, slow={"ema": slow})
        return plan({"denoiser": state}, jax.random.key(2), START, GOAL).trajectories

    np.testing.assert_array_equal(
        planned(one.params, one.params), planned(other.params, one.params)
    )
    assert (planned(one.params, one.params) != planned(one.params, other.params)).any()


@pytest.mark.parametrize("goal_dim", [0, 1, 2])
def test_loss_and_sampler_clamp_the_same_entries(pointwise, monkeypatch, goal_dim):
    loss, sample, seen = module.denoising_loss, module.sample, {}

    def spy_loss(*args, **options):
        seen["loss"] = np.asarray(options["mask"])
        return loss(*args, **options)

    def spy_sample(*args, **options):
        seen["sample"] = np.asarray(options["clamp"].mask)
        return sample(*args, **options)

    monkeypatch.setattr(module, "denoising_loss", spy_loss)
    monkeypatch.setattr(module, "sample", spy_sample)
    algorithm = build(goal_dim=goal_dim, diffusion_steps=1)
    learner = algorithm.learners["denoiser"]
    batch = jnp.zeros((2, TINY.horizon, 4))
    state = fresh(learner)
    keys = jax.random.split(jax.random.key(1))
    jax.eval_shape(learner.update, state, keys, batch, {}, {})
    expected = np.zeros((TINY.horizon, 4), bool)
    expected[0, 2:] = True
    expected[-1, 2 : 2 + goal_dim] = True
    np.testing.assert_array_equal(seen["loss"], expected)

    states = {"denoiser": state}
    jax.eval_shape(algorithm.plan, states, jax.random.key(0), START, GOAL)
    np.testing.assert_array_equal(seen["sample"], expected)
    jax.eval_shape(algorithm.plan, states, jax.random.key(0), START)
    expected[-1] = False
    np.testing.assert_array_equal(seen["sample"], expected)


def test_horizons_must_halve_often_enough():
    config = dataclasses.replace(TINY, dim_mults=(1, 2, 4), horizon=20)
    assert declared_horizons(dataclasses.replace(config, horizons=(8, 4))) == [4, 8, 20]
    for wrong, nearest in ((127, 128), (129, 128), (21, 20), (3, 4), (2, 4)):
        for change in ({"horizon": wrong}, {"horizons": (8, wrong)}):
            asked = dataclasses.replace(config, **change)
            with pytest.raises(UserError, match=rf"{wrong}\b.*choose {nearest}$"):
                diffuser(asked, STATISTICS, action_dim=2)
            declared_horizons(
                dataclasses.replace(asked, horizon=nearest, horizons=(nearest,))
            )


# --- training ------------------------------------------------------------------------


def updates(count, *, batch_size=8, **options):
    """States after each of a number of updates, the first before any."""
    learner = build(**options).learners["denoiser"]
    data = learner.prepare(EPISODES, {}, jax.random.key(0))

    @jax.jit
    def update(state, key):
        keys = jax.random.split(key, batch_size)
        batch = jax.vmap(learner.draw, (None, 0))(data, keys)
        return learner.update(state, keys, batch, {}, {})[0]

    states = [fresh(learner)]
    for n in range(count):
        states.append(update(states[-1], jax.random.key(n)))
    return states


def test_slices_of_a_batch_have_its_gradient(pointwise):
    whole, sliced = updates(1)[-1], updates(1, accumulate=2)[-1]
    # Adam's first moment is a tenth of the gradient; its steps hide the size of it.
    chex.assert_trees_all_close(
        whole.opt_state[0].mu, sliced.opt_state[0].mu, rtol=1e-4, atol=1e-6
    )
    assert (
        max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole.opt_state[0].mu))
        > 1e-3
    )


def test_average_is_a_copy_until_its_start_and_then_moves_every_few_updates(pointwise):
    states = updates(5, ema_start=2, ema_every=2, ema_decay=0.75)
    averages = [state.slow["ema"] for state in states]
    for n in (0, 1, 2):
        chex.assert_trees_all_equal(averages[n], states[n].params)
    chex.assert_trees_all_equal(averages[3], averages[2])
    chex.assert_trees_all_close(
        averages[4],
        jax.tree.map(lambda a, b: (3 * a + b) / 4, averages[2], states[4].params),
        atol=1e-6,
    )
    chex.assert_trees_all_equal(averages[5], averages[4])
    assert [int(state.step) for state in states] == [0, 1, 2, 3, 4, 5]


def test_learning_rate_decays_to_nothing(pointwise):
    states = updates(4, learning_rate_decay=3)
    chex.assert_trees_all_equal(states[4].params, states[3].params)
    first = jax.tree.leaves(states[1].params)[0] - jax.tree.leaves(states[0].params)[0]
    # Adam's first step is the learning rate itself.
    np.testing.assert_allclose(np.abs(first), TINY.learning_rate, rtol=1e-2)


def test_updates_take_turns_with_the_training_horizons(pointwise):
    """Update n is that of a learner of its horizon alone, on the window's beginning."""
    both = build(horizon=4, train_horizons=(8, 4)).learners["denoiser"]
    alone = [build(horizon=h, horizons=()).learners["denoiser"] for h in (4, 8)]
    data = both.prepare(EPISODES, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 6)
    batch = jax.vmap(both.draw, (None, 0))(data, keys)
    assert batch.shape == (6, 8, 4)
    state = fresh(both)
    for n, horizon in enumerate((4, 8, 4, 8)):
        found, metrics = jax.jit(both.update)(state, keys, batch, {}, {})
        one = alone[n % 2]
        expected, wanted = jax.jit(one.update)(state, keys, batch[:, :horizon], {}, {})
        chex.assert_trees_all_close(found.opt_state, expected.opt_state, atol=1e-6)
        np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-5)
        state = found
    assert found.opt_state[0].count == 4


def test_training_horizons_must_halve_often_enough():
    with pytest.raises(UserError, match=r"horizon 13 .*choose 12"):
        build(train_horizons=(8, 13))
    with pytest.raises(UserError, match=r"--train-horizons is \(1,\)"):
        build(train_horizons=(1,))


def test_weights_of_the_loss(pointwise, monkeypatch):
    loss, seen = module.denoising_loss, []

    def spy(*args, **options):
        seen.append(np.asarray(options["weight"]) + np.zeros((TINY.horizon, 4)))
        assert options["norm"] == "l1"
        assert options["prediction"] == "v"
        return loss(*args, **options)

    monkeypatch.setattr(module, "denoising_loss", spy)

    def trace(**options):
        options = {"norm": "l1", "prediction": "v", **options}
        learner = build(**options).learners["denoiser"]
        keys = jax.random.split(jax.random.key(1))
        batch = jnp.zeros((2, TINY.horizon, 4))
        jax.eval_shape(learner.update, fresh(learner), keys, batch, {}, {})

    trace(action_weight=0.5, first_action_weight=10.0)
    expected = np.ones((TINY.horizon, 4))
    expected[:, :2] = 0.5
    expected[0, :2] = 10.0
    np.testing.assert_allclose(seen[-1], expected)
    trace(loss_discount=0.5)
    np.testing.assert_allclose(seen[-1][1:] / seen[-1][:-1], 0.5)


def marked(lengths):
    """Episodes whose every row says which they are, from 1."""
    rows = np.concatenate(
        [np.full(length + 1, e, np.float32) for e, length in enumerate(lengths, 1)]
    )
    lengths = np.array(lengths)
    actions = np.stack([rows, rows], 1)
    ends = np.cumsum(lengths + 1) - 1
    actions[ends] = 0
    return dataclasses.replace(
        EPISODES,
        observations=np.stack([rows, rows], 1),
        actions=actions,
        rewards=np.zeros(len(rows), np.float32),
        starts=ends - lengths,
        lengths=lengths,
        terminated=np.zeros(len(lengths), bool),
        goals=None,
    )


def windows_of(episodes, count=400, **options):
    config = dataclasses.replace(TINY, normalizer="gaussian", **options)
    statistics = measure(config, episodes)
    learner = diffuser(config, statistics, action_dim=2).learners["denoiser"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), count)
    drawn = jax.vmap(learner.draw, (None, 0))(data, keys)
    return np.asarray(unnormalize(statistics.normalizer, drawn))


def test_windows_keep_to_their_episode():
    # An episode of 10 has three windows of 8 rows, one of 8 a single window, and the
    # row without an action is in none of them.
    windows = windows_of(marked([10, 5, 8]))
    assert windows.shape == (400, TINY.horizon, 4)
    np.testing.assert_allclose(windows, windows[:, :1, :1] + 0 * windows, atol=1e-5)
    shares = [np.isclose(windows[:, 0, 0], e).mean() for e in (1, 2, 3)]
    np.testing.assert_allclose(shares, [0.75, 0, 0.25], atol=0.08)


def test_padding_reads_zeros_and_never_the_next_episode():
    windows = windows_of(marked([10, 5, 8]), padding=True)
    first = windows[:, :1, :1]
    assert set(np.unique(first.round(3))) == {1.0, 2.0, 3.0}
    beyond = np.isclose(windows, 0, atol=1e-5)
    own = np.isclose(windows, first, atol=1e-5)
    assert (beyond | own).all()
    # From the first zero on there are only zeros, in actions and observations alike.
    np.testing.assert_array_equal(beyond, np.maximum.accumulate(beyond, axis=1))
    np.testing.assert_array_equal(beyond.any(2), beyond.all(2))
    inside = own.all(2).sum(1)
    assert set(inside[first[:, 0, 0].round() == 2]) == {1, 2, 3, 4, 5}


# --- acting --------------------------------------------------------------------------

# States of four numbers, so that there are velocities to track.
RANGE = np.array([[1, 1, 2, 2, 5, 5]], np.float32)
MOVING = dataclasses.replace(
    STATISTICS, normalizer=fit_normalizer("limits", np.concatenate([-RANGE, RANGE]))
)


def actor(monkeypatch, planner, **options):
    """Diffuser with plans that we make up, and its compiled way of acting."""
    monkeypatch.setattr(module, "_planner", lambda *args: planner)
    algorithm = build(MOVING, **options)
    act = jax.jit(algorithm.act)

    def play(observations, resets):
        """Acts through `[T, B, 4]` observations; the outputs of every step."""
        carry = algorithm.init_carry(observations.shape[1])
        outputs = []
        for t, observation in enumerate(observations):
            output, carry = act(
                {}, carry, jax.random.key(t), observation, resets[t], goal=None
            )
            outputs.append(jax.tree.map(np.asarray, output))
        return outputs

    return play


def needing(table):
    """A planner whose plans need as many steps as the observation's first entry says.

    Every entry of a plan is its horizon. `table(horizon, need)` is its dynamics_error.
    """

    def plan(states, key, observation, goal=None, *, horizon=None, candidates=None):
        need = observation[:, 0]
        strain = jnp.broadcast_to(table(horizon, need), need.shape)
        return Plans(
            trajectories=jnp.full((len(need), 1, horizon, 6), float(horizon)),
            dynamics_error=strain[:, None],
        )

    return plan


def once(play, needs):
    observation = np.zeros((1, len(needs), 4), np.float32)
    observation[0, :, 0] = needs
    return play(observation, np.ones((1, len(needs)), bool))[0]


def test_earliest_takes_the_shortest_feasible_horizon(monkeypatch):
    planner = needing(lambda horizon, need: jnp.where(horizon >= need, 1.0, 100.0))
    play = actor(
        monkeypatch, planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5
    )
    output = once(play, [3, 4, 5, 8, 9, 12])
    np.testing.assert_array_equal(output.plan[:, 0, 0], [4, 4, 6, 8, 10, 12])
    assert output.planned.all()
    assert output.plan.shape == (6, 12, 6)


def test_earliest_measures_against_the_longest_horizon(monkeypatch):
    # Consistent only in comparison: what is asked of a plan is 2.5 times what the
    # longest horizon has, 4 here.
    strains = {4: 10.2, 6: 10.1, 8: 9.9, 10: 50.0, 12: 4.0}
    planner = needing(lambda horizon, need: jnp.float32(strains[horizon]))
    play = actor(
        monkeypatch, planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5
    )
    assert once(play, [0]).plan[0, 0, 0] == 8
    strains[8] = 10.3
    play = actor(
        monkeypatch, planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5
    )
    assert once(play, [0]).plan[0, 0, 0] == 12


def test_fixed_takes_its_own_horizon(monkeypatch):
    planner = needing(lambda horizon, need: jnp.where(horizon >= need, 1.0, 100.0))
    play = actor(monkeypatch, planner, choose="fixed")
    np.testing.assert_array_equal(once(play, [3, 8, 12]).plan[:, 0, 0], [8, 8, 8])


@pytest.mark.parametrize("choose", ["fixed", "earliest"])
def test_the_most_consistent_candidate_is_followed(monkeypatch, choose):
    order = jnp.array([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]])

    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        which = jnp.arange(3.0)[None, :, None, None]
        return Plans(
            trajectories=jnp.broadcast_to(which, (2, 3, horizon, 6)),
            dynamics_error=order,
        )

    play = actor(monkeypatch, planner, choose=choose, candidates=3)
    output = play(np.zeros((1, 2, 4), np.float32), np.ones((1, 2), bool))[0]
    np.testing.assert_array_equal(output.plan[:, 0, 0], [1, 2])


def test_an_environment_that_begins_anew_disturbs_no_other(monkeypatch):
    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        begun = observation[:, :1, None, None]
        rows = jnp.arange(horizon)[None, None, :, None]
        x = jnp.broadcast_to(begun + rows, (len(observation), 1, horizon, 6))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))

    play = actor(monkeypatch, planner)
    observations = np.zeros((4, 2, 4), np.float32)
    observations[:, :, 0] = 100 * np.arange(4)[:, None]
    resets = np.array([[True, True], [False, False], [False, True], [False, False]])
    outputs = play(observations, resets)
    np.testing.assert_array_equal([o.planned for o in outputs], resets)
    # With the "action" controller the planned actions come one after another.
    np.testing.assert_array_equal(
        [o.action[:, 0] for o in outputs], [[0, 0], [1, 1], [2, 200], [3, 201]]
    )


@pytest.mark.parametrize("choose", ["fixed", "earliest"])
@pytest.mark.parametrize("lost", [0.35, 0.0])
def test_whoever_strays_from_a_plan_is_given_a_new_one(monkeypatch, choose, lost):
    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        begun = observation[:, None, None, :1]  # and onwards by 0.1 a row
        rows = 0.1 * jnp.arange(horizon)[None, None, :, None]
        x = jnp.broadcast_to(begun + rows, (len(observation), 1, horizon, 6))
        x = x.at[..., 3].set(0.0)
        return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))

    play = actor(
        monkeypatch, planner, choose=choose, horizons=(12,), horizon=12, lost=lost,
        controller="track",
    )  # fmt: skip
    observations = np.zeros((10, 2, 4), np.float32)
    observations[:, 0, 0] = 0.1 * np.arange(10)  # follows; the other one is stuck
    outputs = play(observations, np.arange(10)[:, None] == [0, 0])
    times = [np.flatnonzero([o.planned[i] for o in outputs]).tolist() for i in (0, 1)]
    assert times == [[0], [0, 4, 8] if lost else [0]]


def replanned(monkeypatch, steps, *, need=None, every=2, **options):
    """Times at which plans are made, and the horizons of the plans followed."""

    def feasible(horizon, observed):
        return jnp.where(horizon >= observed, 1.0, 100.0)

    play = actor(
        monkeypatch, needing(feasible), replan_every=every, horizon=12, **options
    )
    observations = np.zeros((steps, 1, 4), np.float32)
    if need is not None:
        observations[:, 0, 0] = need
    resets = np.arange(steps)[:, None] == 0
    outputs = play(observations, resets)
    times = [t for t, output in enumerate(outputs) if output.planned[0]]
    return times, [int(outputs[t].plan[0, 0, 0]) for t in times]


def test_plans_shrink_towards_the_arrival(monkeypatch):
    times, horizons = replanned(monkeypatch, 30)
    assert times == [0, 2, 4, 6, 8, 10]
    # Of the declared horizons 4, 8 and 12 the shortest that covers what remains.
    assert horizons == [12, 12, 8, 8, 4, 4]
    # The last of them arrives no later than its rounding up to a declared horizon.
    assert times[-1] + horizons[-1] - 1 <= 11 + 4


def test_a_shorter_plan_covers_all_that_remains(monkeypatch):
    times, horizons = replanned(monkeypatch, 20, every=1)
    assert times == list(range(11))
    assert horizons == [12] * 4 + [8] * 4 + [4] * 3


def test_earliest_arrivals_come_nearer_and_then_planning_ends(monkeypatch):
    # The way ahead shrinks by a row a step, as it does where plans are followed.
    need = np.maximum(12 - np.arange(30), 1)
    times, horizons = replanned(monkeypatch, 30, need=need, choose="earliest")
    assert times[0] == 0
    assert horizons[0] == 12
    assert horizons == sorted(horizons, reverse=True)
    assert times[-1] <= 12


def test_the_arrival_is_not_put_off_for_ever(monkeypatch):
    # At the goal, or stuck: however often one looks, a plan of 4 rows is feasible.
    times, _ = replanned(monkeypatch, 30, choose="earliest")
    assert times == [0]


@pytest.mark.parametrize(
    ("every", "eased", "taken"),
    [
        # The first plan has 8 rows and arrives at 7. At 3 that takes 4 more steps, and
        # the shortest feasible plan 7; at 6 it takes one, and the shortest 3.
        (3, 4, [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]),
        # At 3 a plan takes 3 steps, within the 4 that are left.
        (3, 3, [0, 1, 2, 300, 301, 302, 303, 0, 0, 0]),
        # At 4 a plan takes the 3 that are left.
        (4, 4, [0, 1, 2, 3, 400, 401, 402, 403, 0, 0]),
    ],
)
def test_a_plan_that_arrives_later_is_not_taken_up(monkeypatch, every, eased, taken):
    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        asked, need = observation[:, :1], observation[:, 1]
        rows = 100 * asked + jnp.arange(horizon)
        x = jnp.broadcast_to(rows[:, None, :, None], (len(need), 1, horizon, 6))
        strain = jnp.where(horizon >= need, 1.0, 100.0)
        return Plans(trajectories=x, dynamics_error=strain[:, None])

    play = actor(
        monkeypatch, planner, choose="earliest", controller="action",
        replan_every=every, horizons=(4, 8, 12), horizon=12,
    )  # fmt: skip
    observations = np.zeros((10, 1, 4), np.float32)
    observations[:, 0, 0], observations[:, 0, 1] = np.arange(10), 8
    observations[eased:, 0, 1] = 4
    outputs = play(observations, np.arange(10)[:, None] == 0)
    assert [float(output.action[0, 0]) for output in outputs] == taken
    planned = [t for t, output in enumerate(outputs) if output.planned[0]]
    assert planned == sorted({action // 100 for action in taken})


# --- control -------------------------------------------------------------------------

ROWS = np.random.default_rng(3).uniform(-1, 1, (8, 6)).astype(np.float32)


def made_up(states, key, observation, goal=None, *, horizon=None, candidates=None):
    x = jnp.broadcast_to(ROWS[:horizon], (len(observation), 1, horizon, 6))
    return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))


def test_tracking_follows_the_planned_states(monkeypatch):
    play = actor(monkeypatch, made_up, controller="track", kp=0.3, kd=0.1)
    observations = (
        np.random.default_rng(4).uniform(-1, 1, (11, 2, 4)).astype(np.float32)
    )
    outputs = play(observations, np.arange(11)[:, None] + np.zeros((1, 2)) == 0)
    for t, output in enumerate(outputs):
        # After the last planned state the point rests where that was.
        target, speed = (ROWS[t + 1, 2:4], ROWS[t + 1, 4:]) if t < 7 else (
            ROWS[7, 2:4], 0.0)  # fmt: skip
        position, velocity = observations[t, :, :2], observations[t, :, 2:]
        force = 0.3 * (target - position) + 0.1 * (speed - velocity)
        np.testing.assert_allclose(output.action, force, atol=1e-5)


def test_tracking_keeps_to_the_bounds_of_the_force(monkeypatch):
    play = actor(monkeypatch, made_up, controller="track", kp=1000.0, kd=0.0)
    observation = np.random.default_rng(4).uniform(-1, 1, (1, 2, 4)).astype(np.float32)
    (output,) = play(observation, np.ones((1, 2), bool))
    np.testing.assert_array_equal(
        output.action, np.sign(ROWS[1, 2:4] - observation[0, :, :2])
    )


def test_actions_are_those_planned(monkeypatch):
    play = actor(monkeypatch, made_up, controller="action")
    observations = np.zeros((11, 2, 4), np.float32)
    outputs = play(observations, np.arange(11)[:, None] + np.zeros((1, 2)) == 0)
    for t, output in enumerate(outputs):
        # After the plan there is nothing to do.
        action = ROWS[t, :2] if t < 8 else np.zeros(2)
        np.testing.assert_array_equal(output.action, [action] * 2)


def test_tracking_needs_a_velocity_for_each_action():
    assert build(MOVING, controller="track")
    assert build(STATISTICS, controller="action")
    with pytest.raises(UserError, match=r"2 velocities .*2 numbers.*action"):
        build(STATISTICS, controller="track")


def simulator():
    """The point of PointMaze: its way of taking steps, and how to place it."""
    pytest.importorskip("gymnasium_robotics")
    point: Any = pointmaze.make_env("umaze").unwrapped.point_env  # pyright: ignore
    return point.step, lambda state: point.set_state(state[:2], state[2:])


def test_default_gains_cancel_an_error_of_velocity_in_one_step(monkeypatch):
    step, place = simulator()
    start = np.array([1.0, 1.0, 0.05, -0.1])
    place(start)
    rows = np.zeros((8, 6), np.float32)
    rows[:, 2:4], rows[:, 4:] = start[:2], [0.2, 0.1]

    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        x = jnp.broadcast_to(rows, (1, 1, 8, 6))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((1, 1)))

    play = actor(monkeypatch, planner, controller="track")
    (output,) = play(start[None, None].astype(np.float32), np.ones((1, 1), bool))
    state = step(np.asarray(output.action[0]))[0]
    np.testing.assert_allclose(state[2:], [0.2, 0.1], atol=2e-3)


def test_default_gains_track_a_recorded_drive(monkeypatch):
    step, place = simulator()
    stream = record_stream(pointmaze.maze_by_name("umaze"), steps=300, seed=1)
    rows = np.concatenate([stream.actions, stream.observations[:-1]], axis=1)

    def planner(states, key, observation, goal=None, *, horizon=None, candidates=None):
        x = jnp.broadcast_to(jnp.asarray(rows), (1, 1, *rows.shape))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((1, 1)))

    def worst(**gains):
        config = DiffuserConfig(choose="fixed", horizon=300, **gains)
        act, init_carry = follow(planner, config, [300], dim=6, action_dim=2)
        act, carry = jax.jit(act), init_carry(1)
        state, distances = rows[0, 2:].astype(np.float64), []
        place(state)
        for t, target in enumerate(rows[1:, 2:]):
            observation = state[None].astype(np.float32)
            output, carry = act(
                {}, carry, jax.random.key(0), observation, np.array([t == 0])
            )
            state = step(np.asarray(output.action[0]))[0]
            distances.append(np.linalg.norm(state[:2] - target[:2]))
        return np.max(distances)

    default, unit = worst(), worst(kp=1.0, kd=1.0)
    assert default < 0.08
    assert default < unit / 2


# --- presets -------------------------------------------------------------------------

MAZES = [
    ("pointmaze-umaze", 128, 64),
    ("pointmaze-medium", 256, 256),
    ("pointmaze-large", 384, 256),
]


@pytest.mark.parametrize(("dataset", "horizon", "levels"), MAZES)
def test_released_and_paper_presets_are_diffusers(dataset, horizon, levels):
    for name in ("released", "paper"):
        config, training = preset("diffuser", name, dataset)
        # The paper's 265 steps in the medium maze cannot be halved twice.
        wanted = 264 if (name, horizon) == ("paper", 256) else horizon
        expected = {
            "horizon": wanted, "diffusion_steps": levels, "dim": 32,
            "dim_mults": (1, 4, 8), "attention": False, "prediction": "x0",
            "clip": 1.0, "normalizer": "limits", "norm": "l2", "padding": False,
            "action_weight": 1.0, "loss_discount": 1.0, "goal_dim": 4,
            "learning_rate": 2e-4 if name == "released" else 4e-5,
            "learning_rate_decay": 0, "accumulate": 2, "ema_decay": 0.995,
            "ema_every": 10, "ema_start": 2000, "sampler": "ddpm",
            "sampling_steps": None, "temperature": 1.0, "candidates": 1,
            "choose": "fixed", "controller": "track", "kp": 1.0, "kd": 1.0,
            "replan_every": 0,
        }  # fmt: skip
        found = dataclasses.asdict(config)
        assert {key: found[key] for key in expected} == expected
        assert config.first_action_weight in (None, 1.0)
        updates = 2_000_000 if name == "released" else 500_000
        assert training["denoiser"].batch_size == 64  # two slices of 32
        assert training["denoiser"].num_steps == updates


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dataset", [name for name, *_ in MAZES] + ["anything"])
def test_presets_can_be_built(name, dataset):
    config, training = preset("diffuser", name, dataset)
    horizons = declared_horizons(config)
    assert config.horizon in horizons
    assert max(horizons) >= config.horizon
    for each in training.values():
        assert each.num_steps % each.save_every == 0


def test_presets_have_names():
    with pytest.raises(UserError, match="demo, released, paper"):
        preset("diffuser", "best", "pointmaze-umaze")
