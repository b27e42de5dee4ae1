"""What every algorithm must do, whatever it is.

The task is in `points`: from a position and a goal, the right action is known.
"""

import dataclasses
import functools
import shutil

import chex
import jax
import numpy as np
import pytest
from points import STEPS, line, straight_lines

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.imitation.bc import BCConfig
from jaxdiff.algorithms.imitation.diffusion_bc import DiffusionBCConfig
from jaxdiff.algorithms.offline.bcq import BCQConfig
from jaxdiff.algorithms.offline.bear import BEARConfig
from jaxdiff.algorithms.offline.cql import CQLConfig
from jaxdiff.algorithms.offline.diffusion_ql import DiffusionQLConfig
from jaxdiff.algorithms.offline.fql import FQLConfig
from jaxdiff.algorithms.offline.idql import IDQLConfig
from jaxdiff.algorithms.offline.iql import IQLConfig
from jaxdiff.algorithms.offline.qgpo import QGPOConfig
from jaxdiff.algorithms.offline.srpo import SRPOConfig
from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig
from jaxdiff.algorithms.planning.decision_diffuser import DecisionDiffuserConfig
from jaxdiff.algorithms.planning.diffuser import DiffuserConfig
from jaxdiff.data.episodes import Dataset, fingerprint
from jaxdiff.rollouts import agent
from jaxdiff.run import load_run, train_run
from jaxdiff.train import TrainConfig

DIFFUSER = DiffuserConfig(
    horizon=STEPS,
    horizons=(STEPS,),
    diffusion_steps=8,
    dim=16,
    dim_mults=(1,),
    prediction="x0",
    action_weight=1.0,
    goal_dim=2,
    learning_rate=3e-3,
    ema_decay=0.98,
    temperature=0.0,
    candidates=1,
    choose="fixed",
    controller="action",
)
# Guided by a model of returns, at which two plans are ranked. It is told that all are
# worth nothing, so that the answer stays what it is.
GUIDED = dataclasses.replace(
    DIFFUSER,
    dim=32,
    return_model=True,
    guide_scale=0.01,
    rank="return",
    candidates=2,
)
# States alone, goals clamped, two states known; the return, always zero, says nothing.
DECISION = DecisionDiffuserConfig(
    horizon=STEPS + 1,
    history=2,
    diffusion_steps=8,
    dim=16,
    dim_mults=(1,),
    prediction="x0",
    normalizer="limits",
    padding=False,
    goal_dim=2,
    inverse_width=64,
    learning_rate=3e-3,
    ema_decay=0.98,
    temperature=0.0,
    init_temperature=0.0,
    replan_every=1,  # or the second action would make up for standing still
)
# A history of two tells the first step of an episode from the others.
DIFFUSION_BC = DiffusionBCConfig(
    hidden=64,
    embed=32,
    history=2,
    learning_rate=3e-3,
    ema_decay=0.98,
    diffusion_steps=10,
    schedule="cosine",
    temperature=0.0,
)
# Rewards are all zero here, so that the policy is what is likeliest in the data.
SRPO = SRPOConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    temperature=0.0,
    score_width=64,
    score_blocks=1,
    score_dropout=0.0,
    ema_decay=0.98,
)
# Without noise its candidates are one, which is likely in the data.
IDQL = IDQLConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    score_width=64,
    score_blocks=1,
    score_dropout=0.0,
    ema_decay=0.98,
    candidates=2,
    noise=0.0,
)
DIFFUSION_QL = DiffusionQLConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    score_width=64,
    score_blocks=1,
    ema_decay=0.98,
    ema_every=1,
    ema_start=0,
    eta=0.1,
    candidates=2,
    noise=0.0,
)
FQL = FQLConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    score_width=64,
    score_blocks=1,
    flow_steps=3,
    noise=0.0,
)
QGPO = QGPOConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    score_width=64,
    score_blocks=1,
    ema_decay=0.98,
    support_actions=2,
    energy_width=16,
    energy_blocks=1,
    sampling_steps=15,
    noise=0.0,
)
CQL = CQLConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    policy_rate=3e-3,
    penalty_actions=2,
    warm_up=400,
)
# Moved by nothing, and drawn from the middle of the code.
BCQ = BCQConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    vae_widths=(64, 64),
    phi=0.0,
    backup_candidates=2,
    candidates=2,
    noise=0.0,
)
BEAR = BEARConfig(
    widths=(64, 64),
    learning_rate=3e-3,
    vae_widths=(64, 64),
    kernel="gaussian",
    width=0.5,
    warm_up=400,
    backup_candidates=2,
    candidates=2,
    noise=0.0,
)
# The smallest options that learn the task: a name of ALGORITHMS, and perhaps of a
# variant -> its options, and how many updates that takes.
TINY = {
    "diffuser": (DIFFUSER, 400),
    "diffuser guided": (GUIDED, 400),
    "decision-diffuser": (DECISION, 400),
    "diffusion-bc": (DIFFUSION_BC, 400),
    "bc": (BCConfig(hidden=64, learning_rate=3e-3, ema_decay=0.98), 400),
    "iql": (IQLConfig(widths=(64, 64), learning_rate=3e-3), 400),
    "srpo": (SRPO, 400),
    "idql": (IDQL, 400),
    "diffusion-ql": (DIFFUSION_QL, 400),
    "fql": (FQL, 400),
    "qgpo": (QGPO, 400),
    "cql": (CQL, 400),
    "bcq": (BCQ, 400),
    "bear": (BEAR, 400),
    "td3-bc": (TD3BCConfig(widths=(64, 64), learning_rate=3e-3, temperature=0.0), 800),
}
TRAINING = TrainConfig(batch_size=64, log_every=25, save_every=50, keep=100)
ENVS = 16

# These differ from others in their losses alone, which have tests of their own.
RARE = ("idql", "fql", "cql", "bcq", "bear", "qgpo")
# Whatever these have, guided Diffuser, diffusion policies, SRPO and Diffusion-QL have.
LESSER = ("diffuser", "decision-diffuser", "bc", "iql", *RARE)


def each_but(slow):
    """A test of every algorithm, of which some are slow ones."""
    marks = {name: [pytest.mark.slow] for name in slow}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks.get(name, [])) for name in TINY]
    )


# A model of returns beside the denoiser takes a minute to train; plans are the same.
names, costly = each_but(("diffuser guided", *RARE)), each_but(LESSER)
# Programs for eight devices compile long; diffusion policies and TD3+BC say the same.
costlier = each_but(("diffuser guided", "srpo", "diffusion-ql", *LESSER))
learned = each_but(("diffuser guided", *LESSER))


@functools.cache
def dataset():
    episodes = straight_lines()
    return Dataset("lines", episodes, None, fingerprint(episodes), {})


def train(name, path, num_steps, *, learning_rate=None, **options):
    config = TINY[name][0]
    if learning_rate is not None:
        config = dataclasses.replace(config, learning_rate=learning_rate)
    return train_run(
        name.split()[0],
        dataset(),
        path,
        config=config,
        training=dataclasses.replace(TRAINING, num_steps=num_steps),
        **options,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Name -> a run; each algorithm is trained once for all tests of this module."""

    @functools.cache
    def get(name):
        return train(name, tmp_path_factory.mktemp("runs") / name, TINY[name][1])

    return get


@pytest.fixture(scope="module")
def policy(trained):
    """Name -> the policy of its run, compiled once for all tests of this module."""

    @functools.cache
    def get(name):
        run = trained(name)
        return agent(run.algorithm, run.states, num_envs=ENVS)

    return get


@functools.cache
def problems():
    rng = np.random.default_rng(1)
    return rng.uniform(-0.9, 0.9, (2, ENVS, 2)).astype(np.float32)


def acts(policy, observation, goal, *, steps=2):
    """Actions of the first steps, `[steps, B, A]`, the observations standing still."""
    begins = np.ones(ENVS, bool)
    return np.stack(
        [policy(observation, goal, begins & (t == 0))[0] for t in range(steps)]
    )


def test_every_algorithm_is_here():
    assert {name.split()[0] for name in TINY} == ALGORITHMS.keys()


@names
def test_learns_what_is_known(name, trained, policy):
    observation, goal = problems()
    found = acts(policy(name), observation, goal)
    _, expected = line(observation, goal, STEPS)
    error = np.sqrt(np.mean((found - expected) ** 2))
    plans = trained(name).algorithm.plan is not None
    # Who only sees a place, and not when, cannot tell a start from a point on the way,
    # whose moves are larger for the steps that are left.
    assert error < (0.25 if plans else 0.5) * np.std(expected)
    if plans:
        plan_is_a_line(trained(name), observation, goal)


def plan_is_a_line(run, observation, goal):
    plans = jax.jit(run.algorithm.plan)(
        run.states, jax.random.key(0), observation, goal
    )
    positions, _ = line(observation, goal, STEPS)
    error = np.asarray(plans.trajectories[:, 0, :, 2:]) - positions
    # Both ends are given; what lies between must have been learned.
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.std(positions)
    np.testing.assert_allclose(error[:, [0, -1]], 0, atol=1e-6)


@learned
def test_a_loaded_run_acts_as_before(name, trained, policy):
    loaded = load_run(trained(name).path)
    again = agent(loaded.algorithm, loaded.states, num_envs=ENVS)
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
def test_a_second_call_compiles_nothing(name, trained, policy, compilations):
    run = trained(name)
    observation, goal = problems()
    policy(name)(observation, goal, np.ones(ENVS, bool))
    compilations.clear()
    policy(name)(goal, observation, np.zeros(ENVS, bool))
    policy(name)(observation, goal, np.arange(ENVS) == 3)
    assert not compilations
    if run.algorithm.plan is not None:
        plan = jax.jit(run.algorithm.plan)
        plan(run.states, jax.random.key(0), observation, goal)
        compilations.clear()
        plan(run.states, jax.random.key(1), goal, observation)
        assert not compilations


def stopped(run, step, path):
    """A copy of a run that knows nothing of what came after a step."""
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
    whole, kept = TINY[name][1], TINY[name][1] // 4 * 3
    path = stopped(trained(name), kept, tmp_path / "run")
    compilations.clear()
    resumed = train(name, path, whole, resume=True)
    chex.assert_trees_all_equal(resumed.states, trained(name).states)
    # Many dispatches, few programs: each learner's dispatch and what prepares it.
    assert (whole - kept) / TRAINING.log_every >= 4
    dispatches = [seconds for seconds in compilations if seconds > 0.5]
    assert len(dispatches) <= 2 * len(resumed.states)


@costlier
def test_eight_devices_are_as_one(name, tmp_path):
    one, eight = (
        train(
            name,
            tmp_path / str(count),
            25,
            learning_rate=2e-4,  # as released: Adam scales rounding by it
            devices=jax.devices()[:count],
        )
        for count in (1, 8)
    )
    for learner, state in eight.states.items():
        same = one.states[learner]
        assert int(same.step) == int(state.step) == 25
        if learner == "returns":
            # Of returns that are all zero hardly a gradient is left, and Adam makes
            # steps of its rounding; the learner shares its update with the denoiser.
            continue
        # A quarter of one step of Adam, which makes steps of the rounding of gradients
        # that are nearly zero; a mean left out shows as several whole steps.
        chex.assert_trees_all_close(same.params, state.params, rtol=0, atol=5e-5)
        chex.assert_trees_all_close(same.slow, state.slow, rtol=0, atol=5e-5)


@learned
def test_acting_over_two_devices_is_acting_over_one(name, trained, policy):
    run = trained(name)
    two = agent(run.algorithm, run.states, num_envs=ENVS, devices=jax.devices()[:2])
    np.testing.assert_allclose(
        acts(two, *problems()), acts(policy(name), *problems()), atol=1e-5
    )
