"""Random numbers in NumPy: those of `jax.random`, bit by bit."""

import jax
import numpy as np
import pytest

from jaxdiff import threefry

KEYS = jax.random.split(jax.random.key(3), 4)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_bits_are_those_of_jax(shape):
    for keys in (KEYS, KEYS[0]):
        draw = jax.vmap(lambda key: jax.random.bits(key, shape))
        expected = draw(keys) if keys.ndim else jax.random.bits(keys, shape)
        np.testing.assert_array_equal(
            threefry.bits(threefry.packed(keys), shape), expected
        )


def test_keys_are_those_of_jax():
    keys = threefry.packed(KEYS)
    one = jax.random.split(KEYS[1], (2, 3))
    np.testing.assert_array_equal(threefry.split(keys[1], (2, 3)), threefry.packed(one))
    data = np.array([0, 7, 2**31, 2**32 - 1], np.uint32)
    many = jax.vmap(jax.random.fold_in)(KEYS, data)
    np.testing.assert_array_equal(threefry.fold_in(keys, data), threefry.packed(many))


def test_keys_of_another_generator_are_refused():
    with pytest.raises(ValueError, match="is no key of Threefry"):
        threefry.packed(jax.random.key(0, impl="rbg"))
