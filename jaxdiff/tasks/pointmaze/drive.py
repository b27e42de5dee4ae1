"""The drive of the waypoint expert that is recorded, and what it is scored against.

The expert drives from goal to goal in a single stream. As in D4RL the same drive also
serves a task of one goal, which the expert only passes on its way to others: then all
rewards, and all goals, are of that one, the centre of its cell. (The environment's own
resets put the goal up to 0.25 m from there.)
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.progress import progress
from jaxdiff.tasks.pointmaze.environment import Setting, make_maze, reset_options
from jaxdiff.tasks.pointmaze.expert import Expert, expert_action, expert_init
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, Maze, cell_to_xy

EPISODE_STEPS = 1000
REFERENCE_EPISODES = 20

# Reference episodes use seeds far from those of any sensible run, so that no one
# scores an agent on them by accident.
_REFERENCE_SEED = 900_000


class Stream(NamedTuple):
    """A continuing drive of T steps.

    Attributes:
      observations: float32 `[T + 1, 4]`.
      actions: float32 `[T, 2]`.
      rewards: float32 `[T]`, for the goal active when the action was chosen.
      goals: float32 `[T + 1, 2]`, row t is the goal active when action t is chosen.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    goals: np.ndarray


def record_stream(
    maze: Maze, *, steps: int, seed: int = 0, noise: float = 0.5
) -> Stream:
    """Drive from goal to goal for `steps` steps; a reached goal is replaced at once.

    The simulator is stepped without the Gymnasium wrappers, which cost as much as the
    physics; the trajectory is exactly the one that they give.
    """
    env = make_maze(maze, reset_target=True)
    import mujoco

    physics: Any = mujoco
    point: Any = env.unwrapped
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    model, data = point.model, point.data
    states = np.empty((steps + 1, 4))
    actions = np.empty((steps, 2), np.float32)
    goals = np.empty((steps + 1, 2))
    states[0, :2], states[0, 2:] = data.qpos, data.qvel
    goals[0] = point.goal
    expert = expert_init()
    with progress(steps, f"making {maze.name}") as update:
        for t in range(steps):
            action, expert = expert_action(
                maze, expert, states[t, None], goals[t, None], rng, noise=noise
            )
            actions[t] = action[0]
            # The environment bounds the velocity before each step, not after it, and
            # then evaluates the forces once, which sets the contact solver's start.
            np.clip(data.qvel, -5.0, 5.0, out=data.qvel)
            physics.mj_forward(model, data)
            data.ctrl[:] = actions[t]
            physics.mj_step(model, data)
            states[t + 1, :2], states[t + 1, 2:] = data.qpos, data.qvel
            point.update_goal(states[t + 1, :2])
            goals[t + 1] = point.goal
            if t % EPISODE_STEPS == EPISODE_STEPS - 1:
                update(EPISODE_STEPS)
        update(steps % EPISODE_STEPS)
    env.close()
    return Stream(
        observations=states.astype(np.float32),
        actions=actions,
        rewards=_rewards(states, goals),
        goals=goals.astype(np.float32),
    )


def of_one_goal(maze: Maze, stream: Stream) -> Stream:
    """Pay a drive for the one goal of D4RL's single task, every row's goal then."""
    goal = np.asarray(cell_to_xy(maze, maze.goal_cell))
    goals = np.broadcast_to(goal, stream.goals.shape)
    return stream._replace(
        rewards=_rewards(stream.observations, goals), goals=goals.astype(np.float32)
    )


def _rewards(states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Pay 1 for a step that ends near the goal that was active at its beginning."""
    distance = np.linalg.norm(states[1:, :2] - goals[:-1], axis=-1)
    return (distance <= GOAL_RADIUS).astype(np.float32)


@functools.lru_cache(maxsize=8)
def measure_references(
    maze: Maze,
    *,
    episodes: int = REFERENCE_EPISODES,
    seed: int = _REFERENCE_SEED,
    setting: Setting = "multi",
) -> dict[str, Any]:
    """Measure the mean returns of the expert without noise and of random actions.

    Episode i resets with `seed + i`: a random start and a goal of the setting, which
    stays, for the maze's own number of steps, one unit of reward per step near it.

    Returns:
      `expert` and `random` (mean returns), `expert_std` and `random_std` (over
      episodes), `episodes` and `seeds`. Calls of the same arguments share it.
    """
    env = make_maze(maze)
    seeds = [seed + i for i in range(episodes)]
    references: dict[str, Any] = {"episodes": episodes, "seeds": seeds}
    for policy in ("expert", "random"):
        returns = [_episode_return(env, maze, policy, seed, setting) for seed in seeds]
        references[policy] = float(np.mean(returns))
        references[f"{policy}_std"] = float(np.std(returns))
    env.close()
    return references


def _episode_return(
    env: Any, maze: Maze, policy: str, seed: int, setting: Setting
) -> float:
    observation, _ = env.reset(seed=seed, options=reset_options(maze, setting))
    rng = np.random.default_rng(seed)
    expert = Expert(maze, seeds=[seed])
    total, truncated = 0.0, False
    while not truncated:
        if policy == "expert":
            state, goal = observation["observation"], observation["desired_goal"]
            action = expert(state[None], goal[None])[0]
        else:
            action = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
        observation, reward, _, truncated, _ = env.step(action)
        total += float(reward)
    return total
