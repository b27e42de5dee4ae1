"""Which guidance earns most: settings tried side by side, in closed loop.

How strongly plans should be guided belongs to the units of the rewards, so it is found
by acting. Every setting of scale, stop level and steps plays the same episodes, with
the same noise in its plans, in one program: it is `jax.vmap`ped over scales and stop
levels, and steps, which change the program, are blocks of it. A setting whose actions
are not finite in one of its episodes has failed.

The best of many settings looks better than it is. What it earns in the episodes in
which it was chosen is therefore no result: score it by `jaxdiff evaluate`, which plays
others.
"""

import dataclasses
import itertools
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import figures
from jaxdiff.algorithms.base import Algorithm, TrainState
from jaxdiff.algorithms.planning.diffuser import Guidance, diffuser
from jaxdiff.algorithms.planning.receding_horizon import Carry
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.rollouts import Policy, play_wave
from jaxdiff.run import Run, maze_of
from jaxdiff.scoring import bootstrap, save_evaluation
from jaxdiff.tasks.control import make_env


def tune_guidance(
    run: Run,
    *,
    scales: Sequence[float],
    stops: Sequence[int],
    steps: Sequence[int],
    episodes: int = 4,
    max_steps: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Play all settings; write `evaluations/NNN.json` and `figures/guidance.png`.

    Args:
      run: a run of control with a model of returns.
      scales: to try, of the option `guide_scale`.
      stops: likewise, of `guide_stop`.
      steps: likewise, of `guide_steps`.
      episodes: E of each setting, the same for all.
      max_steps: episodes are cut here.
      seed: of the first episode and of the noise.

    Returns:
      What it writes: among others `table`, a row a setting with its options and
      `mean_return` (None where it failed), and `best`, the row that earned most, or
      None if all failed.

    Raises:
      UserError: the run cannot be guided, a list is empty, or a number is out of range.
    """
    _check_run(run)
    scales, stops, steps = (
        _checked(flag, values, least)
        for flag, values, least in (
            ("--scales", scales, 0),
            ("--stops", stops, 0),
            ("--steps", steps, 1),
        )
    )
    for flag, count in (("--episodes", episodes), ("--max-steps", max_steps)):
        if count < 1:
            raise UserError(f"{flag} is {count}; it must be at least 1")
    started = time.monotonic()
    blocks = [
        diffuser(
            dataclasses.replace(run.config, guide_steps=count),
            run.statistics,
            action_dim=run.document["dataset"]["action_dim"],
        )
        for count in steps
    ]
    pairs = np.array(list(itertools.product(stops, scales)), np.float32)
    act = settings_policy(
        blocks,
        run.states,
        Guidance(scale=pairs[:, 1], stop=pairs[:, 0]),
        episodes=episodes,
        seed=seed,
    )
    shape = (len(steps), len(stops), len(scales), episodes)
    returns = _play(run, act, shape, max_steps=max_steps, seed=seed)
    table = _table(returns, steps, stops, scales)
    known = [row for row in table if row["mean_return"] is not None]
    record = {
        "tuned": "guidance",
        "setting": run.document["dataset"]["name"],
        "environment": run.document["dataset"]["environment"],
        "episodes": episodes,
        "max_steps": max_steps,
        "candidates": run.config.candidates,
        "seed": seed,
        "best": max(known, key=lambda row: row["mean_return"], default=None),
        "table": table,
        "seconds": time.monotonic() - started,
    }
    save_evaluation(run, record)
    drawn = figures.plot_guidance(
        returns.mean(-1), scales=scales, stops=stops, steps=steps
    )
    figures.save(drawn, run.path / "figures" / "guidance.png")
    return record


def default_stops(run: Run) -> list[int]:
    """Name three stop levels: none, half and three quarters of the noise levels.

    Smaller ones may all be the same to a sampler of few steps: it visits few levels,
    and the last of its steps, whose posterior variance is 0, is never guided.
    """
    levels = getattr(run.config, "diffusion_steps", 0)
    return sorted({0, levels // 2, 3 * levels // 4})


def evaluate_command(run: Run, setting: Mapping[str, Any], *, best: bool) -> str:
    """Write the command that scores a row of the table.

    Args:
      run: the run.
      setting: the row.
      best: whether the run was loaded with its best checkpoint.
    """
    options = {
        "guide_scale": setting["guide_scale"],
        "guide_stop": setting["guide_stop"],
        "guide_steps": setting["guide_steps"],
    }
    if run.config.candidates != run.document["config"].get("candidates"):
        options["candidates"] = run.config.candidates
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return " ".join(
        ["jaxdiff evaluate", shlex.quote(str(run.path)), *flags, *["--best"] * best]
    )


def settings_policy(
    blocks: Sequence[Algorithm],
    states: Mapping[str, TrainState],
    guidance: Guidance,
    *,
    episodes: int,
    seed: int = 0,
) -> Policy:
    """Make a policy of S guidances in each of K algorithms, E agents each.

    Args:
      blocks: K algorithms that plan without goals.
      states: of them all.
      guidance: leaves `[S]`.
      episodes: E.
      seed: of the noise, which is the same for all settings.

    Returns:
      a policy of K S E environments, in this order, that begin together.
    """
    settings = len(guidance.scale)
    # Who begins together renews plans together. With one clock for all settings,
    # planning stays behind its `cond`; batched, it would be done in every step.
    axes = Carry(plan=0, last=None, index=None, remaining=None)  # type: ignore
    carries = []
    for block in blocks:
        carry = block.init_carry(episodes)
        plans = jnp.broadcast_to(carry.plan, (settings, *carry.plan.shape))
        carries.append(dataclasses.replace(carry, plan=plans))
    key = jax.random.key(seed)

    @jax.jit
    def step(states, guidance, carries, key, observations, reset):
        key, act_key = jax.random.split(key)

        def act_in(block):
            def act(carry, observation, guidance):
                output, carry = block.act(
                    states, carry, act_key, observation, reset, guidance=guidance
                )
                return output.action, carry

            return jax.vmap(act, in_axes=(axes, 0, 0), out_axes=(0, axes))

        actions, carries = zip(
            *(
                act_in(block)(carry, observation, guidance)
                for block, carry, observation in zip(
                    blocks, carries, observations, strict=True
                )
            ),
            strict=True,
        )
        return jnp.stack(actions), list(carries), key

    def policy(observation, goal, reset):
        nonlocal carries, key
        shape = (len(blocks), settings, episodes)
        observed = np.asarray(observation, np.float32).reshape(*shape, -1)
        actions, carries, key = step(
            states, guidance, carries, key, observed, np.asarray(reset)[:episodes]
        )
        return np.asarray(actions).reshape(len(observation), -1), None

    return policy


class _Finite(gymnasium.Wrapper):
    """Ends an episode, without a return, at an action that is not finite."""

    def step(self, action: Any) -> Any:
        if np.isfinite(action).all():
            return self.env.step(action)
        return np.zeros(self.observation_space.shape or ()), np.nan, True, False, {}


def _play(
    run: Run, act: Policy, shape: tuple[int, ...], *, max_steps: int, seed: int
) -> np.ndarray:
    """Play all settings; give the returns `[..., E]`, NaN in failed episodes."""
    episodes = shape[-1]
    envs: list[gymnasium.Env] = [
        gymnasium.wrappers.TimeLimit(_Finite(make_env(run)), max_steps)
        for _ in range(int(np.prod(shape)))
    ]
    seeds = [seed + i % episodes for i in range(len(envs))]
    with progress(max_steps, "tune guidance") as bar:

        def policy(*observed):
            answer = act(*observed)
            bar(1)
            return answer

        played = play_wave(policy, envs, seeds)
    for env in envs:
        env.close()
    return played["returns"].reshape(shape)


def _table(
    returns: np.ndarray,
    steps: Sequence[int],
    stops: Sequence[int],
    scales: Sequence[float],
) -> list[dict[str, Any]]:
    """Write a row a setting; returns are `[steps, stops, scales, E]`."""
    rows = []
    for (k, t, s), mean in np.ndenumerate(returns.mean(-1)):
        finite = bool(np.isfinite(mean))
        rows.append(
            {
                "guide_scale": scales[s],
                "guide_stop": stops[t],
                "guide_steps": steps[k],
                "mean_return": float(mean) if finite else None,
                "return_interval": bootstrap(returns[k, t, s]) if finite else None,
            }
        )
    return rows


def _check_run(run: Run) -> None:
    if maze_of(run) is not None:
        raise UserError(
            f"{run.path} is a run of a maze, where plans have goals; give this command "
            "a run of control, such as Hopper"
        )
    if not getattr(run.config, "return_model", False):
        raise UserError(
            f"{run.path} has no model of returns that could guide its plans; train a "
            "run with --return-model"
        )
    if run.config.goal_dim:
        raise UserError(
            f"{run.path} plans for goals (its goal_dim is {run.config.goal_dim}); give "
            "this command a run with --goal-dim 0"
        )


def _checked(flag: str, values: Sequence[Any], least: int) -> list[Any]:
    """Check what is to be tried, and bring it into order."""
    if not len(values):
        raise UserError(f"{flag} is empty; name at least one number to try")
    for value in values:
        if not least <= value < np.inf:
            raise UserError(
                f"{flag} has {value}; all of its numbers must be finite and at least "
                f"{least}"
            )
    return sorted(set(values))
