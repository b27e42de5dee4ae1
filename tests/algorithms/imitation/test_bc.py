import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines
from toy import spec_of

from jaxdiff.algorithms.base import TrainConfig, TrainState
from jaxdiff.algorithms.imitation.bc import BCActing, BCConfig, bc, generic, measure
from jaxdiff.algorithms.imitation.heads import (
    clustered,
    discretised,
    energy,
    gaussian,
    squared_error,
)
from jaxdiff.algorithms.imitation.policy import preparing
from jaxdiff.data.episodes import Dataset, Episodes
from jaxdiff.data.spec import Layout
from jaxdiff.errors import UserError
from jaxdiff.host_program import call
from jaxdiff.train import train_learners

KEYS = jax.random.split(jax.random.key(0), 2)
CONFIG = BCConfig(hidden=32, learning_rate=1e-2, ema_decay=0.98)


def two_ways(count=200):
    """Episodes of one step: from s to the left or, three times as often, to the right.

    The actions are far from zero and of different sizes, so that a policy which forgot
    to undo the normalisation would be seen.
    """
    s = np.random.default_rng(0).uniform(5, 6, count)
    right = np.arange(count) % 4 != 0
    action = 10 + np.where(right, 2.0, -2.0)
    rows = 2 * count
    observations, actions = np.zeros((rows, 1)), np.zeros((rows, 2))
    observations[::2, 0] = s
    # Rows without an action hold what must never be learned.
    observations[1::2], actions[1::2] = 99.0, 99.0
    actions[::2, 0], actions[::2, 1] = action, 100 * s
    return Episodes(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        starts=2 * np.arange(count),
        lengths=np.ones(count, int),
        terminated=np.zeros(count, bool),
    )


def built(config, episodes, spec=None):
    spec = spec or spec_of(episodes)
    return bc(config, BCActing(), measure(config, episodes, spec), spec)


def trained(config, episodes, num_steps, spec=None):
    algorithm = built(config, episodes, spec)
    training = {"policy": TrainConfig(num_steps=num_steps, batch_size=64)}
    return algorithm, train_learners(algorithm, episodes, configs=training)


def test_squared_error_acts_as_the_mean_of_two_ways():
    algorithm, states = trained(CONFIG, two_ways(), 400)
    s = np.array([[5.2], [5.8]], np.float32)
    carry = algorithm.init_carry(2)
    output, _ = algorithm.act(states, carry, KEYS, s, np.ones(2, bool))
    # Three go right and one left: 10 + (3 - 1) / 4 * 2.
    np.testing.assert_allclose(output.action[:, 0], 11, atol=0.4)
    np.testing.assert_allclose(output.action[:, 1], 100 * s[:, 0], rtol=0.02)
    assert output.plan is None


def around(count=400):
    """Places anywhere on a table of 500, and decisions a short way to the right."""
    rng = np.random.default_rng(0)
    rows = 2 * count
    observations, actions = np.zeros((rows, 3)), np.zeros((rows, 2))
    observations[::2] = rng.uniform(0, 500, (count, 3))
    actions[::2] = observations[::2, :2] + [[20.0, 0.0]] + rng.normal(size=(count, 2))
    return dataclasses.replace(
        two_ways(count),
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
    )


@pytest.mark.parametrize("kind", ["mse", "kmeans-residual"])
def test_offsets_from_where_one_is_are_learned_and_undone(kind):
    config = dataclasses.replace(CONFIG, kind=kind, clusters=4, relative=True)
    episodes = around()
    spec = spec_of(episodes)
    # The policy does not learn a table of 500, only offsets of about 20.
    actions = measure(config, episodes, spec).actions
    assert (np.asarray(actions.knots[-1] - actions.knots[0]) < 10).all()
    algorithm, states = trained(config, episodes, 100)
    here = np.array([[10.0, 490.0, 3.0], [333.0, 44.0, 5.0]], np.float32)
    output, _ = algorithm.act(
        states, algorithm.init_carry(2), KEYS, here, np.ones(2, bool)
    )
    np.testing.assert_allclose(output.action - here[:, :2], [[20, 0]] * 2, atol=3)
    # Where the layout names the position, its entries are the reference.
    order = np.array([2, 1, 0])
    moved = dataclasses.replace(episodes, observations=episodes.observations[:, order])
    algorithm, states = trained(
        config, moved, 100, spec_of(moved, layout=Layout(position=(2, 1)))
    )
    output, _ = algorithm.act(
        states, algorithm.init_carry(2), KEYS, here[:, order], np.ones(2, bool)
    )
    np.testing.assert_allclose(output.action - here[:, :2], [[20, 0]] * 2, atol=3)


@pytest.mark.parametrize("shape", [None, (3, 1, 1)])
def test_offsets_need_positions_in_the_observation(shape):
    config = dataclasses.replace(CONFIG, relative=True)
    episodes = around(8) if shape else two_ways(8)
    with pytest.raises(UserError, match="choose `relative=False`"):
        measure(config, episodes, spec_of(episodes, shape))


def test_averaged_parameters_act():
    episodes = two_ways(8)
    algorithm = built(CONFIG, episodes)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(2), 4)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    state = call(learner.init, jax.random.key(1), batch, {})
    spoiled = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)

    def action(state: TrainState):
        return algorithm.act(
            {"policy": state},
            algorithm.init_carry(1),
            KEYS[:1],
            np.full((1, 1), 5.0, np.float32),
            np.ones(1, bool),
        )[0].action

    np.testing.assert_array_equal(
        action(dataclasses.replace(state, params=spoiled)), action(state)
    )


KINDS = ("mse", "discretised", "gaussian", "kmeans", "kmeans-residual", "energy")


def said(output):
    """A network whose output is given, and that sees no action and no time."""

    def denoise(embedding, action, time):
        np.testing.assert_array_equal(action, 0)
        np.testing.assert_array_equal(time, 0)
        return output

    return preparing(lambda *given: given, denoise)


def loss_of(head, output, actions):
    count = len(actions)
    keys, seen = jax.random.split(jax.random.key(0), count), jnp.zeros((count, 1, 1))
    return head.loss(keys, said(output), seen, actions)


def act_of(head, output, key=0):
    keys = jax.random.split(jax.random.key(key), len(output))
    return head.act(keys, said(output), jnp.zeros((len(output), 1, 1)))


def test_every_bin_is_an_equal_share_of_the_range():
    head = discretised(2, 4)
    assert head.features == 8
    actions = jnp.array([[-1.0, -0.51], [-0.49, -0.01], [0.01, 0.49], [0.51, 1.0]])
    bins = jnp.array([[0, 0], [1, 1], [2, 2], [3, 3]])
    sure = 50.0 * jax.nn.one_hot(bins, 4).reshape(4, 8)
    np.testing.assert_allclose(loss_of(head, sure, actions), 0, atol=1e-5)
    np.testing.assert_allclose(act_of(head, sure), -0.75 + 0.5 * bins, atol=1e-6)
    # Equal logits cost log 4 for each dimension and draw all bins alike.
    none = jnp.zeros((4000, 8))
    np.testing.assert_allclose(loss_of(head, none[:4], actions), 2 * np.log(4))
    drawn = np.asarray(act_of(head, none))
    np.testing.assert_allclose((drawn == -0.75).mean(0), 0.25, atol=0.04)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.08


def test_gaussian_is_the_likelihood_and_draws_from_it():
    head = gaussian(2)
    mean, std = jnp.array([0.3, -0.6]), jnp.array([0.1, 0.5])
    spread = jnp.log(jnp.expm1(std**2))  # of which softplus is the variance
    output = jnp.tile(jnp.concatenate([mean, spread]), (4000, 1))
    actions = jnp.array([[0.2, 0.4]])
    expected = -jax.scipy.stats.norm.logpdf(actions, mean, std).sum(-1)
    found = loss_of(head, output[:1], actions) + np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    drawn = act_of(head, output)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.06)


CENTERS = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_centres_are_drawn_by_their_shares():
    head = clustered(CENTERS)
    assert head.features == 3
    logits = jnp.tile(jnp.log(jnp.array([0.2, 0.5, 0.3])), (4000, 1))
    drawn = np.asarray(act_of(head, logits))
    found = [(drawn == center).all(-1).mean() for center in np.asarray(CENTERS)]
    np.testing.assert_allclose(found, [0.2, 0.5, 0.3], atol=0.04)
    actions = jnp.array([[0.1, 0.1], [0.9, 0.2], [0.2, 0.7]])
    expected = -np.log([0.2, 0.5, 0.3])
    np.testing.assert_allclose(loss_of(head, logits[:3], actions), expected, rtol=1e-5)


def test_offsets_belong_to_the_centre_that_was_nearest():
    head = clustered(CENTERS, residual_weight=100.0)
    assert head.features == 3 + 3 * 2
    actions = jnp.array([[0.1, -0.1], [0.9, 0.2], [0.2, 0.7]])
    offsets = jnp.full((3, 3, 2), 9.0)  # those of other centres are not read
    rows = jnp.arange(3)
    offsets = offsets.at[rows, rows].set(actions - CENTERS)
    output = jnp.concatenate([50.0 * jnp.eye(3), offsets.reshape(3, 6)], axis=-1)
    np.testing.assert_allclose(loss_of(head, output, actions), 0, atol=1e-5)
    np.testing.assert_allclose(act_of(head, output), actions, atol=1e-6)
    # An error of 0.1 in one of two dimensions.
    wrong = output.at[1, 3 + 2].add(0.1)
    np.testing.assert_allclose(
        loss_of(head, wrong, actions), [0, 100 * 0.01 / 2, 0], atol=1e-4
    )


def test_squared_error_has_its_least_at_the_mean():
    head = squared_error(1)
    actions = jnp.array([[-1.0], [1.0], [1.0], [1.0]])
    slope = jax.grad(lambda f: loss_of(head, jnp.full((4, 1), f), actions).mean())
    assert float(slope(0.5)) == pytest.approx(0, abs=1e-6)
    assert float(slope(0.6)) > 0 > float(slope(0.4))


def bowl(scale=1.0):
    """The energy of a normal density around what is seen, of deviation 0.2."""

    def denoise(embedding, action, time):
        del time
        return scale * jnp.square((action - embedding[:, 0]) / 0.2).sum(-1)[:, None] / 2

    return preparing(lambda *given: given, denoise)


def test_energy_is_least_told_apart_by_the_density_itself():
    """Equation (6): any other energy tells actions of a density worse from uniform."""
    head = energy(2, negatives=64, candidates=128)
    assert head.features == 1
    keys = jax.random.split(jax.random.key(0), 2000)
    seen = jax.random.uniform(jax.random.key(1), (2000, 1, 2), minval=-0.4, maxval=0.4)
    noise = jax.random.normal(jax.random.key(2), (2000, 2))
    actions = seen[:, 0] + 0.2 * noise

    def cost(scale):
        return float(head.loss(keys, bowl(scale), seen, actions).mean())

    # An energy that says nothing leaves all 65 alike.
    assert cost(0.0) == pytest.approx(np.log(65), rel=1e-5)
    assert cost(1.0) < min(cost(0.7), cost(1.4)) - 0.005
    assert cost(-1.0) > np.log(65)


def test_actions_are_told_from_uniform_ones_of_the_whole_range():
    def denoise(embedding, action, time):
        # Impossible on one half of [-1, 1], and all alike on the other.
        return jnp.where(action < 0, 50.0, 0.0)

    head = energy(1, negatives=1, candidates=8)
    keys = jax.random.split(jax.random.key(0), 4000)
    seen, actions = jnp.zeros((4000, 1, 1)), jnp.full((4000, 1), 0.5)
    # Every other one is told from its uniform action by a coin, the rest for sure.
    found = head.loss(keys, preparing(lambda *given: given, denoise), seen, actions)
    assert float(found.mean()) == pytest.approx(np.log(2) / 2, abs=0.02)


def test_the_least_energy_acts_for_each_observation():
    head = energy(2, negatives=8, candidates=128)
    seen = jnp.array([[[0.5, -0.3]], [[-0.8, 0.9]], [[1.5, 0.0]]])
    found = head.act(jax.random.split(jax.random.key(0), 3), bowl(), seen)
    # Actions end at 1.
    nearest = jnp.clip(seen[:, 0], -1, 1)
    np.testing.assert_allclose(found, nearest, atol=0.06)


def test_of_two_ways_the_search_takes_either():
    def denoise(embedding, action, time):
        return 50 * jnp.square(jnp.abs(action) - 0.5)

    head = energy(1, negatives=8, candidates=16)
    keys = jax.random.split(jax.random.key(0), 400)
    prepare = preparing(lambda *given: given, denoise)
    found = np.asarray(head.act(keys, prepare, jnp.zeros((400, 1, 1))))
    np.testing.assert_allclose(np.abs(found), 0.5, atol=0.15)
    assert 0.35 < (found > 0).mean() < 0.65


@pytest.mark.parametrize("head", [discretised(2, 4), gaussian(2), clustered(CENTERS)])
def test_every_environment_draws_from_its_own_key(head):
    output = jax.random.normal(jax.random.key(1), (40, head.features))
    keys, seen = jax.random.split(jax.random.key(0), 40), jnp.zeros((40, 1, 1))
    together = head.act(keys, said(output), seen)
    alone = head.act(keys[7:8], said(output[7:8]), seen[7:8])
    np.testing.assert_allclose(alone[0], together[7], atol=1e-6)


def test_every_environment_searches_with_its_own_key():
    head = energy(2, negatives=1, candidates=16)
    seen = jnp.array([[[0.5, -0.3]], [[-0.8, 0.9]], [[0.0, 0.0]]])
    keys = jax.random.split(jax.random.key(0), 3)
    together = head.act(keys, bowl(), seen)
    alone = head.act(keys[1:2], bowl(), seen[1:2])
    np.testing.assert_allclose(alone[0], together[1], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_acts_where_the_data_are(kind):
    """Untrained, in the dataset's own units."""
    episodes = two_ways(40)
    config = dataclasses.replace(CONFIG, kind=kind, clusters=3, network="sieve")
    spec = spec_of(episodes)
    statistics = measure(config, episodes, spec)
    algorithm = bc(config, BCActing(), statistics, spec)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    state = call(learner.init, jax.random.key(2), batch, {})
    observation = np.full((5, 1), 5.5, np.float32)
    action = algorithm.act(
        {"policy": state},
        algorithm.init_carry(5),
        jax.random.split(jax.random.key(0), 5),
        observation,
        np.ones(5, bool),
    )[0].action
    low, high = episodes.actions[::2].min(0), episodes.actions[::2].max(0)
    assert (action >= low - 1e-3).all()
    assert (action <= high + 1e-3).all()
    assert statistics.centers.shape == (3 if kind.startswith("kmeans") else 0, 2)
    if kind == "kmeans":
        # Every action is a centre, and centres are means of the data's actions.
        assert set(np.unique(np.round(action[:, 0])).tolist()) <= {8.0, 12.0}


def test_batch_norm_acts_by_averages_and_is_split_over_devices():
    config = dataclasses.replace(CONFIG, network="sieve", norm="batch", ema_decay=0.0)
    episodes = two_ways(16)
    algorithm = built(config, episodes)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(3), 8)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    before = call(learner.init, jax.random.key(2), batch, {})
    one, _ = jax.jit(learner.update)(before, keys, batch, {}, {})

    def halves(x):
        return jax.tree.map(lambda leaf: leaf.reshape(2, 4, *leaf.shape[1:]), x)

    def half(keys, batch):
        return learner.update(before, keys, batch, {}, {}, "halves")

    split, _ = jax.jit(jax.vmap(half, axis_name="halves"))(halves(keys), halves(batch))
    # Gradients, as Adam remembers them: its first step makes of what has none, such as
    # a bias that the norm takes away again, one of the full size.
    for whole, parts in zip(
        jax.tree.leaves((one.opt_state, one.params["batch_stats"])),
        jax.tree.leaves((split.opt_state, split.params["batch_stats"])),
        strict=True,
    ):
        np.testing.assert_allclose(parts[0], parts[1])
        np.testing.assert_allclose(parts[0], whole, rtol=2e-3, atol=1e-5)
    # Averages have moved a tenth of the way to the moments of the batch, no more.
    old, new = (
        state.params["batch_stats"]["norms_0"]["BatchNorm_0"] for state in (before, one)
    )
    np.testing.assert_array_equal(old["var"], 1.0)
    assert (new["var"] > 0.9).all()
    assert np.abs(new["mean"]).max() > 1e-3
    # Each environment acts on its own, whatever its neighbours see.
    act, reset = jax.jit(algorithm.act), np.ones(2, bool)
    seen = np.array([[5.1], [5.9]], np.float32)
    first, second = (
        act({"policy": one}, algorithm.init_carry(2), KEYS, x, reset)
        for x in (seen, seen * np.float32([[1], [1.1]]))
    )
    actions = np.asarray([first[0].action, second[0].action])
    np.testing.assert_allclose(actions[0, 0], actions[1, 0], rtol=1e-6)
    assert np.abs(actions[0, 1] - actions[1, 1]).max() > 1e-3


def test_a_network_without_norms_learns_under_any_of_them():
    config = dataclasses.replace(CONFIG, network="mlp", norm="batch")
    episodes = two_ways(16)
    algorithm = built(config, episodes)
    training = {"policy": TrainConfig(num_steps=2, batch_size=4)}
    assert (
        int(train_learners(algorithm, episodes, configs=training)["policy"].step) == 2
    )


def test_more_clusters_than_actions_are_refused():
    config = dataclasses.replace(CONFIG, kind="kmeans", clusters=9)
    with pytest.raises(UserError, match="`clusters` is 9 and the dataset has 8"):
        measure(config, two_ways(8), spec_of(two_ways(8)))


def test_a_policy_of_goals_needs_a_goal():
    episodes = straight_lines(20)
    algorithm = built(CONFIG, episodes)
    state = TrainState(step=0, params={}, slow={"ema": {}}, opt_state=())
    with pytest.raises(UserError, match="give it a goal"):
        algorithm.act(
            {"policy": state}, (), KEYS[:1], np.zeros((1, 2)), np.ones(1, bool)
        )


def test_options_are_checked():
    for wrong, name in (
        ({"hidden": 0}, "`hidden`"),
        ({"ema_decay": 1.5}, "`ema_decay`"),
        ({"learning_rate_decay": 2.0}, "`learning_rate_decay`"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"bins": 0, "clusters": 0}, "`bins`.*`clusters`"),
    ):
        with pytest.raises(UserError, match=name):
            BCConfig(**wrong)
    with pytest.raises(UserError, match="`candidates`"):
        BCActing(candidates=0)


def test_generic_options_build_a_policy_of_any_data():
    for episodes, shape in ((two_ways(8), None), (around(8), (3, 1, 1))):
        spec = spec_of(episodes, shape)
        dataset = Dataset("mine", episodes, spec.observation_shape, "")
        config, acting, training, _ = generic(dataset, spec)
        statistics = measure(config, episodes, spec)
        assert training.keys() == bc(config, acting, statistics, spec).learners.keys()


def test_the_decay_of_the_rate_leaves_running_averages_alone():
    """Updates shrink to nothing along the cosine; batch norm goes on as without it."""
    config = dataclasses.replace(CONFIG, network="sieve", norm="batch")
    episodes = two_ways(16)
    moved = {}
    for share in (0.0, 1.0):
        algorithm = built(
            dataclasses.replace(config, learning_rate_decay=share), episodes
        )
        learner = algorithm.learners["policy"]
        data = learner.prepare(episodes, {}, jax.random.key(0))
        keys = jax.random.split(jax.random.key(3), 8)
        batch = jax.vmap(learner.draw, (None, 0))(data, keys)
        before = call(learner.init, jax.random.key(2), batch, {})
        before = dataclasses.replace(before, step=jnp.int32(99))
        after, _ = jax.jit(learner.update)(before, keys, batch, {}, {"num_steps": 100})
        moved[share] = jax.tree.map(jnp.subtract, after.params, before.params)
    for plain, decayed in zip(
        jax.tree.leaves(moved[0.0]["batch_stats"]),
        jax.tree.leaves(moved[1.0]["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_allclose(decayed, plain, rtol=1e-4, atol=1e-6)
    largest = [
        max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(each["params"]))
        for each in moved.values()
    ]
    assert largest[1] < 1e-3 * largest[0]
