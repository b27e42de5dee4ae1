"""Make PointMaze data: one long drive of the waypoint expert, goal after goal.

The drive is a single stream. It is cut every 1000 steps into episodes only because
storage and sampling like it so: the first observation of an episode is the last one
of the episode before, and no episode ends in the task's own sense.

As in D4RL the same drive also serves a task of one goal, which the expert only passes
by on its way to others: then all rewards, and all goals, are of that one, the centre of
its cell. (The environment's own resets put the goal up to 0.25 m from there.)
"""

import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.tasks.pointmaze.world import (
    GOAL_RADIUS,
    Maze,
    Setting,
    cell_to_xy,
    expert_action,
    expert_init,
    make_env,
    maze_by_name,
    reset_options,
    task_name,
)

EPISODE_STEPS = 1000
REFERENCE_EPISODES = 20

_OF_ONE_GOAL = " Rewards are for the one goal of D4RL's task."

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


def pointmaze_id(maze: str, setting: Setting = "multi") -> str:
    """Give the Minari id of the dataset of a maze."""
    return f"jaxdiff/pointmaze/{task_name(maze, setting)}-v0"


def make_pointmaze(
    maze: str,
    *,
    steps: int,
    seed: int = 0,
    noise: float = 0.5,
    setting: Setting = "multi",
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the waypoint expert and store it as a Minari dataset.

    The same arguments give the same arrays, bit for bit. The dataset appears only
    when it is complete, and one of the same name is replaced only then.

    Args:
      maze: "umaze", "medium" or "large".
      steps: number of transitions, at least 1; the last episode takes the remainder.
      seed: seed of the environment and of the expert's noise.
      noise: standard deviation of the Gaussian noise on the expert's actions.
      setting: "single" pays for the one goal of D4RL's task, wherever the expert
        drives, "multi" for the goal that it drives to.
      root: folder of datasets; `MINARI_DATASETS_PATH`, or else Minari's own, by
        default.

    Returns:
      The dataset's folder.

    Raises:
      UserError: unknown maze, bad `steps` or `noise`, simulator missing, a drive that
        is not finite, or a folder that cannot be written.
    """
    spec = maze_by_name(maze)
    if steps < 1:
        raise UserError(f"--steps is {steps}; it must be at least 1")
    if not (math.isfinite(noise) and noise >= 0):
        raise UserError(f"--noise is {noise}; it must be a finite number, at least 0")
    folder = datasets_root(root) / pointmaze_id(maze, setting)
    with replacing(folder) as partial:
        stream = record_stream(spec, steps=steps, seed=seed, noise=noise)
        for name, value in stream._asdict().items():
            if not np.isfinite(value).all():
                raise UserError(
                    f"the recorded {name} of {maze} are not finite, so nothing was "
                    "stored; choose another --seed or a smaller --noise"
                )
        if setting == "single":
            stream = of_one_goal(spec, stream)
        references = measure_references(spec, setting=setting)
        options = {"seed": seed, "noise": noise}
        _write(partial, spec, stream, references, options, setting)
    return folder


def record_stream(
    maze: Maze, *, steps: int, seed: int = 0, noise: float = 0.5
) -> Stream:
    """Drive from goal to goal for `steps` steps; a reached goal is replaced at once.

    The simulator is stepped without the Gymnasium wrappers, which cost as much as the
    physics; the trajectory is exactly the one that they give.
    """
    env = make_env(maze.name, reset_target=True)
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


def measure_references(
    maze: Maze,
    *,
    episodes: int = REFERENCE_EPISODES,
    seed: int = _REFERENCE_SEED,
    setting: Setting = "multi",
) -> dict[str, Any]:
    """Measure the mean returns of the noiseless expert and of random actions.

    Episode i resets with `seed + i`: a random start and a goal of the setting, which
    stays, for the maze's own number of steps, one unit of reward per step near it.

    Returns:
      `expert` and `random` (mean returns), `expert_std` and `random_std` (over
      episodes), `episodes` and `seeds`.
    """
    env = make_env(maze.name)
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
    expert, total, truncated = expert_init(), 0.0, False
    while not truncated:
        if policy == "expert":
            state, goal = observation["observation"], observation["desired_goal"]
            action, expert = expert_action(maze, expert, state[None], goal[None], rng)
            action = action[0]
        else:
            action = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
        observation, reward, _, truncated, _ = env.step(action)
        total += float(reward)
    return total


def _write(
    folder: pathlib.Path,
    maze: Maze,
    stream: Stream,
    references: dict[str, Any],
    options: dict[str, Any],
    setting: Setting,
) -> None:
    """Write a stream as the Minari dataset `folder`."""
    import gymnasium
    from gymnasium import spaces

    box: dict[str, spaces.Space] = {
        name: spaces.Box(-np.inf, np.inf, (size,), np.float32)
        for name, size in (
            ("observation", 4),
            ("achieved_goal", 2),
            ("desired_goal", 2),
        )
    }
    steps = len(stream.actions)
    episodes = []
    for start in range(0, steps, EPISODE_STEPS):
        end = min(start + EPISODE_STEPS, steps)
        observations = stream.observations[start : end + 1]
        length = end - start
        episodes.append(
            {
                "observations": {
                    "observation": observations,
                    "achieved_goal": observations[:, :2],
                    "desired_goal": stream.goals[start : end + 1],
                },
                "actions": stream.actions[start:end],
                "rewards": stream.rewards[start:end],
                "terminations": np.zeros(length, bool),
                "truncations": np.arange(length) == length - 1,
            }
        )
    write_minari(
        folder,
        episodes,
        observation_space=spaces.Dict(box),
        action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
        env_spec=gymnasium.spec(maze.environment),
        metadata={
            "dataset_id": pointmaze_id(maze.name, setting),
            "algorithm_name": "waypoint expert",
            "description": (
                f"One continuing drive through {maze.environment} with a new goal "
                "whenever one is reached, cut into episodes."
                + (_OF_ONE_GOAL if setting == "single" else "")
            ),
            "requirements": ["gymnasium-robotics>=1.4"],
            "ref_min_score": references["random"],
            "ref_max_score": references["expert"],
            "num_episodes_average_score": references["episodes"],
            "jaxdiff": {"references": references, **options},
        },
    )
