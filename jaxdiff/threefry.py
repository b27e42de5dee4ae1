"""JAX's random numbers in NumPy: Threefry-2x32 with 20 rounds.

Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011. XLA
takes tenths of a second to compile the draw of one array on a CPU, and a network draws
dozens. Keys `[...]` are uint64 here, the two words of a key side by side. Bits are
those of `jax.random`, entry by entry.
"""

import math
from typing import Any

import jax
import numpy as np

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def known() -> bool:
    """Whether JAX draws its numbers in the way that is known here."""
    return bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined]


def is_key(dtype: Any) -> bool:
    """Whether arrays of a type are keys."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def packed(key: Any) -> np.ndarray:
    """Return keys `[...]` of JAX as uint64.

    Raises:
      ValueError: keys of another generator.
    """
    if str(key.dtype) != "key<fry>":
        raise ValueError(f"{key.dtype} is no key of Threefry")
    words = np.ascontiguousarray(jax.random.key_data(key))
    return words.view(np.uint64)[..., 0]


def fold_in(key: np.ndarray, data: Any) -> np.ndarray:
    """Compute `jax.random.fold_in` of keys `[...]` and integers `[...]`."""
    data = np.asarray(data).astype(np.uint32)
    return _joined(*_threefry(key, np.zeros_like(data), data))


def split(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Compute `jax.random.split`: keys `[...]` become `[..., *shape]`."""
    return _joined(*_counted(key, shape))


def bits(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Compute `jax.random.bits`: uint32 `[..., *shape]` of keys `[...]`."""
    high, low = _counted(key, shape)
    return high ^ low


def _counted(key: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Encrypt the numbers of all entries, 0 and up."""
    number = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    high, low = (number >> np.uint64(32)).astype(np.uint32), number.astype(np.uint32)
    return _threefry(np.asarray(key)[(..., *[None] * len(shape))], high, low)


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=-1).view(np.uint64)[..., 0]


def _threefry(
    key: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Encrypt pairs of words x and y `[...]`, uint32, with keys `[...]`."""
    words = np.array(key)[..., None].view(np.uint32)
    first, second = words[..., 0], words[..., 1]
    schedule = first, second, first ^ second ^ np.uint32(0x1BD11BDA)
    with np.errstate(over="ignore"):  # sums are modulo 2^32
        x, y = x + first, y + second
        for group in range(5):
            for turn in _ROTATIONS[group % 2]:
                x = x + y
                y = x ^ ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn)))
            x = x + schedule[(group + 1) % 3]
            y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
