"""The ball of the mazes in JAX, step by step beside MuJoCo's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.tasks.pointmaze import TASK, dynamics
from jaxdiff.tasks.pointmaze.dynamics import simulate, step
from jaxdiff.tasks.pointmaze.environment import make_maze
from jaxdiff.tasks.pointmaze.expert import Expert
from jaxdiff.tasks.pointmaze.scores import MazeOptions
from jaxdiff.tasks.pointmaze.world import (
    GOAL_RADIUS,
    MAZES,
    environment_of,
    free_cells,
    free_table,
)

UMAZE, LARGE = MAZES["umaze"], MAZES["large"]
STEPS = 300


def walls_of(maze):
    return ~free_table(maze)


@functools.cache
def advance():
    return jax.jit(jax.vmap(step, (None, 0, 0)))


def random_actions(maze, seed):
    """Pushes in one direction for 20 steps, often into a wall."""
    rng = np.random.default_rng(seed)
    pushes = rng.uniform(-1.5, 1.5, (STEPS // 20, 2)).clip(-1, 1).repeat(20, axis=0)
    pushes = iter(pushes.astype(np.float32))
    return lambda observation: next(pushes)


def expert_actions(maze, seed):
    expert = Expert(maze, seeds=[seed])

    def act(seen):
        action = expert(seen["observation"][None], seen["desired_goal"][None])
        return action[0].astype(np.float32)

    return act


@functools.cache
def driven(maze, driver, episodes=5):
    """Drive in MuJoCo: states [E, T + 1, 4], actions [E, T, 2], contact [E, T]."""
    pytest.importorskip("gymnasium_robotics")
    env = make_maze(maze, max_episode_steps=STEPS)
    states, actions, touching = [], [], []
    for seed in range(episodes):
        seen, _ = env.reset(seed=seed)
        act = driver(maze, seed)
        states.append([seen["observation"]])
        for _ in range(STEPS):
            actions.append(act(seen))
            seen, *_ = env.step(actions[-1])
            states[-1].append(seen["observation"])
            touching.append(env.unwrapped.data.ncon > 1)  # one is with the ground
    env.close()
    shape = (episodes, STEPS)
    return (
        np.array(states),
        np.array(actions).reshape(*shape, 2),
        np.array(touching).reshape(shape),
    )


@pytest.mark.parametrize("maze", [UMAZE, LARGE], ids=lambda maze: maze.name)
@pytest.mark.parametrize("driver", [random_actions, expert_actions])
def test_a_step_is_that_of_mujoco(maze, driver):
    states, actions, touching = driven(maze, driver)
    found = advance()(
        walls_of(maze),
        states[:, :-1].reshape(-1, 4).astype(np.float32),
        actions.reshape(-1, 2),
    )
    error = np.abs(found - states[:, 1:].reshape(-1, 4)).max(axis=1)
    touching = touching.ravel()
    assert error[~touching].max() < 2e-6
    if driver is random_actions:
        assert touching.sum() > 300
        assert np.median(error[touching]) < 3e-6
        assert np.quantile(error[touching], 0.99) < 1e-4
        assert error[touching].max() < 1e-3


@pytest.mark.parametrize(
    ("driver", "median", "worst"),
    [(expert_actions, 3e-6, 1e-4), (random_actions, 1e-3, 1.0)],
)
def test_a_path_of_three_hundred_steps_is_that_of_mujoco(driver, median, worst):
    states, actions, _ = driven(UMAZE, driver)

    @jax.jit
    @jax.vmap
    def follow(state, actions):
        walls = walls_of(UMAZE)
        return jax.lax.scan(lambda s, a: (step(walls, s, a),) * 2, state, actions)[1]

    found = follow(np.float32(states[:, 0]), actions)
    apart = np.linalg.norm(found[..., :2] - states[:, 1:, :2], axis=-1)[:, -1]
    assert np.median(apart) < median
    assert apart.max() < worst


def near_walls(maze, count=2_000, seed=0):
    """Draw states at most 4 mm from touching one wall or two, with any velocity."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(free_cells(maze), count)
    offset = rng.uniform(-0.5, 0.5, (count, 2))
    close = rng.choice([-1, 1], (count, 2)) * rng.uniform(0.39, 0.44, (count, 2))
    offset = np.where(rng.random((count, 2)) < 0.7, close, offset)
    rows, columns = maze.shape
    x = cells[:, 1] + 0.5 - columns / 2 + offset[:, 0]
    y = rows / 2 - cells[:, 0] - 0.5 + offset[:, 1]
    velocity = rng.uniform(-5.5, 5.5, (2, count))
    actions = rng.uniform(-1.5, 1.5, (count, 2))
    return np.float32(np.stack([x, y, *velocity], axis=1)), np.float32(actions)


def test_a_mirrored_maze_gives_mirrored_steps():
    states, actions = near_walls(LARGE)
    walls = walls_of(LARGE)
    found = advance()(walls, states, actions)
    for flipped, sign in ((walls[:, ::-1], [-1, 1]), (walls[::-1], [1, -1])):
        signs = np.float32([*sign, *sign])
        mirrored = advance()(flipped, states * signs, actions * signs[:2])
        np.testing.assert_allclose(mirrored * signs, found, atol=2e-4)
    # The first diagonal: rows are counted downward, y upward.
    swap = [1, 0, 3, 2]
    turned = advance()(walls[::-1, ::-1].T, states[:, swap], actions[:, ::-1])
    np.testing.assert_allclose(turned[:, swap], found, atol=2e-4)


def test_newtons_method_has_come_to_an_end(monkeypatch):
    states, actions = near_walls(LARGE)
    found = advance()(walls_of(LARGE), states, actions)
    monkeypatch.setattr(dynamics, "_NEWTON_STEPS", 8)
    more = jax.jit(jax.vmap(step, (None, 0, 0)))(walls_of(LARGE), states, actions)
    np.testing.assert_allclose(more, found, atol=2e-5)


def test_walls_push_and_never_pull():
    states, actions = near_walls(LARGE)
    free = advance()(np.zeros(LARGE.shape, bool), states, actions)
    pushed = advance()(walls_of(LARGE), states, actions)
    rows, columns = LARGE.shape
    corner = np.stack([states[:, 0] + columns / 2, rows / 2 - states[:, 1]], axis=1)
    toward = np.sign(corner % 1 - 0.5) * [1, -1]
    force = (pushed - free)[:, 2:] * toward
    assert force.max() < 1e-4
    assert (force.min(axis=1) < -0.1).mean() > 0.2


def test_free_flight_has_a_closed_form():
    # v' = v (1 - h / (m + h)) + 100 h u / (m + h), with m of a ball of water's density.
    mass, h = 1000 * 4 / 3 * np.pi * 0.1**3, 0.01
    middle = [-1.0, 1.0]
    # Actions are bounded, and the velocity is bounded before the step, not after it.
    states = np.float32([[*middle, 2, -3], [*middle, 9, 0], [*middle, 5, 0]])
    actions = np.float32([[0.5, 2], [1, 0], [1, 0]])
    slow, fast, bounded = advance()(walls_of(UMAZE), states, actions)
    force = 100 * np.array([0.5, 1.0])
    velocity = np.array([2.0, -3.0]) * (1 - h / (mass + h)) + h * force / (mass + h)
    np.testing.assert_allclose(slow[2:], velocity, rtol=1e-6)
    np.testing.assert_allclose(slow[:2], middle + h * velocity, rtol=1e-6)
    np.testing.assert_array_equal(fast, bounded)
    assert fast[2] > 5


def test_where_four_cells_meet_all_is_finite():
    room = np.pad(np.zeros((2, 2), bool), 1, constant_values=True)
    np.testing.assert_array_equal(jax.jit(step)(room, jnp.zeros(4), jnp.zeros(2)), 0)


@pytest.mark.parametrize("setting", ["multi", "single"])
def test_starts_and_goals_are_those_of_the_environment(setting):
    pytest.importorskip("gymnasium_robotics")
    options = MazeOptions(setting=setting)
    simulator = simulate(environment_of(UMAZE), options)
    assert simulator.length == UMAZE.max_episode_steps
    assert TASK.simulate is simulate
    env = TASK.make_env(environment_of(UMAZE), options)
    kwargs = {"options": dynamics.reset_options(UMAZE, setting)}
    starts, goals = simulator.reset([5, 9])
    for seed, start, goal in zip([5, 9], starts, goals, strict=True):
        seen, _ = env.reset(seed=seed, **kwargs)
        np.testing.assert_allclose(start, seen["observation"], rtol=1e-6)
        np.testing.assert_allclose(goal, seen["desired_goal"], rtol=1e-6)


def test_a_step_that_ends_near_the_goal_is_paid():
    walls, still = walls_of(UMAZE), jnp.zeros(2)
    pay = jax.jit(simulate(environment_of(UMAZE), MazeOptions()).step)
    for distance, paid in ((GOAL_RADIUS - 1e-3, True), (GOAL_RADIUS + 1e-3, False)):
        goal = jnp.array([-1.0 + distance, 1.0])
        _, reward, success = pay(walls, jnp.array([-1.0, 1, 0, 0]), goal, still)
        assert (float(reward), bool(success)) == (float(paid), paid)
    # It is the state after the step that counts.
    goal = jnp.array([-1.0 + GOAL_RADIUS + 0.01, 1.0])
    arriving = jnp.array([-1.0, 1.0, 5.0, 0.0])
    assert float(pay(walls, arriving, goal, still)[1]) == 1.0
