"""Small programs on the host: a traced function as a list of NumPy calls.

To hand a program to XLA and to wait for its thread takes a CPU longer than to compute
an MLP for one observation. So a program of few operations, all with a rule here, runs
as NumPy calls. What depends on constants alone, such as the parameters of a policy, is
computed once, when the list is made. Results agree with those of XLA to rounding.

An actor of 11-256-256-3 takes 38 us, where XLA takes 115 and eager PyTorch 76 to 108
(one core of an AMD EPYC that had other work beside it). Programs that take rows at
indices, as a planner does between plans, are faster in XLA (118 us against 172), so
they stay there.

A function of constants alone, such as one that draws the parameters of a network, is
computed altogether here, random numbers included (`jaxdiff.threefry`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend
import numpy as np
import scipy.special
from jax.interpreters.partial_eval import dce_jaxpr

from jaxdiff import threefry

# Operations beyond which XLA computes. On one core NumPy takes 0.4 times as long as XLA
# at 0.14 million, 0.6 at 2 million and 0.9 at 35 million, but XLA may use more cores.
MOST_WORK = 2_000_000

_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2")


def host_program(
    closed: jax.extend.core.ClosedJaxpr, constants: Mapping[int, Any]
) -> Callable[..., list[np.ndarray]] | None:
    """Turn a traced function into NumPy calls.

    Args:
      closed: the function.
      constants: arrays that some of its inputs always are, by their position.

    Returns:
      `(*other inputs) -> outputs`, or None if the function has an operation that is not
      known here, or too much to compute.
    """
    code = _Code()
    jaxpr = closed.jaxpr
    try:
        inputs = [
            code.constant(_array(constants[i])) if i in constants else code.slot()
            for i in range(len(jaxpr.invars))
        ]
        outputs = code.add(closed, inputs)
    except _Unknown:
        return None
    if code.work > MOST_WORK:
        return None
    free = [slot for i, slot in enumerate(inputs) if i not in constants]
    start, lines = code.values, code.lines

    def run(*arrays):
        values = start.copy()
        for slot, array in zip(free, arrays, strict=True):
            values[slot] = np.asarray(array)
        for function, given, slot in lines:
            values[slot] = function(*[values[i] for i in given])
        return [values[slot] for slot in outputs]

    return run


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of arrays without compiling it, if all it does is known here.

    XLA takes half a minute to compile the draws of a U-Net's parameters, and this a
    second. What no output depends on is left out: the forward pass, where a network is
    initialized.

    Args:
      function: one that could be jitted.
      *arguments: trees of arrays.

    Returns:
      what it returns, with NumPy leaves if it was not compiled.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    needed, read = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    leaves = jax.tree.leaves(arguments)
    constants = dict(enumerate(leaves[i] for i in np.flatnonzero(read)))
    program = None
    if not any(threefry.is_key(shape.dtype) for shape in jax.tree.leaves(shapes)):
        program = host_program(closed.replace(jaxpr=needed), constants)
    if program is None:
        return jax.jit(function)(*arguments)
    found = [
        np.array(value, shape.dtype)
        for value, shape in zip(program(), jax.tree.leaves(shapes), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


class _Unknown(Exception):
    """An operation that has no rule."""


def _array(value: Any) -> np.ndarray:
    """Return an array in NumPy; keys become numbers, see `jaxdiff.threefry`."""
    if not hasattr(value, "dtype") or not threefry.is_key(value.dtype):
        return np.asarray(value)
    try:
        return threefry.packed(value)
    except ValueError as error:
        raise _Unknown(str(error)) from None


class _Code:
    """Lines `(function, slots read, slot written)`, and the values of constants."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.known: list[bool] = []
        self.lines: list[tuple[Callable[..., Any], list[int], int]] = []
        self.work = 0

    def slot(self) -> int:
        self.values.append(None)
        self.known.append(False)
        return len(self.values) - 1

    def constant(self, value: np.ndarray) -> int:
        self.values.append(value)
        self.known.append(True)
        return len(self.values) - 1

    def add(
        self, closed: jax.extend.core.ClosedJaxpr, inputs: Sequence[int]
    ) -> list[int]:
        """Add a function of the given slots; return the slots of its outputs."""
        jaxpr = closed.jaxpr
        held = [self.constant(_array(value)) for value in closed.consts]
        where: dict[Any, int] = dict(zip(jaxpr.constvars, held, strict=True))
        where.update(zip(jaxpr.invars, inputs, strict=True))

        def find(atom: Any) -> int:
            aval: Any = atom.aval
            if isinstance(atom, jax.extend.core.Literal):
                return self.constant(np.asarray(atom.val, aval.dtype))
            return where[atom]

        for equation in jaxpr.eqns:
            given = [find(atom) for atom in equation.invars]
            found = self._line(equation, given)
            where.update(zip(equation.outvars, found, strict=True))
        return [find(atom) for atom in jaxpr.outvars]

    def _line(self, equation: Any, given: list[int]) -> Sequence[int]:
        params = equation.params
        if equation.primitive.name in _CALLS:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            if isinstance(inner, jax.extend.core.Jaxpr):
                inner = jax.extend.core.ClosedJaxpr(inner, ())
            return self.add(inner, given)
        fixed = all(self.known[i] for i in given)
        if equation.effects:
            raise _Unknown("what it does besides, such as a print")
        try:
            functions, work = _functions(equation, [self.values[i] for i in given])
        except _Unknown:
            atoms = (*equation.invars, *equation.outvars)
            if not fixed or any(threefry.is_key(atom.aval.dtype) for atom in atoms):
                raise
            found = equation.primitive.bind(*[self.values[i] for i in given], **params)
            found = found if equation.primitive.multiple_results else [found]
            return [self.constant(np.asarray(value)) for value in found]
        self.work += 0 if fixed else work
        outputs = []
        for function in functions:
            if fixed:
                found = function(*[self.values[i] for i in given])
                outputs.append(self.constant(found))
            else:
                outputs.append(self.slot())
                self.lines.append((function, given, outputs[-1]))
        return outputs


def _functions(
    equation: Any, values: Sequence[Any]
) -> tuple[Sequence[Callable[..., Any]], int]:
    """Return a NumPy function for each output of an operation, and its work.

    The arguments are those of `_function`.
    """
    params = equation.params
    if equation.primitive.name == "split":
        stops = np.cumsum(params["sizes"])
        before = (slice(None),) * params["axis"]
        pieces = [
            (*before, slice(stop - size, stop))
            for stop, size in zip(stops, params["sizes"], strict=True)
        ]
        return [lambda x, piece=piece: x[piece] for piece in pieces], 0
    if len(equation.outvars) > 1:
        raise _Unknown(equation.primitive.name)
    function, work = _function(equation, values)
    return [function], work


def _function(equation: Any, values: Sequence[Any]) -> tuple[Callable[..., Any], int]:
    """Return the NumPy function of an operation, and how much it computes.

    Args:
      equation: of a jaxpr.
      values: of its inputs, None where they are not known yet.

    Raises:
      _Unknown: there is none.
    """
    name, params = equation.primitive.name, equation.params
    shapes = [atom.aval.shape for atom in equation.invars]
    out = equation.outvars[0].aval
    size = math.prod(out.shape)
    if name in _ELEMENTWISE and not (name == "div" and out.dtype.kind != "f"):
        return _ELEMENTWISE[name], size
    if name == "dot_general":
        (left, right), batch = params["dimension_numbers"]
        matrices = len(shapes[0]) == len(shapes[1]) == 2 and batch == ((), ())
        if matrices and left == (1,) and right == (0,):
            return np.matmul, 2 * shapes[0][1] * size
    if name in _DRAWS:
        fixed = all(value is not None for value in values)
        if not fixed or not threefry.known() or params.get("bit_width", 32) != 32:
            raise _Unknown(name)
        return _DRAWS[name](params), size
    if name in _RULES:
        return _RULES[name](params, out.shape), size
    if name == "gather" and values[1] is not None:
        # Where the entries stand is found once.
        places = np.arange(math.prod(shapes[0]), dtype=np.int32).reshape(shapes[0])
        places = np.asarray(equation.primitive.bind(places, values[1], **params))
        return lambda x, _: x.ravel()[places], size
    raise _Unknown(name)


def _select(which: Any, *cases: Any) -> Any:
    if which.dtype != bool:
        return np.choose(which, cases)
    return np.where(which, cases[1], cases[0])


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "clamp": _clamp,
    "copy": lambda x: x,
    "cos": np.cos,
    "div": np.true_divide,
    "eq": np.equal,
    "erfc": scipy.special.erfc,
    "exp": np.exp,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": scipy.special.expit,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": _select,
    "shift_right_logical": lambda x, by: x >> by,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tanh": np.tanh,
}


# Random numbers, of constant keys alone: XLA draws those of a policy faster.
_DRAWS: dict[str, Callable[..., Callable[..., Any]]] = {
    "random_bits": lambda params: lambda key: threefry.bits(key, params["shape"]),
    "random_fold_in": lambda params: threefry.fold_in,
    "random_split": lambda params: lambda key: threefry.split(key, params["shape"]),
}


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, _: lambda x: function(x, axis=tuple(params["axes"]))


def _reshaped(params: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    return lambda x: x.reshape(shape)


def _broadcast(params: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    kept = params["broadcast_dimensions"]

    def broadcast(x: Any) -> Any:
        if x.size == math.prod(shape):
            return x.reshape(shape)
        thin = [1] * len(shape)
        for axis, size in zip(kept, x.shape, strict=True):
            thin[axis] = size
        return np.broadcast_to(x.reshape(thin), shape)

    return broadcast


def _sliced(params: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    steps = params["strides"] or [None] * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    index = tuple(slice(*each) for each in bounds)
    return lambda x: x[index]


# (parameters, shape of the result) -> function
_RULES: dict[str, Callable[..., Callable[..., Any]]] = {
    "argmax": lambda params, _: (
        lambda x: np.argmax(x, axis=params["axes"][0]).astype(params["index_dtype"])
    ),
    "bitcast_convert_type": lambda params, _: (
        lambda x: np.array(x).view(params["new_dtype"])
    ),
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, _: (
        lambda *parts: np.concatenate(parts, axis=params["dimension"])
    ),
    "convert_element_type": lambda params, _: lambda x: x.astype(params["new_dtype"]),
    "expand_dims": _reshaped,
    "integer_pow": lambda params, _: lambda x: x ** params["y"],
    "reduce_and": _reduced(np.all),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "reduce_or": _reduced(np.any),
    "reduce_sum": _reduced(np.sum),
    "reshape": _reshaped,
    "slice": _sliced,
    "squeeze": _reshaped,
    "transpose": lambda params, _: lambda x: x.transpose(params["permutation"]),
}
