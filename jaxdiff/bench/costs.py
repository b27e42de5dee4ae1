"""What a call costs, counted and not timed: matrix products and calls of networks.

The count is taken from the traced program, before XLA changes it:

(1) a product of matrices takes 2 x (entries of the result) x (entries summed over),
(2) a convolution takes 2 x (entries of the result) x (entries of the kernel that one of
    them reads), padding included.

Bodies of `scan` count as often as they run. The body of a `while` loop counts once,
because nothing tells how often it runs; training's loop makes one update each time. Of
the branches of a `cond` the costliest counts, or the cheapest if that is asked for.
Additions, norms and activations are not counted. A convolution that is computed with
fewer multiplications counts less.

A network call is one call of a Flax module by the algorithm, whatever its batch.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

_MARK = "network call: "


class Cost(NamedTuple):
    """What one call of a program costs.

    Attributes:
      flops: of matrix products and convolutions, equations (1) and (2).
      network_calls: name of a network -> how often it is called.
    """

    flops: int = 0
    network_calls: Mapping[str, int] = {}

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """Add another cost, several times."""
        calls = Counter(self.network_calls)
        for name, count in other.network_calls.items():
            calls[name] += times * count
        return Cost(self.flops + times * other.flops, calls)


def count_cost(
    function: Callable[..., Any], *args: Any, branch: Callable[..., Cost] = max
) -> Cost:
    """Trace a function and count what it costs.

    Args:
      function: of arrays.
      *args: arrays, or their `jax.ShapeDtypeStruct`.
      branch: `max` or `min`, which branch of a `cond` counts.
    """

    # A function of its own: JAX would remember the trace without marks of another one.
    def traced(*args: Any) -> Any:
        return function(*args)

    with nn.intercept_methods(_marking()):
        closed = jax.make_jaxpr(traced)(*args)
    return _count(closed.jaxpr, branch)


def _marking() -> Callable[..., Any]:
    """Build an interceptor that marks what networks return, those of layers not."""
    depth = 0

    def mark(call, args, kwargs, context):
        nonlocal depth
        name = context.method_name
        if context.module.path or name == "setup":
            return call(*args, **kwargs)
        depth += 1
        try:
            out = call(*args, **kwargs)
        finally:
            depth -= 1
        leaves, tree = jax.tree.flatten(out)
        if depth or not leaves:
            return out
        method = "" if name == "__call__" else f".{name}"
        label = f"{_MARK}{type(context.module).__name__}{method}"
        return jax.tree.unflatten(
            tree, [checkpoint_name(leaves[0], label), *leaves[1:]]
        )

    return mark


def _count(jaxpr: Any, branch: Callable[..., Cost]) -> Cost:
    total = Cost()
    for equation in jaxpr.eqns:
        kind, params = equation.primitive.name, equation.params
        if kind == "dot_general":
            total = total.plus(Cost(_product(equation)))
        elif kind == "conv_general_dilated":
            total = total.plus(Cost(_convolution(equation)))
        elif kind == "name" and params["name"].startswith(_MARK):
            name = params["name"].removeprefix(_MARK)
            total = total.plus(Cost(0, {name: 1}))
        elif kind == "cond":
            costs = [_count(each.jaxpr, branch) for each in params["branches"]]
            total = total.plus(branch(costs, key=_size))
        else:
            times = params["length"] if kind == "scan" else 1
            for inner in _inner(params):
                total = total.plus(_count(inner, branch), times)
    return total


def _size(cost: Cost) -> tuple[int, int]:
    return cost.flops, sum(cost.network_calls.values())


def _inner(params: Any) -> Iterator[Any]:
    """Yield the programs among the parameters of an equation."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _product(equation: Any) -> int:
    (summed, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in summed)


def _convolution(equation: Any) -> int:
    features = equation.params["dimension_numbers"].rhs_spec[0]
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(kernel) // kernel[features]
