"""Diffusion policies: with exact denoisers, and with small networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import mixture_denoise

from jaxdiff import diffusion
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCConfig,
    densest,
    diffusion_bc,
    diffusion_head,
)
from jaxdiff.algorithms.imitation.policy import measure
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.normalizer import unnormalize
from jaxdiff.errors import UserError
from jaxdiff.networks import Sieve
from jaxdiff.tasks.presets import preset
from jaxdiff.train import TrainConfig, train_learners

TINY = DiffusionBCConfig(hidden=32, embed=16, diffusion_steps=8, schedule="cosine")
PAPER = diffusion.linear_schedule(50, time="fraction")


def episodes_of(lengths, observation, action):
    """Episodes whose row i has the observation and action that functions give."""
    lengths = np.array(lengths)
    rows = np.arange(int(np.sum(lengths + 1)))
    return Episodes(
        observations=np.asarray(observation(rows), np.float32),
        actions=np.asarray(action(rows), np.float32),
        rewards=np.zeros(len(rows), np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.ones(len(lengths), bool),
    )


def counting(lengths=(3, 1, 4)):
    """Row i observes i; the last rows of episodes have no action."""
    return episodes_of(
        lengths,
        lambda i: np.stack([i, -i], -1),
        lambda i: np.stack([np.cos(i), np.sin(i), i], -1),
    )


def built(config, episodes=None):
    episodes = counting() if episodes is None else episodes
    algorithm = diffusion_bc(config, measure(config, episodes), action_dim=3)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    state = jax.jit(learner.init)(jax.random.key(2), batch, {})
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
    config = DiffusionBCConfig(schedule=schedule, diffusion_steps=12, **acting)
    levels = {
        "linear": diffusion.linear_schedule(12),
        "linear_rescaled": diffusion.linear_schedule(12, rescale=True),
        "cosine": diffusion.cosine_schedule(12),
    }[schedule]
    head = diffusion_head(config, 2)
    embedding = jnp.array([[[0.3, -0.7]], [[0.9, 0.1]]])
    found = head.act(
        jax.random.key(0),
        lambda e, action, time: conditional(e, levels)(action, time),
        embedding,
    )
    np.testing.assert_allclose(found, embedding[:, 0], atol=1e-4)


def test_estimates_are_clipped_if_asked():
    config = DiffusionBCConfig(diffusion_steps=50, clip=0.5)
    found = diffusion_head(config, 2).act(
        jax.random.key(0),
        lambda e, action, time: conditional(e, PAPER)(action, time),
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
            guidance_weight=weight,
            condition_dropout=0.1,
        )
        return float(
            diffusion_head(config, 1)
            .act(
                jax.random.key(0),
                lambda e, action, time: conditional(e, levels, 1.0)(action, time),
                embedding,
            )
            .mean()
        )

    assert mean(0.0) == pytest.approx(0.0, abs=0.06)
    assert mean(1.0) == pytest.approx(0.5, abs=0.06)
    assert mean(3.0) == pytest.approx(1.5, abs=0.1)


def test_candidates_spread_and_the_densest_of_them_do_not():
    def spread(**acting):
        config = DiffusionBCConfig(
            schedule="linear_rescaled", diffusion_steps=30, bandwidth=0.3, **acting
        )
        levels = diffusion.linear_schedule(30, rescale=True)
        return float(
            diffusion_head(config, 1)
            .act(
                jax.random.key(0),
                lambda e, action, time: conditional(e, levels, 0.5)(action, time),
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
    head = diffusion_head(config, 2)
    actions = jax.random.uniform(jax.random.key(0), (400, 2), minval=0.5)
    embedding = jnp.stack([actions, jnp.ones_like(actions)], axis=1)
    keys = jax.random.split(jax.random.key(1), 400)
    seen = {}

    def denoise(e, action, time):
        seen["embedding"], seen["time"] = e, time
        rows = jnp.round(50 * time).astype(int)
        level = diffusion.take(PAPER, rows)
        return diffusion.from_x0(e[:, 0], action, level, prediction="noise")

    losses = head.loss(keys, denoise, embedding, actions)
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
    head = diffusion_head(DiffusionBCConfig(), 1)
    embedding = jnp.ones((64, 1, 1))

    def denoise(e, action, time):
        np.testing.assert_array_equal(e, embedding)
        return action

    head.loss(
        jax.random.split(jax.random.key(0), 64), denoise, embedding, jnp.ones((64, 1))
    )


# Histories.


def test_histories_never_leave_their_episode():
    config = dataclasses.replace(TINY, history=3)
    algorithm = diffusion_bc(config, measure(config, counting()), action_dim=3)
    learner = algorithm.learners["policy"]
    data = learner.prepare(counting(), {}, jax.random.key(0))
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
    statistics = measure(config, counting())
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(2)
    resets = [(True, True), (False, False), (False, True)]
    expected = [[[0, 0, 0]] * 2, [[1, 0, 0]] * 2, [[2, 1, 0], [2, 2, 2]]]
    for step, reset in enumerate(resets):
        observation = np.full((2, 2), step, np.float32)
        key = jax.random.key(step)
        _, carry = act(states, carry, key, observation, np.array(reset))
        # The embeddings of this network are the observations, normalised.
        seen = unnormalize(statistics.inputs, carry)
        np.testing.assert_allclose(seen[:, :, 0], expected[step], atol=1e-4)


def test_an_observation_is_encoded_once_and_denoised_often(monkeypatch):
    calls = {"encode": [], "denoise": []}
    for name, seen in calls.items():
        method = getattr(Sieve, name)

        def counted(self, x, *rest, method=method, seen=seen):
            jax.debug.callback(lambda x: seen.append(x.shape), x)
            return method(self, x, *rest)

        monkeypatch.setattr(Sieve, name, counted)
    config = dataclasses.replace(
        TINY,
        history=2,
        extra_steps=3,
        candidates=5,
        condition_dropout=0.1,
        guidance_weight=2.0,
    )
    algorithm, states, _ = built(config)
    act = jax.jit(algorithm.act)
    carry = algorithm.init_carry(4)
    jax.effects_barrier()
    for seen in calls.values():
        seen.clear()
    observation, reset = np.ones((4, 2), np.float32), np.ones(4, bool)
    act(states, carry, jax.random.key(0), observation, reset)
    jax.effects_barrier()
    # Of a history of two, the newest observation only, and no candidate's own.
    assert calls["encode"] == [(4, 1, 2)]
    assert calls["denoise"] == [(2 * 5 * 4, 2, 16)] * (8 + 3)


def test_a_batch_acts_as_each_of_it_alone():
    # An untrained network stays within the range of actions by this schedule only.
    config = dataclasses.replace(TINY, schedule="linear", temperature=0.0, candidates=2)
    algorithm, states, _ = built(config)
    observation = np.arange(6, dtype=np.float32).reshape(3, 2)
    step = jax.jit(algorithm.act)

    def act(observation):
        count = len(observation)
        reset, carry = np.ones(count, bool), algorithm.init_carry(count)
        return step(states, carry, jax.random.key(0), observation, reset)[0].action

    together = act(observation)
    for i in range(3):
        alone = act(observation[i : i + 1])[0]
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
    algorithm = diffusion_bc(config, measure(config, episodes), action_dim=2)
    training = TrainConfig(num_steps=1200, batch_size=64)
    states = train_learners(algorithm, episodes, configs={"policy": training})
    seen = np.linspace(0.1, 0.9, 500, dtype=np.float32)[:, None]
    actions = jax.jit(algorithm.act)(
        states,
        algorithm.init_carry(500),
        jax.random.key(0),
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
    config = dataclasses.replace(TINY, image_shape=shape, encoder=encoder)
    algorithm, states, data = built(config, episodes)
    assert data.inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.inputs, images)
    statistics = measure(config, episodes)
    np.testing.assert_array_equal(statistics.inputs.high, white)
    output, carry = jax.jit(algorithm.act)(
        states,
        algorithm.init_carry(2),
        jax.random.key(0),
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
    config = dataclasses.replace(
        TINY, image_shape=shape, encoder="patches", stacked=True, history=2
    )
    algorithm, states, _ = built(config, episodes)
    act = jax.jit(algorithm.act)
    carry, key = algorithm.init_carry(1), jax.random.key(0)
    for row, reset, seen in ((0, True, [0, 0]), (1, False, [1, 0]), (4, True, [4, 4])):
        output, carry = act(
            states, carry, key, images[row : row + 1].astype(np.float32),
            np.array([reset]),
        )  # fmt: skip
        np.testing.assert_array_equal(carry[0], images[seen])
        assert output.action.shape == (1, 3)


# Options.


def test_options_are_checked():
    for wrong, flag in (
        ({"diffusion_steps": 0}, "--diffusion-steps"),
        ({"candidates": 0}, "--candidates"),
        ({"bandwidth": 0.0}, "--bandwidth"),
        ({"clip": -1.0}, "--clip"),
        ({"extra_steps": -1}, "--extra-steps"),
        ({"condition_dropout": 1.0}, "--condition-dropout"),
        ({"guidance_weight": 2.0}, "--condition-dropout 0.1"),
        ({"history": 0}, "--history"),
        ({"image_shape": (32, 32)}, "--image-shape"),
        ({"schedule": "pearce"}, "--schedule"),
    ):
        with pytest.raises(UserError, match=flag):
            DiffusionBCConfig(**wrong)


def test_images_must_fit_the_dataset():
    config = dataclasses.replace(TINY, image_shape=(2, 2, 3))
    with pytest.raises(UserError, match="has 12 numbers and an observation"):
        measure(config, counting())
    episodes = dataclasses.replace(counting(), goals=np.zeros((11, 1), np.float32))
    config = dataclasses.replace(TINY, image_shape=(1, 2, 1))
    with pytest.raises(UserError, match="goals"):
        measure(config, episodes)


@pytest.mark.parametrize("name", ["demo", "released", "paper"])
@pytest.mark.parametrize("algorithm", ["diffusion-bc", "bc"])
def test_presets_know_claw_kitchen_and_pusht(algorithm, name):
    claw, _ = preset(algorithm, name, "claw-fixed7")
    kitchen, _ = preset(algorithm, name, "D4RL/kitchen/mixed-v2")
    pusht, _ = preset(algorithm, name, "pusht")
    other, training = preset(algorithm, name, "hopper")
    assert isinstance(other, ALGORITHMS[algorithm].config)
    assert claw.image_shape == (32, 32, 3)
    assert (kitchen.image_shape, kitchen.history) == ((), 2)
    assert (pusht.network, pusht.history) == ("sieve", 2)
    assert preset(algorithm, name, "toy-kitchen")[0] == kitchen
    assert (other.image_shape, other.history) == ((), 1)
    assert list(training) == ["policy"]
