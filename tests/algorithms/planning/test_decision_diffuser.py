"""Decision Diffuser where the right answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planners import POINT, held, keys_of, replaced
from points import straight_lines

from jaxdiff.algorithms.planning import decision_diffuser as module
from jaxdiff.algorithms.planning import denoiser as denoiser_module
from jaxdiff.algorithms.planning import planner as planner_module
from jaxdiff.algorithms.planning.conditions import (
    Conditions,
    measure_returns,
    regions_kept,
)
from jaxdiff.algorithms.planning.decision_diffuser import (
    ENTRY,
    DecisionDiffuserActing,
    DecisionDiffuserConfig,
    decision_diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Dataset, Episodes, acted_rows
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.data.spec import Layout, Spec
from jaxdiff.errors import UserError
from jaxdiff.host_program import call

TINY = DecisionDiffuserConfig(
    horizon=8,
    diffusion_steps=4,
    dim=8,
    dim_mults=(1,),
    prediction="x0",
    clip=None,
    normalizer="limits",
    padding=False,
    inverse_depth=0,
)
ACTING = DecisionDiffuserActing(sampler="ddim", init_temperature=0.0)
EPISODES = straight_lines(40, steps=12)
START = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 2)).astype(np.float32)
GOAL = np.random.default_rng(1).uniform(-0.5, 0.5, (3, 2)).astype(np.float32)


def build(episodes=EPISODES, spec=POINT, **options):
    config, acting = replaced(TINY, ACTING, options)
    statistics = measure(config, episodes, spec)
    return decision_diffuser(config, acting, statistics, spec), statistics


def planned(algorithm, states, goal=None, history=START[:, None], **fields):
    """Plans of the three starts."""
    problem = Problem(history=history, goal=goal, **fields)
    return algorithm.plan(states, keys_of(3), problem)


def exact_inverse(statistics):
    """Parameters of the linear model that answers s' - s, as the data have it."""

    def halves(normalizer):
        return (np.asarray(normalizer.knots[1]) - np.asarray(normalizer.knots[0])) / 2

    # In normalised units both are affine: a = (half_s (u' - u) - middle) / half_a.
    middle = np.asarray(statistics.actions.knots).mean(0)
    slope = halves(statistics.normalizer)[2:] / halves(statistics.actions)
    kernel = np.concatenate([-np.diag(slope), np.diag(slope)])
    bias = -middle / halves(statistics.actions)
    return {"params": {"Linear_0": {"kernel": kernel, "bias": bias}}}


class Answer:
    """A network that answers what a function of its inputs says."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def init(self, key, *inputs):
        return {"unused": jnp.ones(1)}

    def apply(self, params, x, time, condition, keep):
        self.seen.append((x.shape, condition))
        return self.function(x, condition, keep)


@pytest.fixture
def answering(monkeypatch):
    def use(function):
        network = Answer(function)
        monkeypatch.setattr(module, "_network", lambda config: network)
        return network

    return use


def states_of(statistics):
    return {"denoiser": held({}), "inverse": held(exact_inverse(statistics))}


# --- conditions ----------------------------------------------------------------------


def rewarded(rewards, lengths, terminated):
    """Episodes of one number that pay as said, a list an episode."""
    lengths = np.array(lengths)
    rows = [
        np.append(np.full(n, r), 0.0) for n, r in zip(lengths, rewards, strict=True)
    ]
    total = len(np.concatenate(rows))
    numbers = np.arange(total, dtype=np.float32)[:, None]
    return Episodes(
        observations=np.concatenate([numbers, numbers], 1),
        actions=np.concatenate([numbers, -numbers], 1),
        rewards=np.concatenate(rows).astype(np.float32),
        starts=np.cumsum(lengths + 1) - (lengths + 1),
        lengths=lengths,
        terminated=np.array(terminated),
        goals=None,
    )


def test_returns_are_scaled_by_the_data():
    # One reward a step and none discounted: returns 1 .. 200, each once.
    episodes = rewarded([1.0], [200], [False])
    found = measure_returns(episodes, discount=1.0, termination_penalty=-100.0)
    low, high = 1 + 0.01 * 199, 1 + 0.99 * 199
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-5)
    np.testing.assert_allclose(found.target, (1 + 0.95 * 199 - low) / (high - low))
    assert found.counts.sum() == 200
    np.testing.assert_allclose([found.edges[0], found.edges[-1]], [1, 200])
    np.testing.assert_allclose(found.counts, 4)


def test_a_penalty_for_the_end_is_part_of_returns():
    found = measure_returns(
        rewarded([0.0, 0.0], [50, 50], [True, False]),
        discount=1.0,
        termination_penalty=-100.0,
    )
    # Half of the rows have it before them, whatever the discount of nothing is.
    assert (found.low, found.high) == (-100.0, 0.0)
    assert found.counts[0] == found.counts[-1] == 50


def test_returns_that_are_all_alike_ask_for_nothing():
    found = measure_returns(EPISODES, discount=0.9, termination_penalty=0.0)
    assert (found.low, found.high, found.target) == (0.0, 1.0, 0.0)


def test_a_range_that_is_given_stands_in_for_the_measured():
    episodes = rewarded([1.0], [200], [False])
    own, given = (
        build(episodes, discount=1.0, return_range=bounds)[1].returns
        for bounds in ((), (0.0, 400.0))
    )
    assert (given.low, given.high) == (0.0, 400.0)
    asked = [
        found.low + found.target * (found.high - found.low) for found in (own, given)
    ]
    np.testing.assert_allclose(asked[0], asked[1], rtol=1e-5)


def drawn(episodes, count=300, **options):
    algorithm, statistics = build(episodes, **options)
    learner = algorithm.learners["denoiser"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), count)
    draw = jax.jit(jax.vmap(learner.draw, (None, 0)))
    x, condition, told = draw(data, keys)
    states = jnp.pad(x, ((0, 0), (0, 0), (2, 0)))
    rows = np.asarray(unnormalize(statistics.normalizer, states))[..., 2:]
    return rows, np.asarray(condition), np.asarray(told)


@pytest.mark.parametrize("history", [1, 3])
def test_windows_look_back_no_further_than_their_episode(history):
    # Rows are numbered; of 13 rows of an episode the last has no action.
    episodes = rewarded([0.0, 1.0], [12, 12], [False, False])
    rows, condition, told = drawn(episodes, history=history, discount=1.0)
    numbers = rows[..., 0].round().astype(int)
    assert numbers.shape == (300, TINY.horizon)
    assert told.all()
    first = np.where(numbers[:, -1] > 12, 13, 0)
    present = numbers[:, history - 1]
    expected = present[:, None] - history + 1 + np.arange(TINY.horizon)
    np.testing.assert_array_equal(numbers, np.maximum(expected, first[:, None]))
    # Every present row that has enough ahead of it is drawn, the very first too.
    ahead = TINY.horizon - history + 1
    starts = {*range(12 - ahead + 1), *range(13, 13 + 12 - ahead + 1)}
    assert set(present) == starts
    # The return is that from the present on, and not from the history's beginning.
    remaining = np.where(present > 12, 25 - present, 0)
    low, high = (f(remaining) for f in (np.min, np.max))
    slope, offset = np.polyfit(remaining, condition[:, 0], 1)
    np.testing.assert_allclose(condition[:, 0], slope * remaining + offset, atol=1e-5)
    assert slope > 0
    assert high > low == 0


def test_padding_stands_after_the_end_and_the_history_before_it():
    episodes = rewarded([0.0], [5], [True])
    rows, *_ = drawn(episodes, history=2, padding=True)
    numbers = rows[..., 0].round().astype(int)
    for row in numbers:
        present = row[1]
        ahead = [*range(present, 5)]
        expected = [max(present - 1, 0), *ahead, *[0] * (7 - len(ahead))]
        assert row.tolist() == expected
    assert set(numbers[:, 1]) == {0, 1, 2, 3, 4}


def test_goals_as_conditions_are_those_of_the_present_row():
    rows, condition, _ = drawn(EPISODES, condition="goal", history=2)
    _, statistics = build(condition="goal")
    goals = np.asarray(unnormalize(statistics.goals, condition))
    # A path is straight, so its goal lies ahead of where it moves.
    ahead = goals - rows[:, 1]
    along = rows[:, -1] - rows[:, 0]
    cosine = (ahead * along).sum(-1) / np.linalg.norm(ahead, axis=-1)
    assert np.median(cosine / np.linalg.norm(along, axis=-1)) > 0.99


def test_regions_are_drawn_among_those_that_are_kept_out_of():
    regions = np.array([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 3.0, 0.5]])
    path = jnp.array([[0.5, 0.5], [1.5, 1.5]])  # enters the first
    keys = jax.random.split(jax.random.key(0), 400)
    labels, kept = jax.vmap(regions_kept, (0, None, None))(keys, path, regions)
    assert kept.all()
    np.testing.assert_allclose(labels.mean(0), [0, 0.5, 0.5], atol=0.08)
    np.testing.assert_array_equal(labels.sum(1), 1)
    label, kept = regions_kept(keys[0], jnp.array([[0.0, 0], [3, 0], [0, 3]]), regions)
    assert not kept
    np.testing.assert_array_equal(label, 0)


def test_who_enters_all_regions_is_told_nothing():
    options = {"condition": "region", "regions": (0.0, 0.0, 0.4)}
    rows, condition, told = drawn(EPISODES, **options)
    outside = (np.linalg.norm(rows, axis=-1) >= 0.4).all(1)
    np.testing.assert_array_equal(told, outside)
    np.testing.assert_array_equal(condition[:, 0], outside)
    assert 0 < told.mean() < 1


def test_a_share_of_the_examples_is_not_told(answering):
    seen = []

    def function(x, condition, keep):
        jax.debug.callback(lambda keep: seen.append(np.asarray(keep)), keep)
        return x

    answering(function)
    algorithm, _ = build(condition_dropout=0.3)
    learner = algorithm.learners["denoiser"]
    count = 2000
    told = jnp.arange(count) % 2 == 0
    batch = jnp.zeros((count, 8, 2)), jnp.ones((count, 1)), told
    keys = jax.random.split(jax.random.key(0), count)
    state = learner.init(keys[0], batch, {})
    jax.block_until_ready(jax.jit(learner.update)(state, keys, batch, {}, {}))
    jax.effects_barrier()
    assert not seen[-1][1::2].any()
    assert seen[-1][::2].mean() == pytest.approx(0.7, abs=0.04)


# --- plans ---------------------------------------------------------------------------


@pytest.mark.parametrize("goal_dim", [0, 1, 2])
@pytest.mark.parametrize("actions", ["inverse", "diffused"])
def test_loss_and_sampler_clamp_the_same_entries(
    answering, monkeypatch, goal_dim, actions
):
    answering(lambda x, condition, keep: 0 * x)
    loss, sample, seen = denoiser_module.denoising_loss, planner_module.sample, {}

    def spy_loss(*args, **options):
        seen["loss"] = np.asarray(options["mask"])
        return loss(*args, **options)

    def spy_sample(*args, **options):
        seen["sample"] = np.asarray(options["clamp"].mask)
        return sample(*args, **options)

    monkeypatch.setattr(denoiser_module, "denoising_loss", spy_loss)
    monkeypatch.setattr(planner_module, "sample", spy_sample)
    algorithm, statistics = build(goal_dim=goal_dim, actions=actions, history=3)
    width = 4 if actions == "diffused" else 2
    batch = jnp.zeros((2, 8, width)), jnp.zeros((2, 1)), jnp.ones(2, bool)
    keys = jax.random.split(jax.random.key(1))
    learner = algorithm.learners["denoiser"]
    state = learner.init(keys[0], batch, {})
    jax.eval_shape(learner.update, state, keys, batch, {}, {})
    expected = np.zeros((8, width), bool)
    expected[:3, width - 2 :] = True
    expected[-1, width - 2 : width - 2 + goal_dim] = True
    np.testing.assert_array_equal(seen["loss"], expected)
    states = states_of(statistics)
    jax.eval_shape(lambda: planned(algorithm, states, GOAL).trajectories)
    np.testing.assert_array_equal(seen["sample"], expected)
    jax.eval_shape(lambda: planned(algorithm, states).trajectories)
    expected[-1] = False
    np.testing.assert_array_equal(seen["sample"], expected)


def test_plans_begin_now_and_end_at_the_goal(answering):
    answering(lambda x, condition, keep: x / 2)
    algorithm, statistics = build(goal_dim=2, history=3, candidates=2)
    history = np.stack([START - 0.2, START - 0.1, START], axis=1)
    plans = jax.jit(algorithm.plan, static_argnames="return_path")(
        states_of(statistics), keys_of(3), Problem(history=history, goal=GOAL),
        return_path=True,
    )  # fmt: skip
    x = np.asarray(plans.trajectories)
    assert x.shape == (3, 2, 6, 4)
    assert plans.path.shape == (5, 3, 2, 6, 4)
    np.testing.assert_allclose(x[:, 0, 0, 2:], START, atol=1e-6)
    np.testing.assert_allclose(x[:, 1, -1, 2:], GOAL, atol=1e-6)
    for level in plans.path:
        np.testing.assert_allclose(level[:, 0, 0, 2:], x[:, 0, 0, 2:], atol=1e-6)
    # Actions are those between the states; at the last one it is to stay.
    moves = np.diff(x[..., 2:], axis=-2, append=x[..., -1:, 2:])
    bounds = statistics.actions
    np.testing.assert_allclose(
        x[..., :2], np.clip(moves, bounds.low, bounds.high), atol=1e-5
    )


def test_predictions_are_combined_in_one_call(answering):
    network = answering(
        lambda x, condition, keep: jnp.where(
            keep[:, None, None], 0.1 * condition[:, :, None], 0.05 + 0 * x
        )
    )
    options = {"guidance_weight": 1.4, "target": 3.0}
    algorithm, statistics = build(**options)
    states = states_of(statistics)

    def answer(guidance=None, **change):
        built, _ = build(**{**options, **change}) if change else (algorithm, None)
        plans = planned(built, states, guidance=guidance)
        x = np.asarray(normalize(statistics.normalizer, plans.trajectories))
        assert np.ptp(x[:, :, 1:, 2:]) < 1e-5
        return x[0, 0, 1, 2]

    assert answer() == pytest.approx(0.05 + 1.4 * (0.3 - 0.05), abs=1e-5)
    assert network.seen[-1][0] == (6, 8, 2)
    # A weight of 1 is the condition alone, and needs no second half.
    assert answer(guidance_weight=1.0) == pytest.approx(0.3, abs=1e-5)
    assert network.seen[-1][0] == (3, 8, 2)
    assert answer(guidance_weight=0.0) == pytest.approx(0.05, abs=1e-5)
    # Two conditions, one of them ruled out, of the same plan.
    asked = Conditions(
        values=np.float32([[3.0], [1.0]]), weights=np.float32([1.5, -2.0])
    )
    expected = 0.05 + 1.5 * (0.3 - 0.05) - 2 * (0.1 - 0.05)
    assert answer(asked) == pytest.approx(expected, abs=1e-5)
    assert network.seen[-1][0] == (9, 8, 2)
    one = Conditions(values=np.float32([[3.0]]), weights=np.float32([1.4]))
    assert answer(one) == answer()
    problem = Problem(history=START[:, None], guidance=one)
    jitted = jax.jit(algorithm.plan)(states, keys_of(3), problem)
    again = normalize(statistics.normalizer, jitted.trajectories)[0, 0, 1, 2]
    assert again == pytest.approx(answer(), abs=1e-6)


def test_what_is_measured_is_asked_for(answering):
    network = answering(lambda x, condition, keep: 0 * x)
    algorithm, statistics = build(rewarded([1.0], [40], [False]), discount=1.0)
    assert 0.9 < statistics.returns.target < 1
    planned(algorithm, states_of(statistics))
    _, condition = network.seen[-1]
    np.testing.assert_allclose(condition[:3], statistics.returns.target)


def test_goals_and_regions_are_asked_for(answering):
    network = answering(lambda x, condition, keep: 0 * x)
    algorithm, statistics = build(condition="goal", candidates=2)
    states = states_of(statistics)
    planned(algorithm, states, GOAL)
    _, condition = network.seen[-1]
    told = unnormalize(statistics.goals, condition[:6])
    np.testing.assert_allclose(told, np.repeat(GOAL, 2, axis=0), atol=1e-5)
    assert len(condition) == 12
    with pytest.raises(UserError, match="give it a goal"):
        planned(algorithm, states)
    asked = Conditions(values=np.zeros((1, 1)), weights=np.ones(1))
    with pytest.raises(UserError, match=r"condition of 1 numbers .* conditions of 2"):
        planned(algorithm, states, GOAL, guidance=asked)
    regions = (0.5, 0.5, 0.1, -0.5, 0.5, 0.1)
    algorithm, statistics = build(condition="region", regions=regions)
    planned(algorithm, states)
    _, condition = network.seen[-1]
    np.testing.assert_array_equal(condition[:6], np.repeat(np.eye(2), 3, axis=0))


def test_noise_has_a_temperature_at_the_start_and_one_in_the_steps(
    answering, monkeypatch
):
    answering(lambda x, condition, keep: 0 * x)
    sample, seen = planner_module.sample, {}

    def spy(*args, **options):
        seen.update(options)
        return sample(*args, **options)

    monkeypatch.setattr(planner_module, "sample", spy)
    algorithm, statistics = build(temperature=0.3, init_temperature=0.6)
    planned(algorithm, states_of(statistics))
    assert (seen["temperature"], seen["init_temperature"]) == (0.3, 0.6)


# --- acting --------------------------------------------------------------------------


def keep_moving(statistics, history):
    """A network that goes on as the last two states of the history did."""

    def function(x, condition, keep):
        here, before = x[:, history - 1], x[:, history - 2]
        steps = jnp.arange(x.shape[1]) - (history - 1)
        return here[:, None] + steps[:, None] * (here - before)[:, None]

    return function


def test_histories_are_seen_and_begin_anew_with_an_episode(answering):
    answering(keep_moving(None, 3))
    algorithm, statistics = build(history=3, guidance_weight=1.0)
    states = states_of(statistics)
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(2)
    rng = np.random.default_rng(0)
    observed = rng.uniform(-0.05, 0.05, (5, 2, 2)).astype(np.float32)
    resets = np.array([[1, 1], [0, 0], [0, 1], [0, 0], [0, 0]], bool)
    for t, (observation, reset) in enumerate(zip(observed, resets, strict=True)):
        output, carry = act(states, carry, keys_of(2, t), observation, reset)
        for b in range(2):
            begun = max(s for s in range(t + 1) if resets[s, b])
            rows = [max(t - back, begun) for back in (2, 1, 0)]
            np.testing.assert_allclose(carry.seen[b], observed[rows, b])
            # The next state is as far off as the last one was, and that is the action.
            expected = observed[rows[2], b] - observed[rows[1], b]
            np.testing.assert_allclose(output.action[b], expected, atol=1e-5)
            np.testing.assert_allclose(output.plan[b, 0, 2:], observation[b], atol=1e-6)


def test_an_action_leads_from_what_is_observed_to_what_was_planned(answering):
    answering(keep_moving(None, 2))
    algorithm, statistics = build(history=2, guidance_weight=1.0, replan_every=3)
    states = states_of(statistics)
    act = jax.jit(algorithm.act)
    start = np.zeros((1, 2), np.float32)
    _, carry = act(states, algorithm.init_carry(1), keys_of(1), start, np.ones(1, bool))
    # The plan is to stay; whoever is pushed away is led back to it.
    pushed = np.float32([[0.02, -0.03]])
    output, carry = act(states, carry, keys_of(1, 1), pushed, np.zeros(1, bool))
    assert not output.planned
    np.testing.assert_allclose(output.action, -pushed, atol=1e-5)


def test_diffused_actions_are_carried_out_as_they_are(answering):
    answering(lambda x, condition, keep: 0 * x + jnp.arange(8.0)[:, None] / 100)
    algorithm, statistics = build(actions="diffused", history=2, replan_every=4)
    assert list(algorithm.learners) == ["denoiser"]
    act = jax.jit(algorithm.act)
    carry, states = algorithm.init_carry(3), {"denoiser": held({})}
    for t in range(4):
        reset = np.full(3, t == 0)
        output, carry = act(states, carry, keys_of(3, t), START, reset)
        rows = jnp.full((1, 4), (t + 1) / 100)
        expected = unnormalize(statistics.normalizer, rows)[:, :2]
        np.testing.assert_allclose(output.action, np.repeat(expected, 3, 0), atol=1e-6)


def test_a_warm_start_goes_on_from_the_last_plan(answering):
    # A network that answers its input keeps what it is given, up to the noise.
    answering(lambda x, condition, keep: x)
    options = {"goal_dim": 2, "warm_start": 1, "temperature": 0.0, "history": 2}
    algorithm, statistics = build(**options, guidance_weight=1.0)
    init = np.zeros((3, 7, 4), np.float32)
    init[:, :, 2:] = np.linspace(START, GOAL, 7, axis=1)
    plans = planned(algorithm, states_of(statistics), GOAL, init=init)
    found = np.asarray(plans.trajectories[:, 0, :, 2:])
    assert np.abs(found - init[:, :, 2:]).max() < 0.1
    # From pure noise of no temperature the rows between the ends are zero, in units.
    cold = planned(algorithm, states_of(statistics), GOAL)
    middle = normalize(statistics.normalizer, cold.trajectories)[:, 0, 1:-1, 2:]
    np.testing.assert_allclose(middle, 0, atol=1e-6)


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"history": 8}, "`history` is 8, and a window of 8"),
        ({"condition": "region"}, "`condition='region'` needs `regions`"),
        ({"regions": (1.0, 0.0, 0.5)}, "give both or neither"),
        ({"condition": "region", "regions": (1.0, 0.0)}, "x, y and a radius"),
        ({"condition": "region", "regions": (1.0, 0.0, 0.0)}, "a radius above 0"),
        ({"return_range": (400.0, 0.0)}, "a larger one that counts as 1"),
        ({"condition_dropout": 1.0}, "below 1"),
        ({"condition_dropout": 0.0}, "`condition_dropout=0.25`"),
        ({"sampling_steps": 5}, "`sampling_steps` is 5; it must be at most 4"),
        ({"warm_start": 5}, "at most the 4 denoising steps"),
        ({"choose": "earliest"}, "`goal_dim` is 0"),
        ({"lost": 1.0}, "`controller='track'`"),
        ({"discount": 1.5}, "`discount` is 1.5; it must be at most 1"),
        ({"dit_width": 20}, "multiple of 32"),
        ({"rank": "return"}, "`rank='consistency'`"),
    ],
)
def test_options_that_cannot_be_are_named(options, words):
    with pytest.raises(UserError, match=words):
        build(**options)


def test_goals_need_a_dataset_with_goals():
    without = dataclasses.replace(EPISODES, goals=None)
    with pytest.raises(UserError, match="it holds none"):
        build(without, condition="goal")


# --- noise, layouts, tasks -----------------------------------------------------------


def test_first_actions_do_not_depend_on_how_many_act(answering):
    answering(lambda x, condition, keep: x / 2)
    options = {"inverse_kind": "autoregressive", "inverse_width": 8, "inverse_depth": 1}
    algorithm, _ = build(**options, init_temperature=1.0)
    learner = algorithm.learners["inverse"]
    data = learner.prepare(EPISODES, {}, None)
    batch = jax.tree.map(lambda leaf: leaf[:2], data)
    inverse = call(learner.init, jax.random.key(0), batch, {}).params
    states = {"denoiser": held({}), "inverse": held(inverse)}
    act, keys = jax.jit(algorithm.act), keys_of(3)

    def actions(rows):
        count = len(START[rows])
        output, _ = act(
            states, algorithm.init_carry(count), keys[rows], START[rows],
            np.ones(count, bool),
        )  # fmt: skip
        return output.action

    together = actions(slice(0, 3))
    for b in range(3):
        np.testing.assert_allclose(together[b], actions(slice(b, b + 1))[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["limits", "cdf"])
def test_an_inverse_of_zero_acts_in_the_middle_of_its_scale(kind, answering):
    # The middle is between the extremes, or it has half of the data on either side.
    answering(lambda x, condition, keep: x)
    skewed = dataclasses.replace(EPISODES, actions=np.exp(20 * EPISODES.actions))
    algorithm, statistics = build(skewed, inverse_normalizer=kind)
    zero = jax.tree.map(np.zeros_like, exact_inverse(statistics))
    states = {"denoiser": held({}), "inverse": held(zero)}
    output, _ = jax.jit(algorithm.act)(
        states, algorithm.init_carry(3), keys_of(3), START, np.ones(3, bool)
    )
    data = skewed.actions[acted_rows(skewed)]
    below = (data < output.action[0]).mean(0)
    extremes = (data.min(0) + data.max(0)) / 2
    # Each of 40 episodes has one action.
    assert (np.abs(below - 0.5) < 0.03).all() == (kind == "cdf")
    assert np.allclose(output.action, extremes, rtol=1e-4) == (kind == "limits")


def test_regions_are_of_the_positions_that_the_layout_names():
    others = np.full((len(EPISODES.observations), 1), 9.0, np.float32)
    episodes = dataclasses.replace(
        EPISODES, observations=np.concatenate([others, EPISODES.observations], axis=1)
    )
    spec = Spec((3,), 2, 2, Layout(position=(1, 2), goal=(1, 2)))
    algorithm, statistics = build(
        episodes, spec, condition="region", regions=(0.0, 0.0, 0.4)
    )
    learner = algorithm.learners["denoiser"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    x, _, told = jax.vmap(learner.draw, (None, 0))(data, keys_of(100))
    rows = unnormalize(statistics.normalizer, jnp.pad(x, ((0, 0), (0, 0), (2, 0))))
    outside = (np.linalg.norm(rows[..., 3:], axis=-1) >= 0.4).all(1)
    np.testing.assert_array_equal(told, outside)
    assert 0 < told.mean() < 1


def pulled(trajectories, slope):
    return (trajectories @ slope).sum(-1)


def test_plans_of_states_climb_values_and_obey_projections(answering):
    answering(lambda x, condition, keep: 0 * x)
    algorithm, statistics = build(history=2, guidance_weight=1.0)
    states, slope = states_of(statistics), np.array([5.0, 5, 0.01, 0], np.float32)
    problem = Problem(history=START[:, None], value_args=slope, project_args=0.1)
    plan = algorithm.plan
    plain, climbed, kept = (
        plan(states, keys_of(3), problem, **options).trajectories[:, 0, 1:]
        for options in (
            {},
            {"value": pulled},
            {"project": lambda x, most: x.at[..., 3].min(most - 0.2)},
        )
    )
    assert (climbed[..., 2] > plain[..., 2] + 1e-3).all()
    np.testing.assert_allclose(climbed[..., 3], plain[..., 3], atol=1e-6)
    np.testing.assert_allclose(kept[..., 3], np.minimum(plain[..., 3], -0.1), atol=1e-5)


@pytest.mark.parametrize("goals", [True, False])
def test_generic_options_fit_any_data(goals):
    episodes = EPISODES if goals else dataclasses.replace(EPISODES, goals=None)
    spec = POINT if goals else Spec((2,), 2)
    dataset = Dataset(
        name="data", episodes=episodes, observation_shape=(2,), fingerprint=""
    )
    config, acting, training, _ = ENTRY.generic(dataset, spec)
    assert config.condition == ("goal" if goals else "return")
    assert (config.horizon, config.goal_dim) == (12, 2 if goals else 0)
    statistics = ENTRY.measure(config, episodes, spec)
    algorithm = ENTRY.build(config, acting, statistics, spec)
    assert list(algorithm.learners) == list(training)
