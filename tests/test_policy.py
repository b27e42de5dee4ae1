"""Policies: whose noise, which parameters, how many compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import ActOutput, Algorithm, TrainState
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import normal
from jaxdiff.errors import UserError
from jaxdiff.policy import Policy

SPEC = Spec(observation_shape=(3,), action_dim=2)


def act(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Acts by noise, and remembers the sum of observations since the last reset."""
    carry = jnp.where(reset[:, None], 0.0, carry) + observation
    noise = normal(keys, (len(keys), 2))
    action = noise + states["policy"].params["bias"]
    if goal is not None:
        action = action + goal[:, :2]
    if guidance is not None:
        action = action + guidance
    return ActOutput(action=action, plan=carry), carry


def state(bias=0.0):
    params = {"bias": jnp.full(2, bias), "unread": jnp.ones(1000)}
    return TrainState(
        step=jnp.int32(0), params=params, slow={"ema": params}, opt_state=params
    )


def make(num_envs=1, *, spec=SPEC, seeds=None, bias=0.0, **options):
    algorithm = Algorithm(
        learners={}, act=act, init_carry=lambda batch: jnp.zeros((batch, 3))
    )
    states = {"policy": state(bias), "critic": state()}
    return Policy(algorithm, states, spec, num_envs=num_envs, seeds=seeds, **options)


def played(policy, steps=4):
    observation = np.zeros((policy.num_envs, 3))
    return np.stack([policy(observation) for _ in range(steps)], axis=1)


def test_noise_of_an_environment_does_not_depend_on_how_many_there_are():
    alone = [played(make(seeds=[seed]))[0] for seed in (3, 8, 5)]
    np.testing.assert_array_equal(played(make(3, seeds=[3, 8, 5])), np.stack(alone))


def test_noise_differs_between_seeds_steps_and_episodes():
    policy = make(2)
    actions = played(policy)
    assert len(np.unique(actions)) == actions.size
    policy.reset()
    np.testing.assert_array_equal(played(policy)[0], actions[1])  # seed 0 + 1


def test_a_reset_where_a_mask_says_so_leaves_the_others_alone():
    policy, ones = make(2, seeds=[4, 5]), np.ones((2, 3))
    policy(ones)
    policy.reset([True, False], seeds=[4, 99])
    action = policy(ones)
    np.testing.assert_array_equal(policy.last.plan, [[1.0] * 3, [2.0] * 3])
    first = make(2, seeds=[4, 5])
    begun = first(ones)
    np.testing.assert_array_equal(action[0], begun[0])
    np.testing.assert_array_equal(action[1], first(ones)[1])


def test_goals_are_ignored_where_none_were_trained_on():
    actions = make()(np.zeros(3), np.ones(2))
    np.testing.assert_array_equal(actions, make()(np.zeros(3)))


def test_only_what_acting_reads_is_held():
    policy = make(bias=2.0)
    _, leaves = policy._program("act", False)
    assert [leaf.shape for leaf in leaves] == [(2,)]
    np.testing.assert_allclose(played(policy) - played(make()), 2.0, atol=1e-6)


def test_a_program_is_given_what_it_reads_and_no_more():
    """No key, no reset, no goal: the observation alone (input 0 without a carry)."""

    def still(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=observation[:, :2]), carry

    policy = Policy(Algorithm({}, still), {}, SPEC)
    np.testing.assert_array_equal(policy([1.0, 2.0, 3.0]), [1.0, 2.0])
    program, _ = policy._program("act", False)
    assert program.inputs == (0,)


def test_an_algorithm_follows_until_a_plan_is_due():
    """Acts by 1 where it plans, at every third step, and by 0 where it follows."""

    def result(action, carry, reset):
        carry = jnp.where(reset, 0, carry)
        return ActOutput(action=jnp.full((2, 2), action)), carry + 1, carry % 3 == 0

    def plans(states, carry, keys, observation, reset, goal=None, guidance=None):
        return result(1.0, carry, reset)[:2]

    def follow(states, carry, keys, observation, reset, goal=None, guidance=None):
        output, carry, due = result(0.0, carry, reset)
        return output, carry, ~jnp.any(due)

    carry = lambda batch: jnp.zeros(batch, jnp.int32)  # noqa: E731
    algorithm = Algorithm({}, plans, carry, follow=follow)
    policy = Policy(algorithm, {}, SPEC, num_envs=2)
    policy.warmup()
    acted = played(policy, 7)[:, :, 0]
    np.testing.assert_array_equal(acted, [[1, 0, 0, 1, 0, 0, 1]] * 2)
    policy.reset([True, False])  # one plans at once, the other 2 steps from now
    np.testing.assert_array_equal(played(policy, 4)[0, :, 0], [1, 0, 1, 1])


def test_a_second_policy_of_the_algorithm_compiles_nothing(compilations):
    policy = make(2)
    played(policy)
    compilations.clear()
    again = make(2, bias=1.0)
    played(again)
    policy.warmup()
    assert not compilations


def test_warmup_changes_nothing(compilations):
    warm = make(2, seeds=[1, 2])
    warm.warmup()
    compilations.clear()
    actions = played(warm)
    assert not compilations
    np.testing.assert_array_equal(actions, played(make(2, seeds=[1, 2])))


def test_one_observation_needs_no_axis_of_environments():
    action = make(seeds=[7])(np.zeros(3))
    assert action.shape == (2,)
    np.testing.assert_array_equal(action, make(seeds=[7])(np.zeros((1, 3)))[0])
    picture = Spec(observation_shape=(2, 2, 3), action_dim=2)
    algorithm = Algorithm(
        learners={},
        act=lambda states, carry, keys, observation, *args, **options: (
            ActOutput(action=observation[:, :2]),
            carry,
        ),
        init_carry=lambda batch: (),
    )
    policy = Policy(algorithm, {}, picture)
    np.testing.assert_array_equal(policy(np.arange(12).reshape(2, 2, 3)), [0, 1])


def test_goals_and_guidance_reach_the_algorithm():
    spec = Spec(observation_shape=(3,), action_dim=2, goal_dim=2)
    goal = np.array([[10.0, 20.0]])
    plain = make(spec=spec)(np.zeros((1, 3)))
    moved = make(spec=spec)(np.zeros((1, 3)), goal)
    np.testing.assert_allclose(moved - plain, goal, atol=1e-5)
    led = make(guidance=jnp.float32(5.0))(np.zeros((1, 3)))
    np.testing.assert_allclose(led - plain, 5.0, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: make(0), "`num_envs` is 0"),
        (lambda: make(2)(np.zeros((3, 3))), r"shape \[3, 3\]; this policy acts in 2"),
        (lambda: make(2)(np.zeros(3)), "`observation` has shape"),
        (lambda: make(2).reset([True]), "`mask` has shape"),
        (lambda: make(2, seeds=[1]), "`seeds` has shape"),
    ],
)
def test_wrong_shapes_are_named(wrong, words):
    with pytest.raises(UserError, match=words):
        wrong()


@pytest.mark.parametrize("name", ["iql", "cql", "bc"])
def test_policies_of_one_small_network_act_without_xla(name, compilations, monkeypatch):
    """They compile nothing, and act as the compiled program does."""
    entry = ALGORITHMS.find(name)
    lengths = np.full(3, 20)
    rng = np.random.default_rng(0)
    rows = int(lengths.sum()) + len(lengths)
    data = Episodes(
        observations=rng.normal(size=(rows, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        rewards=np.ones(rows, np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.zeros(3, bool),
    )
    options = entry.config(), entry.acting()
    algorithm = entry.build(*options, entry.measure(options[0], data, SPEC), SPEC)
    states = {}
    for learner, functions in algorithm.learners.items():
        prepared = functions.prepare(data, states, jax.random.key(0))
        example = functions.draw(prepared, jax.random.key(1))
        batch = jax.tree.map(lambda x: np.asarray(x)[None], example)
        shapes = jax.eval_shape(functions.init, jax.random.key(0), batch, states)
        states[learner] = jax.tree.map(
            lambda x: rng.normal(0, 0.2, x.shape).astype(x.dtype), shapes
        )
    observations = rng.normal(size=(5, 3)).astype(np.float32)
    host = Policy(algorithm, states, SPEC)
    compilations.clear()
    actions = [host(observation) for observation in observations]
    assert not compilations
    monkeypatch.setattr("jaxdiff.policy.host_program", lambda *_: None)
    compiled = Policy(algorithm, states, SPEC)
    np.testing.assert_allclose(actions, [compiled(o) for o in observations], atol=1e-5)
    assert compilations
