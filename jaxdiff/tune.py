"""Find the guidance that earns most: try settings side by side, in closed loop.

The best strength of guidance depends on the units of the rewards, so acting must find
it. Every setting of scale, stop level and steps plays the same episodes, with the
same noise in its plans, in one program. It is `jax.vmap`ped over scales and stop
levels, and has a block for each number of steps, which changes the program. A setting
fails if its actions are not finite in one of its episodes.

The best of many settings looks better than it is. Its return in the episodes that chose
it is no result, so score it by `jaxdiff evaluate`, which plays other episodes.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import figures
from jaxdiff.algorithms.base import Algorithm, TrainState
from jaxdiff.algorithms.planning.diffuser import Guidance, diffuser
from jaxdiff.algorithms.planning.receding_horizon import Carry
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.evaluation import environment_of, make_env, save_evaluation
from jaxdiff.progress import progress
from jaxdiff.rollouts import Failure, play_wave
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap


def tune_guidance(
    run: Run,
    *,
    scales: Sequence[float],
    stops: Sequence[int],
    steps: Sequence[int],
    episodes: int = 4,
    max_steps: int = 200,
    seed: int = 0,
    environment: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Play all settings; write `evaluations/NNN.json` and `figures/guidance.png`.

    Args:
      run: a run of control with a model of returns.
      scales: to try, of the option `guide_scale`.
      stops: to try, of the option `guide_stop`.
      steps: to try, of the option `guide_steps`.
      episodes: E of each setting, the same for all.
      max_steps: episodes are cut here.
      seed: of the first episode and of the noise.
      environment: another Gymnasium id to play, as in `jaxdiff.evaluation.evaluate`.
      trust: import the module that the run's own environment `module:Id` names.

    Returns:
      What it writes: among others `table`, a row a setting with its options and
      `mean_return` (None where it failed), `failed`, the reasons why episodes went
      wrong, and `best`, the row that earned most, or None if all failed.

    Raises:
      UserError: the run cannot be guided, a list is empty, or a number is out of range.
    """
    _check_run(run)
    scales, stops, steps = (
        _checked(name, values, least)
        for name, values, least in (
            ("scales", scales, 0),
            ("stops", stops, 0),
            ("steps", steps, 1),
        )
    )
    require_at_least(1, episodes=episodes, max_steps=max_steps)
    started = time.monotonic()
    blocks = [
        diffuser(
            run.config,
            dataclasses.replace(run.acting, guide_steps=count),
            run.statistics,
            run.spec,
        )
        for count in steps
    ]
    pairs = np.array(list(itertools.product(stops, scales)), np.float32)
    policy = SettingsPolicy(
        blocks,
        run.states,
        Guidance(scale=pairs[:, 1], stop=pairs[:, 0]),
        seeds=range(seed, seed + episodes),
    )
    shape = (len(steps), len(stops), len(scales), episodes)
    played_in = {"environment": environment, "trust": trust}
    returns, failed = _play(
        lambda: make_env(run, **played_in), policy, shape, max_steps, seed
    )
    table = _table(returns, steps, stops, scales)
    known = [row for row in table if row["mean_return"] is not None]
    record = {
        "tuned": "guidance",
        "setting": run.dataset["name"],
        "environment": environment_of(run, **played_in).id,
        "episodes": episodes,
        "max_steps": max_steps,
        "candidates": run.acting.candidates,
        "seed": seed,
        "failed": sorted({each.reason for each in failed}),
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
    """Return three stop levels: none, half and three quarters of the noise levels.

    A sampler of few steps may not tell smaller ones apart: it visits few levels, and
    the last of its steps, whose posterior variance is 0, is never guided.
    """
    levels = getattr(run.config, "diffusion_steps", 0)
    return sorted({0, levels // 2, 3 * levels // 4})


class SettingsPolicy:
    """Acts by S guidances in each of K algorithms, in E environments each.

    It is a policy of K S E environments, in this order, whose episodes begin together.
    Noise is that of `jaxdiff.policy` and the same for all settings.

    Args:
      blocks: K algorithms that plan without goals.
      states: of them all.
      guidance: leaves `[S]`.
      seeds: `[E]`, of the noise.
    """

    def __init__(
        self,
        blocks: Sequence[Algorithm],
        states: Mapping[str, TrainState],
        guidance: Guidance,
        *,
        seeds: Sequence[int],
    ) -> None:
        self._shape = len(blocks), len(guidance.scale), len(seeds)
        self._held = states, guidance
        self._seeds = np.array(seeds, np.uint32)
        self._blocks, self._step = blocks, jax.jit(_act_side_by_side(blocks))
        self.reset()

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Begin new episodes in all environments."""
        _, settings, episodes = self._shape
        self._steps, self._carries = 0, []
        for block in self._blocks:
            carry = block.init_carry(episodes)
            own = {
                name: jnp.repeat(getattr(carry, name)[None], settings, axis=0)
                for name in _OWN
            }
            self._carries.append(dataclasses.replace(carry, **own))

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[K S E, A]` for observations `[K S E, O]`."""
        observed = np.asarray(observation, np.float32).reshape(*self._shape, -1)
        actions, self._carries = self._step(
            *self._held, self._carries, self._seeds, self._steps, observed
        )
        self._steps += 1
        return np.asarray(actions).reshape(len(observation), -1)


# What each setting remembers for itself. Environments that begin together renew plans
# together: with one clock for all settings planning stays behind its `cond`; batched,
# it would be done in every step.
_OWN = ("seen", "plan")
_AXES = Carry(seen=0, plan=0, last=None, index=None, remaining=None)  # type: ignore


def _act_side_by_side(blocks: Sequence[Algorithm]) -> Callable[..., Any]:
    """Build the step of a `SettingsPolicy`."""

    def step(states, guidance, carries, seeds, count, observations):
        keys = jax.vmap(lambda s: jax.random.fold_in(jax.random.key(s), count))(seeds)
        reset = jnp.full(len(seeds), count == 0)

        def act_in(block):
            def act(carry, observation, guidance):
                output, carry = block.act(
                    states, carry, keys, observation, reset, guidance=guidance
                )
                return output.action, carry

            return jax.vmap(act, in_axes=(_AXES, 0, 0), out_axes=(0, _AXES))

        actions, carries = zip(
            *(
                act_in(block)(carry, observation, guidance)
                for block, carry, observation in zip(
                    blocks, carries, observations, strict=True
                )
            ),
            strict=True,
        )
        return jnp.stack(actions), list(carries)

    return step


def _play(
    make: Callable[[], gymnasium.Env],
    policy: SettingsPolicy,
    shape: tuple[int, ...],
    max_steps: int,
    seed: int,
) -> tuple[np.ndarray, list[Failure]]:
    """Play all settings.

    Returns:
      The returns `[..., E]`, NaN where an episode went wrong, and what went wrong.
    """
    envs: list[gymnasium.Env] = [
        gymnasium.wrappers.TimeLimit(make(), max_steps)
        for _ in range(int(np.prod(shape)))
    ]
    seeds = [seed + i % shape[-1] for i in range(len(envs))]
    returns, failed = np.full(len(envs), np.nan), []
    with progress(max_steps, "tune guidance") as bar:
        for i, episode in play_wave(_Counted(policy, bar), envs, seeds):
            if isinstance(episode, Failure):
                failed.append(episode)
            else:
                returns[i] = episode.total
    for env in envs:
        env.close()
    return returns.reshape(shape), failed


class _Counted:
    """A policy that moves a progress bar with every step."""

    def __init__(self, policy: SettingsPolicy, bar: Callable[[int], Any]) -> None:
        self._policy, self._bar, self.reset = policy, bar, policy.reset

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        self._bar(1)
        return self._policy(observation, goal)


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
    if not getattr(run.config, "return_model", False):
        raise UserError(
            f"{run.path} has no model of returns that could guide its plans; train a "
            "run with `return_model=True`"
        )
    if run.config.goal_dim:
        raise UserError(
            f"{run.path} plans for goals (its `goal_dim` is {run.config.goal_dim}); "
            "give this command a run with `goal_dim=0`"
        )


def _checked(name: str, values: Sequence[Any], least: int) -> list[Any]:
    """Check the values to try, and sort them."""
    if not len(values):
        raise UserError(f"`{name}` is empty; name at least one number to try")
    for value in values:
        if not least <= value < np.inf:
            raise UserError(
                f"`{name}` has {value}; all of its numbers must be finite and at least "
                f"{least}"
            )
    return sorted(set(values))
