"""Random keys of a batch: one key for all of it, or one for each example.

With one key an example's noise depends on the size of the batch. With `[B]` keys it
depends on its own key alone, so that a batch may be split, grown or reordered.
"""

import jax


def split_keys(key: jax.Array, num: int = 2) -> jax.Array:
    """Split a key or keys.

    Args:
      key: `[]` or `[B]`; consumed.
      num: how many keys to make of each.

    Returns:
      `[num]` or `[num, B]`.
    """
    if key.ndim == 0:
        return jax.random.split(key, num)
    return jax.vmap(lambda one: jax.random.split(one, num), out_axes=1)(key)


def repeat_keys(key: jax.Array, num: int) -> jax.Array:
    """Make `num` keys of each key, those of one key next to each other.

    Args:
      key: `[B]`; consumed.
      num: how many keys to make of each.

    Returns:
      `[B * num]`.
    """
    return split_keys(key, num).T.reshape(-1)


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw standard normal noise.

    Args:
      key: `[]`, or `[B]` for noise of B examples; consumed.
      shape: `(B, ...)`.

    Returns:
      float32 `shape`.
    """
    if key.ndim == 0:
        return jax.random.normal(key, shape)
    return jax.vmap(lambda one: jax.random.normal(one, shape[1:]))(key)
