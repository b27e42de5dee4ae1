"""Diffusion policies: with exact denoisers, and with small networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import mixture_denoise
from toy import episodes_of, spec_of

from jaxdiff import diffusion
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCActing,
    DiffusionBCConfig,
    densest,
    diffusion_bc,
    diffusion_head,
    generic,
)
from jaxdiff.algorithms.imitation.policy import measure, preparing
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.normalizer import unnormalize
from jaxdiff.errors import UserError
from jaxdiff.host_program import call
from jaxdiff.networks import Sieve
from jaxdiff.train import train_learners

TINY = DiffusionBCConfig(hidden=32, embed=16, diffusion_steps=8, schedule="cosine")
PAPER = diffusion.linear_schedule(50, time="fraction")


def counting(lengths=(3, 1, 4)):
    """Row i observes i; the last rows of episodes have no action."""
    return episodes_of(
        lengths,
        lambda i: np.stack([i, -i], -1),
        lambda i: np.stack([np.cos(i), np.sin(i), i], -1),
    )


def keys_of(count):
    return jax.random.split(jax.random.key(0), count)


def built(config, episodes=None, *, acting=None, shape=None):
    episodes = counting() if episodes is None else episodes
    acting, spec = acting or DiffusionBCActing(), spec_of(episodes, shape)
    algorithm = diffusion_bc(config, acting, measure(config, episodes, spec), spec)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    state = call(learner.init, jax.random.key(2), batch, {})
    return algorithm, {"policy": state}, data


def noise_of(denoise, levels):
    """The prediction of noise, at told times, of an exact `denoise(x, level)`."""

    def network(action, time):
        row = jnp.round(time[0] * (len(levels.alpha) - 1)).astype(int)
        level = diffusion.take(levels, row)
        x0 = denoise(action, level)
        return diffusion.from_x0(x0, action, level, prediction="noise")

    return network


# The schedule, with exact scores.


def shares(levels, means, *, std=0.06):
    """Share of the first of two modes that are equally likely."""
    steps = diffusion.ddpm(levels, variance="beta")
    weights = np.array([0.5, 0.5])

    @jax.jit
    def actions(key):
        return diffusion.sample(
            key,
            lambda x, level: mixture_denoise(means, std, weights, x, level),
            steps,
            (4000, 2),
        ).x

    offset = np.asarray(actions(jax.random.key(0)))[:, None] - means
    return float((np.square(offset).sum(-1).argmin(1) == 0).mean())


def test_the_paper_s_schedule_shifts_the_shares_of_modes():
    near_and_far = np.array([[0.25, 0.25], [0.75, 0.75]])
    balanced = np.array([[-0.5, -0.5], [0.5, 0.5]])
    few = diffusion.linear_schedule(20, time="fraction")
    assert shares(few, near_and_far) > 0.6
    assert 0.5 < shares(PAPER, near_and_far) < shares(few, near_and_far)
    rescaled = diffusion.linear_schedule(50, rescale=True)
    for levels in (diffusion.cosine_schedule(20), rescaled):
        assert shares(levels, near_and_far) == pytest.approx(0.5, abs=0.04)
    # Modes equally far from the origin keep their shares under any schedule.
    assert shares(few, balanced) == pytest.approx(0.5, abs=0.04)


# The choice among candidates.


def two_modes(key, count, *, share=0.6, draws=400, std=0.02):
    right, noise = jax.random.split(key)
    right = jax.random.bernoulli(right, share, (draws, count, 1))
    mode = jnp.where(right, jnp.array([0.5, 0.5]), jnp.array([-0.5, -0.5]))
    return mode + std * jax.random.normal(noise, mode.shape)


def test_between_distant_modes_the_density_takes_the_vote():
    candidates = two_modes(jax.random.key(0), 11)
    chosen = densest(candidates, 0.2)
    majority = (candidates[..., 0] > 0).mean(1) > 0.5
    np.testing.assert_array_equal(chosen[:, 0] > 0, majority)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(10, 0.6, 0.68), (50, 0.6, 0.90), (100, 0.6, 0.98), (10, 0.7, 0.88)],
)
def test_density_seeks_the_larger_mode(count, share, expected):
    candidates = two_modes(jax.random.key(1), count, share=share, std=0.1)
    found = (densest(candidates, 0.1)[:, 0] > 0).mean()
    assert float(found) == pytest.approx(expected, abs=0.08)


def test_density_is_a_sum_of_normals_of_the_bandwidth():
    # Two that are half a bandwidth apart, and three 1.2 bandwidths: at the middle of
    # the three there are 1 + 2 exp(-0.72) = 1.97, at the two 1 + exp(-0.125) = 1.88.
    near, far = np.array([0.0, 0.5]), 20 + np.array([0.0, 1.2, 2.4])
    candidates = jnp.asarray(np.concatenate([near, far])[None, :, None])
    np.testing.assert_allclose(densest(0.1 * candidates, 0.1), 2.12, rtol=1e-6)
    # Three 1.35 bandwidths apart are less dense: 1.80.
    far = 20 + np.array([0.0, 1.35, 2.7])
    candidates = jnp.asarray(np.concatenate([near, far])[None, :, None])
    assert densest(0.1 * candidates, 0.1) < 0.1


def test_the_densest_is_one_of_the_candidates_and_in_their_middle():
    candidates = jax.random.normal(jax.random.key(0), (5, 40, 3))
    chosen = densest(candidates, 0.5)
    same = (candidates == chosen[:, None]).all(-1)
    np.testing.assert_array_equal(same.sum(1), 1)
    assert jnp.linalg.norm(chosen, axis=-1).max() < 1.2
    lonely = jnp.array([[[9.0], [0.0], [0.1], [-0.1], [-9.0]]])
    np.testing.assert_array_equal(densest(lonely, 0.1), [[0.0]])
    np.testing.assert_array_equal(densest(lonely[:, :1], 0.1), [[9.0]])


# Acting, with an exact denoiser.


def conditional(embedding, levels, std=0.0):
    """Denoise to actions that are the embedding, give or take `std`."""
    mean = embedding[:, 0]

    def denoise(x, level):
        share = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
        return mean + share * (x - level.alpha * mean)

    return noise_of(denoise, levels)


@pytest.mark.parametrize(
    ("schedule", "acting"),
    [
        ("linear", {}),
        ("linear", {"extra_steps": 4}),
        ("linear_rescaled", {"candidates": 3, "clip": 1.0}),
        ("cosine", {"variance": "posterior"}),
    ],
)
def test_every_way_of_acting_does_the_only_thing_that_is_done(schedule, acting):
    config = DiffusionBCConfig(schedule=schedule, diffusion_steps=12)
    levels = {
        "linear": diffusion.linear_schedule(12),
        "linear_rescaled": diffusion.linear_schedule(12, rescale=True),
        "cosine": diffusion.cosine_schedule(12),
    }[schedule]
    head = diffusion_head(config, DiffusionBCActing(**acting), 2)
    embedding = jnp.array([[[0.3, -0.7]], [[0.9, 0.1]]])
    found = head.act(
        keys_of(2),
        lambda e, times: (conditional(e, levels), jnp.asarray(times)),
        embedding,
    )
    np.testing.assert_allclose(found, embedding[:, 0], atol=1e-4)


def test_estimates_are_clipped_if_asked():
    config = DiffusionBCConfig(diffusion_steps=50)
    found = diffusion_head(config, DiffusionBCActing(clip=0.5), 2).act(
        keys_of(1),
        lambda e, times: (conditional(e, PAPER), jnp.asarray(times)),
        jnp.array([[[0.3, -0.7]]]),
    )
    np.testing.assert_allclose(found, [[0.3, -0.5]], atol=1e-4)


def test_guidance_leaves_behind_what_is_done_without_an_observation():
    # Conditional actions N(e, 1), unconditional N(0, 1): at weight w, N(w e, 1).
    levels = diffusion.cosine_schedule(40)
    embedding = jnp.full((4000, 1, 1), 0.5)

    def mean(weight):
        config = DiffusionBCConfig(
            schedule="cosine",
            diffusion_steps=40,
            condition_dropout=0.1,
        )
        return float(
            diffusion_head(config, DiffusionBCActing(guidance_weight=weight), 1)
            .act(
                keys_of(4000),
                lambda e, times: (conditional(e, levels, 1.0), jnp.asarray(times)),
                embedding,
            )
            .mean()
        )

    assert mean(0.0) == pytest.approx(0.0, abs=0.06)
    assert mean(1.0) == pytest.approx(0.5, abs=0.06)
    assert mean(3.0) == pytest.approx(1.5, abs=0.1)


def test_candidates_spread_and_the_densest_of_them_do_not():
    def spread(**acting):
        config = DiffusionBCConfig(schedule="linear_rescaled", diffusion_steps=30)
        levels = diffusion.linear_schedule(30, rescale=True)
        return float(
            diffusion_head(config, DiffusionBCActing(bandwidth=0.3, **acting), 1)
            .act(
                keys_of(300),
                lambda e, times: (conditional(e, levels, 0.5), jnp.asarray(times)),
                jnp.zeros((300, 1, 1)),
            )
            .std()
        )

    assert spread() == pytest.approx(0.5, abs=0.1)
    assert spread(candidates=40) < 0.25
    assert spread(temperature=0.0) == 0


# The loss.


def test_the_loss_is_nothing_for_the_exact_noise_and_sees_masked_histories():
    config = DiffusionBCConfig(diffusion_steps=50, condition_dropout=0.25)
    head = diffusion_head(config, DiffusionBCActing(), 2)
    actions = jax.random.uniform(jax.random.key(0), (400, 2), minval=0.5)
    embedding = jnp.stack([actions, jnp.ones_like(actions)], axis=1)
    keys = jax.random.split(jax.random.key(1), 400)
    seen = {}

    def denoise(e, action, time):
        seen["embedding"], seen["time"] = e, time
        rows = jnp.round(50 * time).astype(int)
        level = diffusion.take(PAPER, rows)
        return diffusion.from_x0(e[:, 0], action, level, prediction="noise")

    losses = head.loss(
        keys, preparing(lambda *given: given, denoise), embedding, actions
    )
    dropped = np.asarray((seen["embedding"] == 0).all((1, 2)))
    assert dropped.mean() == pytest.approx(0.25, abs=0.08)
    # Both observations of a history are kept, or neither.
    np.testing.assert_array_equal(seen["embedding"][~dropped], embedding[~dropped])
    np.testing.assert_allclose(losses[~dropped], 0, atol=1e-5)
    assert losses[dropped].min() > 1e-3
    # Times are t / T, of 1..T.
    np.testing.assert_allclose(seen["time"] * 50, np.round(seen["time"] * 50))
    assert 0 < seen["time"].min() < 0.1
    assert seen["time"].max() == 1


def test_nothing_is_dropped_by_default():
    head = diffusion_head(DiffusionBCConfig(), DiffusionBCActing(), 1)
    embedding = jnp.ones((64, 1, 1))

    def denoise(e, action, time):
        np.testing.assert_array_equal(e, embedding)
        return action

    prepare = preparing(lambda *given: given, denoise)
    keys = jax.random.split(jax.random.key(0), 64)
    head.loss(keys, prepare, embedding, jnp.ones((64, 1)))


# Histories.


def test_histories_never_leave_their_episode():
    config = dataclasses.replace(TINY, history=3)
    algorithm, _, data = built(config)
    learner = algorithm.learners["policy"]
    keys = jax.random.split(jax.random.key(3), 200)
    inputs, actions = jax.jit(jax.vmap(learner.draw, (None, 0)))(data, keys)
    histories = {tuple(map(int, rows)) for rows in inputs[..., 0]}
    # Newest first; rows 3, 5 and 10 have no action; before the first row is itself.
    assert histories == {
        *((0, 0, 0), (1, 0, 0), (2, 1, 0), (4, 4, 4)),
        *((6, 6, 6), (7, 6, 6), (8, 7, 6), (9, 8, 7)),
    }
    # The third action is the row, from 0 to 9, scaled to [-1, 1].
    np.testing.assert_allclose((actions[:, 2] + 1) / 2 * 9, inputs[:, 0, 0], atol=1e-4)


def test_acting_remembers_and_forgets_at_a_reset():
    config = dataclasses.replace(TINY, network="mlp", history=3)
    algorithm, states, _ = built(config)
    statistics = measure(config, counting(), spec_of(counting()))
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(2)
    resets = [(True, True), (False, False), (False, True)]
    expected = [[[0, 0, 0]] * 2, [[1, 0, 0]] * 2, [[2, 1, 0], [2, 2, 2]]]
    for step, reset in enumerate(resets):
        observation = np.full((2, 2), step, np.float32)
        _, carry = act(states, carry, keys_of(2), observation, np.array(reset))
        # The embeddings of this network are the observations, normalised.
        seen = unnormalize(statistics.inputs, carry)
        np.testing.assert_allclose(seen[:, :, 0], expected[step], atol=1e-4)


def test_an_observation_is_encoded_once_and_denoised_often(monkeypatch):
    calls = {"encode": [], "prepare": [], "denoise": []}
    for name, seen in calls.items():
        method = getattr(Sieve, name)

        def counted(self, *given, method=method, seen=seen):
            jax.debug.callback(
                lambda x: seen.append(x.shape), jax.tree.leaves(given)[-1]
            )
            return method(self, *given)

        monkeypatch.setattr(Sieve, name, counted)
    config = dataclasses.replace(TINY, history=2, condition_dropout=0.1)
    acting = DiffusionBCActing(extra_steps=3, candidates=5, guidance_weight=2.0)
    algorithm, states, _ = built(config, acting=acting)
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(4)
    jax.effects_barrier()
    for seen in calls.values():
        seen.clear()
    observation, reset = np.ones((4, 2), np.float32), np.ones(4, bool)
    act(states, carry, keys_of(4), observation, reset)
    jax.effects_barrier()
    # Of a history of two, the newest observation only, and no candidate's own.
    assert calls["encode"] == [(4, 1, 2)]
    assert calls["prepare"] == [(8 + 3,)]
    # The last that all samples are told in a step is the time itself.
    assert calls["denoise"] == [(2 * 5 * 4, 1)] * (8 + 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_acts_as_each_of_it_alone(temperature):
    # With "linear" an untrained network stays within the range of actions.
    config = dataclasses.replace(TINY, schedule="linear")
    acting = DiffusionBCActing(temperature=temperature, candidates=2)
    algorithm, states, _ = built(config, acting=acting)
    observation = np.arange(6, dtype=np.float32).reshape(3, 2)
    step = jax.jit(algorithm.act)

    def act(observation, keys):
        count = len(observation)
        reset, carry = np.ones(count, bool), algorithm.init_carry(count)
        return step(states, carry, keys, observation, reset)[0].action

    together = act(observation, keys_of(3))
    for i in range(3):
        alone = act(observation[i : i + 1], keys_of(3)[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-4


# Learning.


def test_learns_both_ways_and_how_often_each_is_taken():
    # Right three times in four; the second dimension follows what is seen.
    episodes = episodes_of(
        [1] * 400,
        lambda i: (i % 97)[:, None] / 97,
        lambda i: np.stack([np.where(i // 2 % 4, 12, 8), 10 * (i % 97)], -1),
    )
    config = DiffusionBCConfig(
        hidden=64, embed=32, diffusion_steps=20, schedule="cosine", learning_rate=3e-3
    )
    algorithm, _, _ = built(config, episodes)
    training = TrainConfig(num_steps=1200, batch_size=64)
    states = train_learners(algorithm, episodes, configs={"policy": training})
    seen = np.linspace(0.1, 0.9, 500, dtype=np.float32)[:, None]
    actions = jax.jit(algorithm.act)(
        states,
        algorithm.init_carry(500),
        keys_of(500),
        seen,
        np.ones(500, bool),
    )[0].action
    ways = np.asarray(actions[:, 0])
    assert (ways > 10).mean() == pytest.approx(0.75, abs=0.12)
    assert (np.abs(np.abs(ways - 10) - 2) < 0.4).mean() > 0.85
    assert np.abs(actions[:, 1] / 970 - seen[:, 0]).mean() < 0.06


@pytest.mark.parametrize(("encoder", "white"), [("residual", 255), ("strided", 1)])
def test_policies_of_images(encoder, white):
    shape = (4, 5, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (6, 60)) * white
    episodes = episodes_of([1, 1, 1], lambda i: images[i], lambda i: rng.random((6, 3)))
    config = dataclasses.replace(TINY, encoder=encoder)
    algorithm, states, data = built(config, episodes, shape=shape)
    assert data.inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.inputs, images)
    statistics = measure(config, episodes, spec_of(episodes, shape))
    np.testing.assert_array_equal(statistics.inputs.high, white)
    output, carry = jax.jit(algorithm.act)(
        states,
        algorithm.init_carry(2),
        keys_of(2),
        images[:2].astype(np.float32),
        np.ones(2, bool),
    )
    assert output.action.shape == (2, 3)
    assert carry.shape == (2, 1, 16)
    assert np.abs(carry[0] - carry[1]).max() > 1e-4


def test_a_stacked_history_is_carried_as_images():
    shape = (4, 5, 3)
    images = np.random.default_rng(0).integers(0, 255, (6, 60))
    episodes = episodes_of(
        [3, 1], lambda i: images[i], lambda i: np.cos(i)[:, None] * np.ones(3)
    )
    config = dataclasses.replace(TINY, encoder="patches", stacked=True, history=2)
    algorithm, states, _ = built(config, episodes, shape=shape)
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(1)
    for row, reset, seen in ((0, True, [0, 0]), (1, False, [1, 0]), (4, True, [4, 4])):
        output, carry = act(
            states, carry, keys_of(1), images[row : row + 1].astype(np.float32),
            np.array([reset]),
        )  # fmt: skip
        np.testing.assert_array_equal(carry[0], images[seen])
        assert output.action.shape == (1, 3)


# Options.


def test_options_are_checked():
    for kind, wrong, name in (
        (DiffusionBCConfig, {"diffusion_steps": 0}, "`diffusion_steps`"),
        (DiffusionBCConfig, {"condition_dropout": 1.0}, "`condition_dropout`"),
        (DiffusionBCConfig, {"history": 0}, "`history`"),
        (DiffusionBCConfig, {"schedule": "pearce"}, "`schedule`.*one of cosine"),
        (DiffusionBCActing, {"candidates": 0}, "`candidates`"),
        (DiffusionBCActing, {"bandwidth": 0.0}, "`bandwidth`"),
        (DiffusionBCActing, {"clip": -1.0}, "`clip`"),
        (DiffusionBCActing, {"extra_steps": -1}, "`extra_steps`"),
    ):
        with pytest.raises(UserError, match=name):
            kind(**wrong)


def test_guidance_needs_a_network_that_knows_no_observation():
    acting = DiffusionBCActing(guidance_weight=2.0)
    with pytest.raises(UserError, match=r"train it with `condition_dropout=0\.1`"):
        built(TINY, acting=acting)


def test_what_pictures_cannot_have_is_refused():
    episodes = dataclasses.replace(counting(), goals=np.zeros((11, 1), np.float32))
    with pytest.raises(UserError, match="goals beside pictures"):
        measure(TINY, episodes, spec_of(episodes, (1, 2, 1)))
    stacked = dataclasses.replace(TINY, stacked=True)
    with pytest.raises(UserError, match="choose `stacked=False`"):
        measure(stacked, counting(), spec_of(counting()))


def test_generic_options_build_a_policy_of_any_data():
    for shape in (None, (1, 2, 1)):
        spec = spec_of(counting(), shape)
        dataset = Dataset("mine", counting(), spec.observation_shape, "")
        config, acting, training, _ = generic(dataset, spec)
        statistics = measure(config, counting(), spec)
        algorithm = diffusion_bc(config, acting, statistics, spec)
        assert training.keys() == algorithm.learners.keys()
