import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from planners import POINT, held, keys_of, replaced, use_network
from points import line, straight_lines

from jaxdiff.algorithms.planning import denoiser as denoiser_module
from jaxdiff.algorithms.planning import diffuser as diffuser_module
from jaxdiff.algorithms.planning import planner as planner_module
from jaxdiff.algorithms.planning.diffuser import (
    ENTRY,
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.algorithms.planning.network import NETWORKS, TrajectoryNetwork
from jaxdiff.algorithms.planning.options import declared_horizons
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.data.spec import Layout, Spec
from jaxdiff.errors import UserError

TINY = DiffuserConfig(
    horizon=8,
    horizons=(4, 8, 12),
    diffusion_steps=5,
    dim=8,
    dim_mults=(1, 2),
    prediction="x0",
    action_weight=1.0,
    goal_dim=2,
)
EPISODES = straight_lines(60)
STATISTICS = measure(TINY, EPISODES, POINT)
START = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 2)).astype(np.float32)
GOAL = np.random.default_rng(1).uniform(-0.9, 0.9, (3, 2)).astype(np.float32)


def build(statistics=STATISTICS, **options):
    config, acting = replaced(TINY, DiffuserActing(), options)
    return diffuser(config, acting, statistics, POINT)


def problem(goal=GOAL, **fields):
    return Problem(history=START[:, None], goal=goal, **fields)


class Pointwise(nn.Module):
    """A network small enough to compile at once."""

    @nn.compact
    def __call__(self, x, time, condition=None):
        return nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(x)))


@pytest.fixture
def pointwise(monkeypatch):
    """The name of a network that compiles at once."""
    return use_network(monkeypatch, Pointwise())


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
        states, keys_of(3), problem(), horizon=horizon, candidates=2
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
    network = use_network(monkeypatch, Perfect())
    algorithm = build(network=network, sampler=sampler, sampling_steps=3)
    plan = jax.jit(
        algorithm.plan, static_argnames=("horizon", "candidates", "return_path")
    )
    plans = plan(
        {"denoiser": held({})}, keys_of(3), problem(), horizon=12, candidates=2,
        return_path=True,
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
    np.testing.assert_allclose(plans.path[-1], plans.trajectories, atol=1e-6)
    # The ends stand in every one of the noise levels.
    np.testing.assert_allclose(
        plans.path[:, :, :, 0, 2:], START[:, None] + np.zeros((4, 3, 2, 2)), atol=1e-6
    )
    assert not np.allclose(plans.path[0], plans.path[1])


def test_the_planner_uses_averaged_parameters(pointwise):
    algorithm = build(network=pointwise)
    one, other = (fresh(algorithm.learners["denoiser"], seed) for seed in (0, 1))
    plan = jax.jit(algorithm.plan)

    def planned(params, slow):
        state = dataclasses.replace(one, params=params, slow={"ema": slow})
        return plan({"denoiser": state}, keys_of(3), problem()).trajectories

    np.testing.assert_array_equal(
        planned(one.params, one.params), planned(other.params, one.params)
    )
    assert (planned(one.params, one.params) != planned(one.params, other.params)).any()


@pytest.mark.parametrize("goal_dim", [0, 1, 2])
def test_loss_and_sampler_clamp_the_same_entries(pointwise, monkeypatch, goal_dim):
    loss, sample, seen = denoiser_module.denoising_loss, planner_module.sample, {}

    def spy_loss(*args, **options):
        seen["loss"] = np.asarray(options["mask"])
        return loss(*args, **options)

    def spy_sample(*args, **options):
        seen["sample"] = np.asarray(options["clamp"].mask)
        return sample(*args, **options)

    monkeypatch.setattr(denoiser_module, "denoising_loss", spy_loss)
    monkeypatch.setattr(planner_module, "sample", spy_sample)
    algorithm = build(network=pointwise, goal_dim=goal_dim, diffusion_steps=1)
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
    jax.eval_shape(algorithm.plan, states, keys_of(3), problem())
    np.testing.assert_array_equal(seen["sample"], expected)
    jax.eval_shape(algorithm.plan, states, keys_of(3), problem(goal=None))
    expected[-1] = False
    np.testing.assert_array_equal(seen["sample"], expected)


def test_horizons_must_halve_often_enough():
    config = dataclasses.replace(TINY, dim_mults=(1, 2, 4), horizon=20)
    assert declared_horizons(dataclasses.replace(config, horizons=(8, 4))) == [4, 8, 20]
    for wrong, nearest in ((127, 128), (129, 128), (21, 20), (3, 4), (2, 4)):
        for change in ({"horizon": wrong}, {"horizons": (8, wrong)}):
            with pytest.raises(UserError, match=rf"{wrong}\b.*choose {nearest}$"):
                dataclasses.replace(config, **change)
        dataclasses.replace(config, horizon=nearest, horizons=(nearest,))


# --- training ------------------------------------------------------------------------


def updates(count, *, batch_size=8, **options):
    """States after each of a number of updates, the first before any."""
    learner = build(network="made-up", **options).learners["denoiser"]
    data = learner.prepare(EPISODES, {}, jax.random.key(0))

    @jax.jit
    def update(state, key):
        keys = jax.random.split(key, batch_size)
        batch = jax.vmap(learner.draw, (None, 0))(data, keys)
        return learner.update(state, keys, batch, {}, {"num_steps": count})[0]

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
    states = updates(4, learning_rate_decay=0.75)
    chex.assert_trees_all_equal(states[4].params, states[3].params)
    first = jax.tree.leaves(states[1].params)[0] - jax.tree.leaves(states[0].params)[0]
    # Adam's first step is the learning rate itself.
    np.testing.assert_allclose(np.abs(first), TINY.learning_rate, rtol=1e-2)


def test_updates_take_turns_with_the_training_horizons(pointwise):
    """Update n is that of a learner of its horizon alone, on the window's beginning."""
    both = build(network=pointwise, horizon=4, train_horizons=(8, 4)).learners[
        "denoiser"
    ]
    alone = [
        build(network=pointwise, horizon=h, horizons=()).learners["denoiser"]
        for h in (4, 8)
    ]
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
    with pytest.raises(UserError, match=r"`train_horizons` is \(1,\)"):
        build(train_horizons=(1,))


def test_weights_of_the_loss(pointwise, monkeypatch):
    loss, seen = denoiser_module.denoising_loss, []

    def spy(*args, **options):
        seen.append(np.asarray(options["weight"]) + np.zeros((TINY.horizon, 4)))
        assert options["norm"] == "l1"
        assert options["prediction"] == "v"
        return loss(*args, **options)

    monkeypatch.setattr(denoiser_module, "denoising_loss", spy)

    def trace(**options):
        options = {"network": pointwise, "norm": "l1", "prediction": "v", **options}
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
    options = {"normalizer": "gaussian", "clip": None, **options}
    config, acting = replaced(TINY, DiffuserActing(), options)
    statistics = measure(config, episodes, POINT)
    learner = diffuser(config, acting, statistics, POINT).learners["denoiser"]
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
    episodes = marked([10, 5, 8])
    episodes = episodes.replace(terminated=np.ones(3, bool))
    windows = windows_of(episodes, padding=True)
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


@pytest.mark.parametrize("history", [1, 3])
def test_windows_begin_with_the_history_up_to_the_present(history):
    windows = windows_of(straight_lines(5, steps=12), history=history)
    # A line moves by the same step from row to row, but for the noise of the data.
    steps = np.diff(windows[:, :, 2:], axis=1)
    still = np.abs(steps[:, : history - 1]).max(-1, initial=0) < 1e-5
    moving = np.abs(steps[:, history - 1 :]).max(-1) > 1e-3
    assert moving.mean() > 0.95
    # Only before the beginning of an episode does the first state stand still.
    assert (history == 1) or 0.05 < still.mean() < 0.8


# --- noise, layouts, networks --------------------------------------------------------


def test_noise_of_a_problem_does_not_depend_on_the_others(pointwise):
    """Bit-equal noise at the beginning, equal plans to rounding."""
    algorithm = build(network=pointwise, candidates=2)
    states = {"denoiser": fresh(algorithm.learners["denoiser"])}
    plan = jax.jit(algorithm.plan, static_argnames="return_path")
    keys = keys_of(3)
    together = plan(states, keys, problem(), return_path=True)
    for b in range(3):
        one = Problem(history=START[b : b + 1, None], goal=GOAL[b : b + 1])
        alone = plan(states, keys[b : b + 1], one, return_path=True)
        np.testing.assert_array_equal(together.path[0, b], alone.path[0, 0])
        np.testing.assert_allclose(
            together.trajectories[b], alone.trajectories[0], atol=1e-5
        )
    noise = np.reshape(together.path[0][:, :, 1:-1], (6, -1))
    assert len(np.unique(noise, axis=0)) == 6


def test_first_actions_do_not_depend_on_how_many_act(pointwise):
    algorithm = build(network=pointwise)
    states = {"denoiser": fresh(algorithm.learners["denoiser"])}
    act, keys = jax.jit(algorithm.act), keys_of(3)

    def actions(rows):
        count = len(START[rows])
        carry, reset = algorithm.init_carry(count), np.ones(count, bool)
        output, _ = act(states, carry, keys[rows], START[rows], reset, GOAL[rows])
        return output.action

    together = actions(slice(0, 3))
    for b in range(3):
        np.testing.assert_allclose(together[b], actions(slice(b, b + 1))[0], atol=1e-5)


def permuted(order):
    """The straight lines with other entries around the position, and their spec."""
    rng = np.random.default_rng(4)
    others = rng.uniform(-1, 1, (len(EPISODES.observations), 2)).astype(np.float32)
    rows = np.concatenate([EPISODES.observations, others], axis=1)
    observations = np.empty_like(rows)
    observations[:, order] = rows
    layout = Layout(position=tuple(order[:2]), goal=tuple(order[:2]))
    episodes = dataclasses.replace(EPISODES, observations=observations)
    return episodes, Spec((4,), action_dim=2, goal_dim=2, layout=layout)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_goals_are_met_in_the_entries_that_the_layout_names(pointwise, order):
    episodes, spec = permuted(order)
    config = dataclasses.replace(TINY, network=pointwise)
    statistics = measure(config, episodes, spec)
    algorithm = diffuser(config, DiffuserActing(), statistics, spec)
    learner = algorithm.learners["denoiser"]
    shapes = jax.eval_shape(
        lambda: learner.init(keys_of(1)[0], jnp.zeros((1, 8, 6)), {}).params
    )
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    start = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    plans = algorithm.plan(
        {"denoiser": held(params)}, keys_of(1),
        Problem(history=start[:, None], goal=GOAL[:1]),
    )  # fmt: skip
    states = np.asarray(plans.trajectories[0, 0, :, 2:])
    np.testing.assert_allclose(states[0], start[0], atol=1e-5)
    np.testing.assert_allclose(states[-1, order[:2]], GOAL[0], atol=1e-5)
    # Where the data have been is measured in the same entries.
    scaled = normalize(statistics.normalizer, np.zeros((1, 6), np.float32))
    assert statistics.support.states.shape[1] == 2
    assert np.isfinite(scaled).all()
    lines = measure(TINY, EPISODES, POINT).support.states
    np.testing.assert_allclose(
        np.sort(statistics.support.states, 0), np.sort(lines, 0), atol=1e-5
    )


def test_a_network_of_ones_own_is_named_by_an_option(monkeypatch):
    name = use_network(monkeypatch, Pointwise(), name="mine", multiple=3)
    config = dataclasses.replace(TINY, network=name, horizon=9, horizons=())
    algorithm = diffuser(config, DiffuserActing(), STATISTICS, POINT)
    assert set(algorithm.learners) == {"denoiser"}
    with pytest.raises(UserError, match=r"horizon 8 .*`network='mine'`.*choose 9"):
        dataclasses.replace(config, horizon=8)
    with pytest.raises(UserError, match=r"`network` is 'other'; .*unet, dit"):
        dataclasses.replace(config, network="other")


class Said(nn.Module):
    """A network whose output says by what precision it was built."""

    precision: str

    @nn.compact
    def __call__(self, x, time, condition=None):
        return jnp.full_like(x, 0.5 if self.precision == "bfloat16" else -0.5)


@pytest.mark.parametrize(
    ("trained", "asked", "found"),
    [
        ("float32", None, -0.5),
        ("bfloat16", None, 0.5),
        ("float32", "bfloat16", 0.5),
        ("bfloat16", "float32", -0.5),
    ],
)
def test_acting_rounds_as_trained_or_as_asked(monkeypatch, trained, asked, found):
    network = TrajectoryNetwork(lambda config: Said(config.precision))
    monkeypatch.setitem(NETWORKS, "said", network)
    config = dataclasses.replace(TINY, network="said", precision=trained)
    built = diffuser(config, DiffuserActing(plan_precision=asked), STATISTICS, POINT)
    plans = jax.jit(built.plan)({"denoiser": held({})}, keys_of(3), problem())
    rows = normalize(STATISTICS.normalizer, plans.trajectories[:, 0, 1:-1])
    np.testing.assert_allclose(rows, found, atol=1e-5)
    learner = built.learners["denoiser"]
    batch = jnp.full((1, TINY.horizon, 4), 0.5 if trained == "bfloat16" else -0.5)
    state = learner.init(jax.random.key(0), batch, {})
    metrics = learner.update(state, keys_of(1), batch, {}, {})[1]
    np.testing.assert_allclose(metrics["loss"], 0, atol=1e-6)


@pytest.mark.parametrize("asked", [None, "bfloat16"])
def test_the_model_of_returns_rounds_as_plans_do(monkeypatch, pointwise, asked):
    class Told(nn.Module):
        precision: str

        @nn.compact
        def __call__(self, x, time):
            return jnp.full(len(x), 2.0 if self.precision == "bfloat16" else 1.0)

    monkeypatch.setattr(
        diffuser_module, "TemporalValue", lambda precision, **_: Told(precision)
    )
    options = {"network": pointwise, "horizons": (8,), "dim": 32, "return_model": True}
    config = dataclasses.replace(TINY, **options)
    built = diffuser(config, DiffuserActing(plan_precision=asked), STATISTICS, POINT)
    params = Pointwise().init(jax.random.key(0), jnp.zeros((1, 8, 4)), jnp.zeros(1))
    states = {"denoiser": held(params), "returns": held({})}
    plans = jax.jit(built.plan)(states, keys_of(3), problem())
    np.testing.assert_array_equal(plans.expected_return, 2.0 if asked else 1.0)


def test_limits_of_a_gaussian_are_refused():
    with pytest.raises(UserError, match=r"`clip` is 1.0.*choose `clip=None`"):
        dataclasses.replace(TINY, normalizer="gaussian")


def test_all_faults_are_reported_at_once():
    with pytest.raises(UserError, match=r"`ema_decay` is 2.0; .*; also, `dim` is 12; "):
        dataclasses.replace(TINY, dim=12, ema_decay=2.0)
    with pytest.raises(
        UserError, match=r"`sampling_steps` is 9; .* 5; also, .*`controller='track'`"
    ):
        build(sampling_steps=9, controller="track")


# --- options for data that no task knows ---------------------------------------------


def dataset_of(episodes):
    return Dataset(
        name="data", episodes=episodes, observation_shape=(2,), fingerprint=""
    )


def test_generic_options_fit_any_data():
    rewards = np.arange(len(EPISODES.rewards), dtype=np.float32) % 5
    paid = dataclasses.replace(EPISODES, rewards=rewards, goals=None)
    unpaid = dataclasses.replace(EPISODES, goals=None)
    for episodes, spec, learners, goals in (
        (EPISODES, POINT, ["denoiser"], 2),
        (EPISODES, dataclasses.replace(POINT, layout=Layout()), ["denoiser"], 0),
        (unpaid, Spec((2,), 2), ["denoiser"], 0),
        (paid, Spec((2,), 2), ["denoiser", "returns"], 0),
    ):
        config, acting, training, _ = ENTRY.generic(dataset_of(episodes), spec)
        assert config.horizon == 8  # no episode is longer
        assert config.goal_dim == goals
        statistics = ENTRY.measure(config, episodes, spec)
        algorithm = ENTRY.build(config, acting, statistics, spec)
        assert list(algorithm.learners) == learners
        assert set(learners) <= set(training)
        for learner in algorithm.learners.values():
            learner.prepare(episodes, {}, jax.random.key(0))
    # Guidance is as strong as one standard deviation of the returns is likely.
    assert acting.guide_scale * 10 * rewards.std() > 0.1
    assert acting.rank == "return"


def test_generic_options_track_where_positions_and_velocities_are_known():
    layout = Layout(position=(0, 1), velocity=(0, 1), goal=(0, 1))
    spec = dataclasses.replace(POINT, layout=layout)
    for given, controller in ((spec, "track"), (POINT, "action")):
        preset = ENTRY.generic(dataset_of(EPISODES), given)
        assert preset.acting.controller == controller
