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
from typing import Any, NamedTuple, Protocol

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from jaxdiff.algorithms.base import ActOutput, Algorithm, TrainState
from jaxdiff.compilation import compiling
from jaxdiff.data.spec import Spec
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.host_program import host_program
from jaxdiff.live import Live


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
        self.num_envs, self.spec = num_envs, spec
        self._algorithm, self._guidance = algorithm, guidance
        self._states: Any = dict(states)
        self._programs: dict[Any, tuple[_Program, list[Any]]] = {}
        carry, self._carry_tree = jax.tree.flatten(algorithm.init_carry(num_envs))
        self.memory = Memory(
            carry=self._place(split_batch, carry),
            reset=np.ones(num_envs, bool),
            seeds=np.arange(num_envs).astype(np.uint32),
            steps=np.zeros(num_envs, np.int32),
        )
        self._last: tuple[Any, list[jax.Array]] | None = None
        self._nobody = np.zeros(num_envs, bool)
        self.reset(seeds=seeds)

    @property
    def last(self) -> ActOutput | None:
        """The `ActOutput` of the newest call, or None before the first."""
        return None if self._last is None else jax.tree.unflatten(*self._last)

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
            new = np.asarray(seeds).astype(np.uint32)
        else:
            new = self.memory.seeds + np.uint32(self._last is not None)
        self.memory = self.memory._replace(
            reset=mask if mask.any() else self._nobody,
            seeds=np.where(mask, new, self.memory.seeds),
            steps=np.where(mask, np.int32(0), self.memory.steps),
        )

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
        observation, goal, single = self.rows(observation, goal)
        done = False
        if self.follows and self.memory.reset is self._nobody:
            output, memory, done = self.run("follow", self.memory, observation, goal)
        if not done:  # a plan is due somewhere
            output, memory, _ = self.run("act", self.memory, observation, goal)
        self._last, self.memory = output, memory
        action = np.asarray(output[1][0])
        return action[0] if single else action

    @property
    def follows(self) -> bool:
        """Whether there are plans, which are followed between two calls of "act"."""
        return self._algorithm.follow is not None

    def live(self, hz: float) -> Live:
        """Act at `hz` ticks a second while plans are made, see `jaxdiff.live`."""
        return Live(self, hz)

    def warmup(self) -> None:
        """Compile now what the first calls would compile; nothing else changes."""
        goal = None
        if self.spec.goal_dim:
            goal = np.zeros((self.num_envs, self.spec.goal_dim), np.float32)
        shape = (self.num_envs, self.spec.observation_dim)
        for name in ("act", *(["follow"] if self.follows else [])):
            found = self.run(name, self.memory, np.zeros(shape, np.float32), goal)
            jax.block_until_ready(found[1].carry)

    def rows(self, observation: Any, goal: Any) -> tuple[np.ndarray, Any, bool]:
        """Check and reshape what a call is given.

        Returns:
          float32 observations `[B, O]`, goals `[B, G]` or None, and whether the first
          axis was left out.
        """
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
        return observation.reshape(self.num_envs, -1), self._goals(goal), single

    def _goals(self, goal: Any) -> Any:
        """Give goals as float32 rows, or None where they are not read."""
        if goal is None or not self.spec.goal_dim:
            return None
        goal = np.asarray(goal, np.float32)
        if goal.size != self.num_envs * self.spec.goal_dim:
            raise UserError(
                f"`goal` has shape {list(goal.shape)}; this policy acts in "
                f"{self.num_envs} environments whose goals have {self.spec.goal_dim} "
                "numbers"
            )
        return goal.reshape(self.num_envs, -1)

    def run(
        self, name: str, memory: "Memory", observation: np.ndarray, goal: Any
    ) -> tuple[tuple[Any, list[Any]], "Memory", Any]:
        """Run a function of the algorithm; the policy itself stays as it is.

        Args:
          name: "act" or "follow".
          memory: what is remembered.
          observation: see `rows`.
          goal: see `rows`.

        Returns:
          structure and leaves of its `ActOutput`, what is to be remembered, and whether
          no plan was due, which "follow" says; None of "act".
        """
        if (name, goal is not None) not in self._programs:
            with compiling(f"the policy ({name}, batch {self.num_envs})"):
                self._program(name, goal is not None)
                found = self.run(name, memory, observation, goal)
                jax.block_until_ready(found[0][1])
            return found
        program, kept = self._programs[name, goal is not None]
        rows = (observation, memory.reset, memory.seeds, memory.steps, goal)
        if len(self._devices) > 1:  # one device takes NumPy arrays, which is faster
            rows = split_batch(rows, self._devices)
        inputs = (*memory.carry, *rows)
        found = program.call(*kept, *[inputs[i] for i in program.inputs])
        size = program.output.num_leaves
        stop = size + len(memory.carry)
        after = memory._replace(
            carry=found[size:stop],
            reset=self._nobody,
            steps=memory.steps + np.int32(1),
        )
        followed = found[stop] if name == "follow" else None
        return (program.output, found[:size]), after, followed

    def _place(self, over: Callable[..., Any], arrays: list[Any]) -> list[Any]:
        """Place arrays on the device, or over the devices by a function."""
        if len(self._devices) > 1:
            return over(arrays, self._devices)
        return jax.device_put(arrays, self._devices[0])

    def _program(self, name: str, has_goal: bool) -> tuple["_Program", list[Any]]:
        if (name, has_goal) not in self._programs:
            held = jax.tree.leaves((self._states, self._guidance))
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), _dtype(leaf)),
                (
                    (self._states, self._guidance),
                    jax.tree.unflatten(self._carry_tree, self.memory.carry),
                ),
            )
            leaves, tree = jax.tree.flatten(abstract)
            program = _compiled(
                getattr(self._algorithm, name), tuple(leaves), tree, self.num_envs,
                self.spec.observation_dim, self.spec.goal_dim if has_goal else None,
            )  # fmt: skip
            kept = [held[i] for i in program.held]
            host = None
            if [device.platform for device in self._devices] == ["cpu"]:
                host = host_program(program.traced, dict(enumerate(kept)))
            if host is not None:
                program, kept = program._replace(call=host), []
            self._programs[name, has_goal] = program, self._place(share, kept)
        return self._programs[name, has_goal]


class Memory(NamedTuple):
    """What a policy remembers.

    Attributes:
      carry: leaves of what the algorithm remembers, on the device.
      reset: `[B]` bool, where an episode begins with the next call.
      seeds: `[B]` uint32, of the noise.
      steps: `[B]` int32, since the last reset.
    """

    carry: list[Any]
    reset: np.ndarray
    seeds: np.ndarray
    steps: np.ndarray


class _Program(NamedTuple):
    """A compiled step of a policy.

    Attributes:
      call: `(*leaves held, *inputs) -> leaves of the result`, compiled.
      traced: the same before it is compiled.
      held: which leaves of the states and the guidance it reads.
      inputs: which of the carry's leaves, observation, reset, seeds, steps and goal it
        reads, in this order.
      output: structure of the `ActOutput`, which the result begins with.
    """

    call: Callable[..., list[Any]]
    traced: jax.extend.core.ClosedJaxpr
    held: tuple[int, ...]
    inputs: tuple[int, ...]
    output: Any


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.asarray(leaf).dtype


@functools.lru_cache(maxsize=32)  # programs are large, so the oldest may go
def _compiled(
    function: Callable[..., Any],
    leaves: tuple[Any, ...],
    tree: Any,
    num_envs: int,
    observation_dim: int,
    goal_dim: int | None,
) -> _Program:
    """Build the program of one step, from the arrays that it reads alone.

    Every argument costs a microsecond in each call, and a key that nothing reads costs
    more. All policies of one algorithm share the program.
    """

    def step(held, carry, observation, reset, seeds, steps, goal):
        states, guidance = held
        return function(
            states, carry, noise_keys(seeds, steps), observation, reset,
            goal=goal, guidance=guidance,
        )  # fmt: skip

    def rows(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((num_envs, *shape), dtype)

    held, carry = jax.tree.unflatten(tree, leaves)
    closed, shapes = jax.make_jaxpr(step, return_shape=True)(
        held,
        carry,
        rows(observation_dim),
        rows(dtype=bool),
        rows(dtype=jnp.uint32),
        rows(dtype=jnp.int32),
        None if goal_dim is None else rows(goal_dim),
    )
    outputs = [True] * len(closed.jaxpr.outvars)
    needed, read = dce_jaxpr(closed.jaxpr, outputs)
    traced = closed.replace(jaxpr=needed)
    count, used = len(jax.tree.leaves(held)), np.flatnonzero(read)
    return _Program(
        call=jax.jit(jax.extend.core.jaxpr_as_fun(traced)),
        traced=traced,
        held=tuple(used[used < count].tolist()),
        inputs=tuple((used[used >= count] - count).tolist()),
        output=jax.tree.structure(shapes[0]),
    )
