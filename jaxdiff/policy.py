"""A trained algorithm as something that acts, in a loop of anyone's own.

    policy = jaxdiff.load_policy("runs/mine")
    observation, _ = env.reset(seed=0)
    policy.reset(seeds=[0])
    while True:
        action = policy(observation)
        observation, reward, terminated, truncated, info = env.step(action)

One program acts in all environments. Noise of an environment comes from its own seed
and from the steps since its last reset,

(1) key[b] = fold_in(key(seed[b]), step[b]),

so that what happens in one does not depend on how many act side by side.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import Algorithm, TrainState
from jaxdiff.data.spec import Spec
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.errors import UserError, require_at_least


class ActingPolicy(Protocol):
    """What rollouts play: a `Policy`, or any object with these two methods."""

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[B, A]` for observations `[B, O]` and goals `[B, G]`."""
        ...

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Begin new episodes where `mask [B]` is true, by default everywhere."""
        ...


# (number of environments, their seeds) -> what acts in them
MakePolicy = Callable[[int, Sequence[int]], ActingPolicy]


def noise_keys(seeds: jax.Array, steps: jax.Array) -> jax.Array:
    """Return the keys `[B]` of equation (1).

    Args:
      seeds: `[B]` uint32.
      steps: `[B]`, since the last reset.
    """
    return jax.vmap(lambda s, n: jax.random.fold_in(jax.random.key(s), n))(seeds, steps)


class Policy:
    """Acts in B environments side by side.

    It holds the parameters that acting reads and no others. What it remembers of each
    environment, such as a plan that is being followed, lies on the device.

    Args:
      algorithm: what was trained.
      states: states of its learners.
      spec: of the data that it was trained on.
      num_envs: B.
      seeds: `[B]` seeds of the noise; by default the index of each environment.
      devices: the batch is split over as many of them as divide it; by default one.
      guidance: arrays that take the place of acting options, see `Algorithm.act`.

    Attributes:
      last: the `ActOutput` of the newest call, or None before the first.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        states: Mapping[str, TrainState],
        spec: Spec,
        *,
        num_envs: int = 1,
        seeds: Sequence[int] | None = None,
        devices: Sequence[Device] | None = None,
        guidance: Any = None,
    ) -> None:
        require_at_least(1, num_envs=num_envs)
        devices = list(devices) if devices is not None else jax.devices()[:1]
        self._devices = devices[: math.gcd(len(devices), num_envs)]
        self.num_envs, self.spec, self.last = num_envs, spec, None
        self._act, self._guidance = algorithm.act, guidance
        self._states: Any = dict(states)
        self._programs: dict[bool, tuple[Callable[..., Any], Any]] = {}
        self._carry = self._place(algorithm.init_carry(num_envs))
        self._steps = self._place(np.zeros(num_envs, np.int32))
        self._nobody = self._place(np.zeros(num_envs, bool))
        self._seeds = np.arange(num_envs)
        self.reset(seeds=seeds)

    def reset(self, mask: Any = None, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes.

        Args:
          mask: `[B]` bool, where; by default everywhere.
          seeds: `[B]` seeds of the noise, read where the mask is true. By default an
            environment takes its index at first and one more with every episode.
        """
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask, bool)
        if mask.shape != (self.num_envs,):
            raise UserError(
                f"`mask` has shape {list(mask.shape)}; give one entry for each of the "
                f"{self.num_envs} environments"
            )
        if seeds is not None:
            if np.shape(seeds) != (self.num_envs,):
                raise UserError(
                    f"`seeds` has shape {list(np.shape(seeds))}; give one for each of "
                    f"the {self.num_envs} environments"
                )
            self._seeds = np.where(mask, np.asarray(seeds), self._seeds)
        elif self.last is not None:
            self._seeds = np.where(mask, self._seeds + 1, self._seeds)
        self._placed_seeds = self._place(self._seeds.astype(np.uint32))
        self._reset = self._place(mask)

    def __call__(self, observation: Any, goal: Any = None) -> np.ndarray:
        """Act.

        Args:
          observation: `[B, O]` or `[B, *observation_shape]`, environment units; of one
            environment the first axis may be left out.
          goal: `[B, G]`, for algorithms that were trained on goals; others ignore it.

        Returns:
          Actions `[B, A]`, float32, environment units; `[A]` if the first axis was left
          out.

        Raises:
          UserError: observations or goals of another shape.
        """
        observation, single = self._rows(observation)
        goal = self._goals(goal)
        program, leaves = self._program(goal is not None)
        self.last, self._carry, self._steps = program(
            leaves, self._carry, self._placed_seeds, self._steps,
            self._place(observation), self._reset, goal,
        )  # fmt: skip
        self._reset = self._nobody
        action = np.asarray(self.last.action)
        return action[0] if single else action

    def warmup(self) -> None:
        """Compile now what the first call would compile; nothing else changes."""
        goal = None
        if self.spec.goal_dim:
            goal = self._place(
                np.zeros((self.num_envs, self.spec.goal_dim), np.float32)
            )
        shape = (self.num_envs, self.spec.observation_dim)
        program, leaves = self._program(goal is not None)
        everyone = self._place(np.ones(self.num_envs, bool))
        jax.block_until_ready(
            program(
                leaves, self._carry, self._placed_seeds, self._steps,
                self._place(np.zeros(shape, np.float32)), everyone, goal,
            )
        )  # fmt: skip

    def _rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Give observations as float32 rows, and whether the first axis is missing."""
        observation = np.asarray(observation, np.float32)
        shapes = ((self.spec.observation_dim,), tuple(self.spec.observation_shape))
        single = self.num_envs == 1 and observation.shape in shapes
        if not single and (
            observation.shape[:1] != (self.num_envs,)
            or observation.shape[1:] not in shapes
        ):
            raise UserError(
                f"`observation` has shape {list(observation.shape)}; this policy acts "
                f"in {self.num_envs} environments whose observations have shape "
                f"{list(self.spec.observation_shape)}"
            )
        return observation.reshape(self.num_envs, -1), single

    def _goals(self, goal: Any) -> Any:
        """Place goals on the device, or return None where they are not read."""
        if goal is None or not self.spec.goal_dim:
            return None
        goal = np.asarray(goal, np.float32)
        if goal.size != self.num_envs * self.spec.goal_dim:
            raise UserError(
                f"`goal` has shape {list(goal.shape)}; this policy acts in "
                f"{self.num_envs} environments whose goals have {self.spec.goal_dim} "
                "numbers"
            )
        return self._place(goal.reshape(self.num_envs, -1))

    def _place(self, tree: Any) -> Any:
        return split_batch(tree, self._devices)

    def _program(self, has_goal: bool) -> tuple[Callable[..., Any], Any]:
        if has_goal not in self._programs:
            shape = (self.num_envs, self.spec.goal_dim)
            goal = jax.ShapeDtypeStruct(shape, jnp.float32) if has_goal else None
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), _dtype(leaf)),
                (self._states, self._carry, self._guidance),
            )
            leaves, tree = jax.tree.flatten(abstract)
            program, used = _compiled(
                self._act, tuple(leaves), tree, self.num_envs,
                self.spec.observation_dim, goal,
            )  # fmt: skip
            kept = [
                leaf
                for leaf, needed in zip(
                    jax.tree.leaves((self._states, self._guidance)), used, strict=True
                )
                if needed
            ]
            self._programs[has_goal] = program, share(kept, self._devices)
        return self._programs[has_goal]


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.asarray(leaf).dtype


@functools.lru_cache(maxsize=16)  # programs are large, so the oldest may go
def _compiled(
    act: Callable[..., Any],
    leaves: tuple[Any, ...],
    tree: Any,
    num_envs: int,
    observation_dim: int,
    goal: Any,
) -> tuple[Callable[..., Any], list[bool]]:
    """Build the program of one step, and tell which leaves of the states it reads.

    Traced once: the program is the traced one, whose arguments that nothing reads are
    never placed on a device. All policies of one algorithm share it.
    """
    states, carry, guidance = jax.tree.unflatten(tree, leaves)

    def step(held, carry, seeds, steps, observation, reset, goal):
        states, guidance = held
        steps = jnp.where(reset, 0, steps)
        output, carry = act(
            states, carry, noise_keys(seeds, steps), observation, reset,
            goal=goal, guidance=guidance,
        )  # fmt: skip
        return output, carry, steps + 1

    def rows(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((num_envs, *shape), dtype)

    inputs = (
        carry, rows(dtype=jnp.uint32), rows(dtype=jnp.int32), rows(observation_dim),
        rows(dtype=bool), goal,
    )  # fmt: skip
    closed, shapes = jax.make_jaxpr(step, return_shape=True)(
        (states, guidance), *inputs
    )
    count = len(jax.tree.leaves((states, guidance)))
    read = {
        id(variable) for equation in closed.jaxpr.eqns for variable in equation.invars
    } | {id(variable) for variable in closed.jaxpr.outvars}
    used = [id(variable) in read for variable in closed.jaxpr.invars[:count]]
    traced = jax.extend.core.jaxpr_as_fun(closed)
    structure = jax.tree.structure(shapes)
    missing = [variable.aval for variable in closed.jaxpr.invars[:count]]

    @jax.jit
    def program(kept, *inputs):
        leaves = iter(kept)
        held = [
            next(leaves) if needed else jnp.zeros(aval.shape, aval.dtype)
            for needed, aval in zip(used, missing, strict=True)
        ]
        return jax.tree.unflatten(structure, traced(*held, *jax.tree.leaves(inputs)))

    return program, used
