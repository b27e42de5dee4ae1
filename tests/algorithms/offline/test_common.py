"""What offline algorithms share: options, data, generic presets, acting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms.offline import (
    bcq,
    bear,
    cql,
    critic,
    diffusion_ql,
    fql,
    idql,
    iql,
    qgpo,
    srpo,
    td3_bc,
)
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    make_prepare,
    measure,
    unit_scale,
    with_guidance,
)
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError

SPEC = Spec(observation_shape=(2,), action_dim=2, goal_dim=2)
MODULES = (bcq, bear, cql, diffusion_ql, fql, idql, iql, qgpo, srpo, td3_bc)
ENTRIES = [module.ENTRY for module in MODULES]
DATA = straight_lines(4)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"discount": 1.5}, "`discount`"),
        ({"target_rate": 2.0}, "`target_rate`"),
        ({"widths": (0,)}, "`widths`"),
        ({"rewards": "halved"}, "`rewards`"),
        ({"reward_scale": 0.0}, "`reward_scale`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        OfflineConfig(**wrong)


def test_data_are_normalised_and_rewards_scaled():
    episodes = straight_lines(20)
    rewards = np.arange(len(episodes.rewards), dtype=np.float32)
    episodes.rewards[:] = rewards
    config = OfflineConfig(rewards="minus-one")
    data = make_prepare(config, measure(config, episodes, SPEC))(
        episodes, {}, jax.random.key(0)
    )
    # Position and goal, seen from their mean; each action from end to end.
    assert data.inputs.shape == (160, 4)
    np.testing.assert_allclose(data.inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.inputs.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(data.actions).max(0), 1, atol=1e-6)
    np.testing.assert_allclose(data.rewards[:8], rewards[:8] - 1)
    assert not data.terminals.any()


def test_data_may_be_left_as_they_are():
    episodes = straight_lines(20)
    config = OfflineConfig(normalizer="none", scale_actions=False, drop_timeouts=True)
    data = make_prepare(config, measure(config, episodes, SPEC))(
        episodes, {}, jax.random.key(0)
    )
    assert data.inputs.shape == (140, 4)
    np.testing.assert_allclose(
        data.inputs[:7, :2], episodes.observations[:7], atol=1e-6
    )
    np.testing.assert_allclose(data.actions[:7], episodes.actions[:7], atol=1e-6)
    # The statistics are of what is trained on, and actions must be where tanh ends.
    episodes.actions[0] = 3.0
    with pytest.raises(UserError, match="`scale_actions=True`"):
        measure(config, episodes, SPEC)


def test_rewards_are_scaled_after_they_are_shifted():
    episodes = straight_lines(4)
    episodes.rewards[:] = 3.0
    config = OfflineConfig(rewards="minus-one", reward_scale=0.5)
    data = make_prepare(config, measure(config, episodes, SPEC))(episodes, {}, None)
    np.testing.assert_allclose(data.rewards, 1.0)


# ------------------------------------------------------------------ generic presets


def test_rewards_of_any_unit_get_a_mean_square_of_one():
    episodes = straight_lines(4)
    assert unit_scale(episodes) == 1.0
    inside = np.arange(len(episodes.rewards)) % 9 != 8  # not the ends of episodes
    for size in (1e-3, 500.0):
        episodes.rewards[:] = np.where(inside, size, 0)
        np.testing.assert_allclose(unit_scale(episodes), 1 / size, rtol=1e-6)
    episodes.rewards[:] = 0
    episodes.rewards[7] = 2.0  # one reward in 32 transitions
    np.testing.assert_allclose(unit_scale(episodes), np.sqrt(32) / 2, rtol=1e-6)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_generic_options_build_their_learners(entry):
    episodes = straight_lines(4)
    episodes.rewards[0] = 1e4
    dataset = Dataset("mine", episodes, (2,), "")
    preset = entry.generic(dataset, SPEC)
    assert isinstance(preset.config, entry.config)
    assert isinstance(preset.acting, entry.acting)
    assert preset.config.reward_scale < 1e-2
    statistics = entry.measure(preset.config, episodes, SPEC)
    built = entry.build(preset.config, preset.acting, statistics, SPEC)
    assert list(preset.training) == list(built.learners)


# ---------------------------------------------------------------------------- acting


def test_guidance_takes_the_place_of_acting_options():
    acting = idql.IDQLActing(candidates=3, noise=0.5)
    assert with_guidance(acting, None).noise == 0.5
    chosen = with_guidance(acting, {"noise": jnp.float32(2.0)})
    assert (chosen.noise, chosen.candidates) == (2.0, 3)


SMALL = {"widths": (8,), "score_width": 8, "score_blocks": 1, "vae_widths": (8,)}
FEW = {"diffusion_steps": 2, "support_steps": 2, "energy_width": 8}


def untrained(entry, **options):
    """An algorithm of random parameters and the states of its learners."""
    fields = entry.config.__dataclass_fields__
    config = entry.config(**{k: v for k, v in (SMALL | FEW).items() if k in fields})
    acting = {"candidates": 2} if hasattr(entry.acting, "candidates") else {}
    acting |= options
    statistics = entry.measure(config, DATA, SPEC)
    built = entry.build(config, entry.acting(**acting), statistics, SPEC)
    batch = make_prepare(config, statistics)(DATA, {}, None)
    batch = jax.tree.map(lambda x: x[:1], batch)
    init = jax.jit(
        lambda key: {
            name: each.init(key, batch, {}) for name, each in built.learners.items()
        }
    )
    return built, init(jax.random.key(0))


@pytest.mark.parametrize(
    "entry",
    [x for x in ENTRIES if hasattr(x.acting, "noise")],
    ids=lambda entry: entry.name,
)
def test_the_noise_of_an_environment_is_its_own(entry):
    built, states = untrained(entry)
    keys = jax.random.split(jax.random.key(1), 4)
    observation = jnp.linspace(-1, 1, 8).reshape(4, 2)

    @jax.jit
    def act(states, keys, observation):
        goal = -observation
        return built.act(states, (), keys, observation, None, goal)[0].action

    together = act(states, keys, observation)
    some = np.array([3, 1])
    pair = act(states, keys[some], observation[some])
    np.testing.assert_allclose(together[some], pair, atol=1e-5)
    assert (act(states, keys[::-1], observation) != together).any()


class Opposed:
    """Twins of the first entry: the second falls as the first rises, and is smaller."""

    def init(self, key, inputs, actions):
        return ()

    def apply(self, params, inputs, actions):
        first = jnp.tanh(actions[..., 0])
        return jnp.stack([first, -first - 9])


@pytest.mark.parametrize(
    ("module", "best"),
    [(bcq, 1), (bear, 1), (idql, -1), (diffusion_ql, -1), (qgpo, -1)],
    ids=lambda each: getattr(each, "__name__", "").rpartition(".")[2],
)
def test_of_candidates_the_best_to_one_critic_or_to_both_is_taken(
    module, best, monkeypatch
):
    """BCQ and BEAR ask the first critic, the others the smaller one."""
    for place in (module, critic):
        if hasattr(place, "TwinQ"):
            monkeypatch.setattr(place, "TwinQ", lambda *options: Opposed())
    pick = {"pick": "best"} if hasattr(module.ENTRY.acting, "pick") else {}
    one, many = (
        untrained(module.ENTRY, candidates=count, noise=3.0, **pick)
        for count in (1, 16)
    )
    keys = jax.random.split(jax.random.key(1), 16)
    observation = jnp.linspace(-1, 1, 32).reshape(16, 2)

    def first(built, states):
        act = jax.jit(
            lambda: built.act(states, (), keys, observation, None, -observation)
        )
        return act()[0].action[:, 0]

    assert (best * (first(*many) - first(*one))).mean() > 0
