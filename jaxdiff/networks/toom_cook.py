"""Convolution over time with fewer products: the method of Toom and Cook.

m outputs of a kernel w of k taps read n = m + k - 1 inputs d. They can be computed
with n products instead of m k. A product of two polynomials is the product of their
values at n points, and the transpose of that bilinear map is correlation (Winograd,
"Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for
convolutional neural networks", 2016):

    y[r] = sum_i d[r + i] w[i],  r = 0 .. m - 1,
    y = A^T ((G w) * (B^T d)),                                                       (1)

with E_c the n x c matrix of the values of polynomials of c coefficients at the n
points. The last point is infinity, where the value is the coefficient of degree c - 1.
Then

    A = E_m,   G = D E_k,   B^T = D^-1 E_n^-T.                                       (2)

The diagonal matrix D makes the largest entry of every row of B^T one. With k = 5 and
m = 4 there are 8 products instead of 20; with channels, each is a matrix product.
Rounding errors are about three times those of a direct sum, 1e-5 of the largest output
in float32.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

OUTPUTS = 4  # m of equation (1); more saves little and loses digits
_POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)


def toom_cook_matrices(
    outputs: int, taps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A^T [m, n], G [n, k] and B^T [n, n] of equation (2), in float64.

    Args:
      outputs: m.
      taps: k, with m + k - 1 at most 8.

    Raises:
      ValueError: m + k - 1 is above 8.
    """
    count = outputs + taps - 1
    if count > len(_POINTS) + 1:
        raise ValueError(f"{count} points are needed, and {len(_POINTS) + 1} are known")
    points = np.array(_POINTS[: count - 1])

    def values(coefficients: int) -> np.ndarray:
        at_points = points[:, None] ** np.arange(coefficients)
        return np.vstack([at_points, np.eye(coefficients)[-1]])

    inputs = np.linalg.inv(values(count)).T
    scale = np.abs(inputs).max(axis=1, keepdims=True)
    return values(outputs).T, scale * values(taps), inputs / scale


def toom_cook_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve over time with symmetric zero padding, by equation (1).

    Args:
      x: [B, H, C].
      kernel: [k, C, O] with k 3 or 5.

    Returns:
      [B, H, O].
    """
    batch, horizon, channels = x.shape
    taps, _, features = kernel.shape
    to_outputs, to_kernel, to_inputs = _matrices(taps)
    tiles = -(-horizon // OUTPUTS)
    # Tile j covers the outputs 4j .. 4j + 3 and so reads blocks j and j + 1 of the
    # padded input, whose first row is k // 2 before the first output.
    after = (tiles + 1) * OUTPUTS - horizon - taps // 2
    padded = jnp.pad(x, ((0, 0), (taps // 2, after), (0, 0)))
    blocks = padded.reshape(batch, tiles + 1, OUTPUTS, channels)
    rows = [blocks[:, :-1, i] for i in range(OUTPUTS)]
    rows += [blocks[:, 1:, i] for i in range(taps - 1)]
    # [n, B * tiles, C] @ [n, C, O]
    inputs = jnp.stack(_combine(to_inputs, rows)).reshape(len(rows), -1, channels)
    weights = jnp.tensordot(jnp.asarray(to_kernel, kernel.dtype), kernel, axes=1)
    products = list(inputs @ weights)
    y = jnp.stack(_combine(to_outputs, products), axis=1)
    return y.reshape(batch, tiles * OUTPUTS, features)[:, :horizon]


@functools.cache
def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return toom_cook_matrices(OUTPUTS, taps)


def _combine(matrix: np.ndarray, rows: list[jax.Array]) -> list[jax.Array]:
    """Multiply by a constant matrix, unrolled so that XLA fuses it into one loop."""
    return [
        functools.reduce(
            jnp.add,
            [c * row for c, row in zip(line, rows, strict=True) if abs(c) > 1e-12],
        )
        for line in matrix.tolist()
    ]
