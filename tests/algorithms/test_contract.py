"""What every algorithm must do.

The task is in `points`: from a position and a goal, the right action is known. Planners
learn it here. What policies learn is in `test_learning.py`; here they take a few
updates.
"""

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from points import STEPS, line, straight_lines
from toy import spec_of

from jaxdiff import run as runs
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Dataset, fingerprint
from jaxdiff.data.spec import Layout
from jaxdiff.options import from_plain, to_plain
from jaxdiff.policy import Policy

Options = Mapping[str, Any]
NONE: Options = MappingProxyType({})


class Case(NamedTuple):
    """The smallest options under which acting is deterministic, and updates.

    `noisy` holds acting options under which actions are random, for algorithms whose
    actions can be.
    """

    config: Options
    acting: Options = NONE
    noisy: Options = NONE
    updates: int = 40


DIFFUSER = {
    **{"horizon": STEPS, "diffusion_steps": 8, "dim": 16, "dim_mults": (1,)},
    **{"prediction": "x0", "action_weight": 1.0, "goal_dim": 2},
    **{"learning_rate": 3e-3, "ema_decay": 0.98},
}
# States alone, goals clamped, two states known; the return is always zero.
DECISION = {
    **{name: DIFFUSER[name] for name in DIFFUSER if name != "action_weight"},
    **{"horizon": STEPS + 1, "history": 2, "normalizer": "limits", "padding": False},
    "inverse_width": 64,
}
OFFLINE = {"widths": (16,)}
SCORE = {**OFFLINE, "score_width": 16, "score_blocks": 1}
VAE = {**OFFLINE, "vae_widths": (16,), "backup_candidates": 2}
STILL, MOVING = {"temperature": 0.0}, {"temperature": 0.5}
# Without noise all candidates are one action.
QUIET, LOUD = {"candidates": 2, "noise": 0.0}, {"noise": 1.0}
# A name of ALGORITHMS, and perhaps of a variant -> its case.
CASES = {
    "diffuser": Case(DIFFUSER, STILL, MOVING),
    # A model of returns guides and ranks two plans. All returns are zero, so that the
    # answer is the same.
    "diffuser guided": Case(
        {**DIFFUSER, "dim": 32, "return_model": True},
        {**STILL, "guide_scale": 0.01, "rank": "return", "candidates": 2},
        MOVING,
    ),
    # Renewed plans keep the second action from making up for standing still.
    "decision-diffuser": Case(DECISION, {**STILL, "replan_every": 1}, MOVING),
    "diffusion-bc": Case(
        {"hidden": 16, "embed": 8, "history": 2, "diffusion_steps": 4},
        STILL,
        {"temperature": 1.0, "candidates": 3},
    ),
    "bc": Case({"hidden": 16}),
    "iql": Case(OFFLINE),
    "srpo": Case(SCORE),
    "idql": Case(SCORE, QUIET, LOUD),
    "diffusion-ql": Case(SCORE, QUIET, LOUD),
    "fql": Case({**OFFLINE, "flow_steps": 3}, {"noise": 0.0}, LOUD),
    "qgpo": Case(
        {**SCORE, "support_actions": 2, "energy_width": 16, "energy_blocks": 1},
        {"noise": 0.0},
        LOUD,
    ),
    "cql": Case({**OFFLINE, "penalty_actions": 2}),
    "bcq": Case(VAE, QUIET, LOUD),
    "bear": Case(VAE, QUIET, LOUD),
    "td3-bc": Case(OFFLINE),
}
ENVS = 16

# These differ from others in their losses alone, which have tests of their own.
RARE = ("idql", "fql", "cql", "bcq", "bear", "qgpo")
# Guided Diffuser, diffusion policies, SRPO and Diffusion-QL cover what these have.
LESSER = ("diffuser", "decision-diffuser", "bc", "iql", *RARE)


def each_but(slow):
    """Parametrize a test by all cases, some of which are slow."""
    marks = {name: [pytest.mark.slow] for name in slow}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks.get(name, [])) for name in CASES]
    )


# A model of returns beside the denoiser takes a minute to train; plans are the same.
names = each_but(("diffuser guided", *RARE))
costly = each_but(("diffuser guided", *LESSER))
# Programs for eight devices compile slowly; diffusion policies and TD3+BC suffice.
costlier = each_but(("diffuser guided", "srpo", "diffusion-ql", *LESSER))
everyone = pytest.mark.parametrize("algorithm", list(ALGORITHMS))


@functools.cache
def dataset():
    episodes = straight_lines()
    shape = episodes.observations.shape[1:]
    return Dataset("lines", episodes, shape, fingerprint(episodes))


def spec():
    return spec_of(dataset().episodes, layout=Layout(position=(0, 1), goal=(0, 1)))


def train(name, path, num_steps, *, changes=NONE, **options):
    case, algorithm = CASES[name], name.split()[0]
    entry = ALGORITHMS[algorithm]
    training = TrainConfig(
        num_steps, 64, log_every=num_steps // 20, save_every=num_steps // 4, keep=100
    )  # fmt: skip
    config = entry.config(**{**case.config, **changes})
    preset = Preset(config, entry.acting(**case.acting), training)
    return runs.train(algorithm, dataset(), spec(), path, preset, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Name -> a run; each algorithm is trained once for all tests of this module."""

    @functools.cache
    def get(name, updates=None):
        path = tmp_path_factory.mktemp("runs") / name
        return train(name, path, updates or CASES[name].updates)

    return get


@pytest.fixture(scope="module")
def policy(trained):
    """Name -> the policy of its run, compiled once for all tests of this module."""

    @functools.cache
    def get(name):
        return trained(name).policy(ENVS)

    return get


@functools.cache
def problems():
    rng = np.random.default_rng(1)
    return rng.uniform(-0.9, 0.9, (2, ENVS, 2)).astype(np.float32)


def acts(policy, observation, goal, *, steps=2):
    """Actions of the first steps, `[steps, B, A]`, the observations standing still."""
    policy.reset(seeds=range(policy.num_envs))
    return np.stack([policy(observation, goal) for _ in range(steps)])


def test_every_algorithm_is_here():
    assert {name.split()[0] for name in CASES} == set(ALGORITHMS)


@everyone
def test_options_survive_storage_and_have_help(algorithm):
    entry = ALGORITHMS[algorithm]
    assert entry.name == algorithm
    preset = entry.generic(dataset(), spec())
    for kind, options in ((entry.config, preset.config), (entry.acting, preset.acting)):
        assert isinstance(options, kind)
        assert from_plain(kind, to_plain(options)) == options
        docs = "".join(each.__doc__ or "" for each in kind.__mro__)
        for field in dataclasses.fields(kind):
            assert f"\n      {field.name}: " in docs, field.name


@everyone
@pytest.mark.parametrize("goals", [True, False])
def test_generic_options_build_for_data_of_no_task(algorithm, goals):
    entry, episodes = ALGORITHMS[algorithm], dataset().episodes
    rng = np.random.default_rng(0)
    episodes = dataclasses.replace(
        episodes,
        rewards=rng.uniform(0, 1, len(episodes.rewards)).astype(np.float32),
        goals=episodes.goals if goals else None,
    )
    plain, data = spec_of(episodes), dataset()._replace(episodes=episodes)
    config, acting, training, _ = entry.generic(data, plain)
    statistics = entry.measure(config, episodes, plain)
    built = entry.build(config, acting, statistics, plain)
    assert training.keys() >= built.learners.keys()
    jax.eval_shape(lambda: built.init_carry(3))


@pytest.mark.parametrize(
    "name",
    [
        "diffuser",
        pytest.param("diffuser guided", marks=pytest.mark.slow),
        pytest.param("decision-diffuser", marks=pytest.mark.slow),
    ],
)
def test_planners_learn_the_lines(name, trained):
    observation, goal = problems()
    run, keys = trained(name, 400), jax.random.split(jax.random.key(0), ENVS)
    found = acts(run.policy(ENVS), observation, goal)
    positions, action = line(observation, goal, STEPS)
    error = np.sqrt(np.mean((found - action) ** 2))
    assert error < 0.25 * np.std(action)
    problem = Problem(history=observation[:, None], goal=goal)
    plans = jax.jit(run.algorithm.plan)(run.states, keys, problem)
    error = np.asarray(plans.trajectories[:, 0, :, 2:]) - positions
    # Both ends are given; the rest must have been learned.
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.std(positions)
    np.testing.assert_allclose(error[:, [0, -1]], 0, atol=1e-6)


@costly
def test_a_loaded_run_acts_as_before(name, trained, policy):
    again = runs.load_run(trained(name).path).policy(ENVS)
    np.testing.assert_array_equal(
        acts(again, *problems()), acts(policy(name), *problems())
    )


@names
def test_no_environment_depends_on_the_others(name, policy):
    observation, goal = problems()
    alone = acts(policy(name), observation, goal)
    order = np.append(0, np.random.default_rng(2).permutation(ENVS - 1) + 1)
    together = acts(policy(name), observation[order], goal[order])
    np.testing.assert_array_equal(together[:, 0], alone[:, 0])
    assert (together[0, 1:] != alone[0, 1:]).any()


@names
def test_noise_does_not_depend_on_how_many_act(name, trained):
    """One environment without a batch axis acts as it does among four."""
    run, noisy = trained(name), CASES[name].noisy
    acting = dataclasses.replace(run.acting, **noisy)
    built = ALGORITHMS[run.name].build(run.config, acting, run.statistics, run.spec)
    observation, goal = problems()
    seeds = [5, 9, 2, 7]
    four = Policy(built, run.states, run.spec, num_envs=4, seeds=seeds)
    together = four(observation[:4], goal[:4])
    one = Policy(built, run.states, run.spec, seeds=seeds[2:3])
    alone = one(observation[2], goal[2])
    assert alone.shape == (2,)
    np.testing.assert_allclose(alone, together[2], atol=1e-5)
    four.reset(seeds=[5, 9, 3, 7])
    again = four(observation[:4], goal[:4])
    np.testing.assert_allclose(again[:2], together[:2], atol=1e-6)
    assert (again[2] != together[2]).any() == bool(noisy)


@names
def test_acting_holds_only_the_parameters_that_it_reads(name, trained, policy):
    program, _ = policy(name)._program("act", True)
    assert 0 < len(program.held) < len(jax.tree.leaves(trained(name).states))


@names
def test_a_second_call_compiles_nothing(name, trained, policy, compilations):
    run = trained(name)
    observation, goal = problems()
    policy(name).warmup()
    compilations.clear()
    policy(name)(observation, goal)
    policy(name)(goal, observation)
    policy(name).reset(np.arange(ENVS) == 3)
    policy(name)(observation, goal)
    assert not compilations
    if run.algorithm.plan is not None:
        plan = jax.jit(run.algorithm.plan)
        first, second = (
            jax.random.split(jax.random.key(seed), ENVS) for seed in (0, 1)
        )
        plan(run.states, first, Problem(history=observation[:, None], goal=goal))
        compilations.clear()
        plan(run.states, second, Problem(history=goal[:, None], goal=observation))
        assert not compilations


def stopped(run, step, path):
    """Copy a run without what came after a step."""
    shutil.copytree(run.path, path)
    for learner in run.states:
        for folder in (path / "checkpoints" / learner).iterdir():
            if folder.name.isdigit() and int(folder.name) > step:
                shutil.rmtree(folder)
    return path


@costly
def test_stopped_and_resumed_is_the_same_and_compiles_once(
    name, trained, tmp_path, compilations
):
    whole = CASES[name].updates
    kept = whole // 4 * 3
    path = stopped(trained(name), kept, tmp_path / "run")
    compilations.clear()
    resumed = train(name, path, whole, resume=True)
    chex.assert_trees_all_equal(resumed.states, trained(name).states)
    # Five dispatches are one program for each learner, beside its small ones.
    assert len(compilations) <= 3 * len(resumed.states), compilations


@costlier
def test_eight_devices_are_as_one(name, tmp_path):
    one, eight = (
        train(
            name,
            tmp_path / str(count),
            25,
            changes={"learning_rate": 2e-4},  # Adam scales rounding by it
            devices=jax.devices()[:count],
        )
        for count in (1, 8)
    )
    for learner, state in eight.states.items():
        same = one.states[learner]
        assert int(same.step) == int(state.step) == 25
        if learner == "returns":
            # Returns that are all zero leave hardly a gradient, and Adam makes steps
            # of its rounding; the learner shares its update with the denoiser.
            continue
        # A quarter of one step of Adam, which makes steps of the rounding of gradients
        # that are nearly zero; a missing mean shows as several whole steps.
        chex.assert_trees_all_close(same.params, state.params, rtol=0, atol=5e-5)
        chex.assert_trees_all_close(same.slow, state.slow, rtol=0, atol=5e-5)


@costly
def test_acting_over_two_devices_is_acting_over_one(name, trained, policy):
    two = trained(name).policy(ENVS, devices=jax.devices()[:2])
    np.testing.assert_allclose(
        acts(two, *problems()), acts(policy(name), *problems()), atol=1e-5
    )
