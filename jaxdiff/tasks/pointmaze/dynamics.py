"""One step of PointMaze as a pure JAX function.

A ball of mass m and radius 0.1 is pushed by the force 100 u, u in [-1, 1]^2, and held
back by the damping c = 1 kg/s. One step of h = 0.01 s first bounds the velocity v to
+-5 m/s in x and in y, as the environment does, and then follows MuJoCo's Euler
integrator, which treats the damping implicitly,

    v' = v + h m / (m + h c) a,        x' = x + h v'.                               (1)

Away from walls a is the free acceleration a_0 = (100 u - c v) / m. A wall is a box that
pushes along its unit normal n while the gap r = distance - radius - margin is below
zero, which begins 4 mm before they touch. MuJoCo's soft contacts then give

    a = argmin  m |a - a_0|^2 / 2 + sum_i max(0, k_i - n_i . a)^2 / (2 R_i),        (2)
    k = -2 n . v / (0.95 T) - s r / (0.95 T)^2,    R = (1 - s) / (s m),    T = 0.02 s,

where the impedance s rises from 0.9 to 0.95 over the first millimetre of the gap. In a
free cell at most three boxes are near: beside, above or below, and diagonally between
them. Equation (2) is thus a convex problem in two unknowns that three terms make
piecewise quadratic. Newton's method solves it exactly once it knows which walls push;
two million random problems knew after three steps, and it takes four.

**How far it is from MuJoCo 3.11**, which computes in float64, and this in float32. From
the same state a step differs by at most 3e-7 m/s in free flight. In contact it differs
by 8e-7 m/s in the median, 2e-5 in the 99th percentile and 7e-5 at worst, in 18,000
steps of random pushes. A ball whose gap is zero up to rounding may be pushed in one of
the two and not in the other; then the velocities differ by metres a second for that
step. After 300 steps of the waypoint expert the paths are 4e-6 m apart at worst. After
300 random pushes, which bounce from wall to wall and amplify differences, they are 5e-5
m apart in the median, 2e-3 m in the 90th percentile and 0.3 m at worst.

Source: the chapter "Computation" of MuJoCo's documentation (constraint model), and the
file point.xml of Gymnasium-Robotics.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.simulation import Simulator
from jaxdiff.tasks.pointmaze.environment import make_maze, reset_options
from jaxdiff.tasks.pointmaze.scores import MazeOptions
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, TIME_STEP, free_table, maze_of

_RADIUS, _DENSITY, _DAMPING, _FORCE = 0.1, 1000.0, 1.0, 100.0  # of the ball, SI units
_MASS = _DENSITY * 4 / 3 * np.pi * _RADIUS**3
_LARGEST_SPEED = 5.0  # m/s, in x and in y
_MARGIN = 0.002 + 0.002  # m, of the ball and of the wall
_SOFTEST, _STIFFEST, _WIDTH = 0.9, 0.95, 0.001  # impedance, and m over which it rises
_RATE = 1 / (_STIFFEST * 0.02)  # 1/s, of a contact that is critically damped
_NEWTON_STEPS = 4


def step(walls: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
    """Advance one ball by one step.

    Args:
      walls: bool `[rows, columns]`, true where a cell is a wall, as the outermost are.
      state: `[4]`, x, y (m) and vx, vy (m/s); the ball lies in a free cell.
      action: `[2]`, bounded to [-1, 1] here.

    Returns:
      The next state `[4]`.
    """
    position = state[:2]
    velocity = jnp.clip(state[2:], -_LARGEST_SPEED, _LARGEST_SPEED)
    force = _FORCE * jnp.clip(action, -1.0, 1.0) - _DAMPING * velocity
    acceleration = _pushed(walls, position, velocity, force / _MASS)
    share = TIME_STEP * _MASS / (_MASS + TIME_STEP * _DAMPING)
    velocity = velocity + share * acceleration
    return jnp.concatenate([position + TIME_STEP * velocity, velocity])


def simulate(environment: Environment, options: MazeOptions) -> Simulator:
    """Return a maze as a pure function, with the starts and goals of the environment.

    Every step that ends near the goal pays 1, and the goal stays.

    Raises:
      UserError: the environment is no maze, or MuJoCo, which draws, is not installed.
    """
    maze = maze_of(environment)

    def reset(seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        env = make_maze(maze)
        asked = reset_options(maze, options.setting)
        seen = [env.reset(seed=seed, options=asked)[0] for seed in seeds]
        env.close()
        states, goals = (
            np.array([each[name] for each in seen], np.float32)
            for name in ("observation", "desired_goal")
        )
        return states, goals

    walls = ~free_table(maze)
    return Simulator(reset, _paid_step, walls, maze.max_episode_steps)


def _paid_step(
    walls: jax.Array, state: jax.Array, goal: jax.Array, action: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Advance one ball; return its state, the reward and whether it has arrived."""
    state = step(walls, state, action)
    arrived = jnp.linalg.norm(state[:2] - goal) <= GOAL_RADIUS
    return state, arrived.astype(jnp.float32), arrived


def _pushed(
    walls: jax.Array, position: jax.Array, velocity: jax.Array, free: jax.Array
) -> jax.Array:
    """Solve equation (2) for the acceleration `[2]`, given the free one."""
    walls = jnp.asarray(walls)
    rows, columns = walls.shape
    # Counted from the upper left corner, in cells, which are metres.
    place = jnp.stack([position[0] + columns / 2, rows / 2 - position[1]])
    cell = jnp.floor(place).astype(jnp.int32)
    offset = place - cell - 0.5
    toward = jnp.where(offset < 0, -1, 1)  # the nearer walls, as (column, row)
    sign = toward * jnp.array([1, -1])  # the same in x and y
    beside, across = 0.5 - jnp.abs(offset)
    # Where four cells meet there is no normal, and 0 / 0 would spread through zeros.
    diagonal = jnp.maximum(jnp.hypot(beside, across), 1e-6)
    # From here on x and y point toward the nearer walls, and so normals away from them.
    column, row = cell
    near, above = column + toward[0], row + toward[1]
    boxes = (
        (walls[row, near], beside, -1.0, 0.0),
        (walls[above, column], across, 0.0, -1.0),
        (walls[above, near], diagonal, -beside / diagonal, -across / diagonal),
    )
    (vx, vy), (ax, ay) = velocity * sign, free * sign
    contacts = [
        (*_contact(wall, distance, nx * vx + ny * vy), nx, ny)
        for wall, distance, nx, ny in boxes
    ]
    x, y = ax, ay
    for _ in range(_NEWTON_STEPS):
        xx = yy = _MASS
        xy, bx, by = 0.0, _MASS * ax, _MASS * ay
        for stiffness, wanted, nx, ny in contacts:
            weight = jnp.where(nx * x + ny * y < wanted, stiffness, 0.0)
            xx, yy = xx + weight * nx * nx, yy + weight * ny * ny
            xy = xy + weight * nx * ny
            bx, by = bx + weight * wanted * nx, by + weight * wanted * ny
        determinant = xx * yy - xy * xy
        x, y = (yy * bx - xy * by) / determinant, (xx * by - xy * bx) / determinant
    return jnp.stack([x, y]) * sign


def _contact(
    wall: jax.Array, distance: jax.Array, speed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return 1 / R, which is 0 out of contact, and k of equation (2).

    Args:
      wall: whether there is a box.
      distance: from the centre of the ball to the box, m.
      speed: away from the box, m/s.
    """
    gap = distance - (_RADIUS + _MARGIN)
    depth = jnp.minimum(-gap / _WIDTH, 1.0)
    rise = jnp.where(depth < 0.5, 2 * depth**2, 1 - 2 * (1 - depth) ** 2)
    impedance = _SOFTEST + (_STIFFEST - _SOFTEST) * rise
    stiffness = _MASS * impedance / (1 - impedance)
    wanted = -2 * _RATE * speed - _RATE**2 * impedance * gap
    return jnp.where(wall & (gap < 0), stiffness, 0.0), wanted
