import re
import subprocess
import sys

import pytest

import jaxdiff

LAZY = """
import sys
import jaxdiff

heavy = {"gymnasium", "minari", "mujoco", "matplotlib", "h5py", "orbax", "tyro"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
import jaxdiff.cli
heavy -= {"tyro"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not xla_bridge.backends_are_initialized()
"""


def test_import_is_light_and_starts_no_device():
    subprocess.run([sys.executable, "-c", LAZY], check=True)


def test_every_public_name_is_there():
    for name in jaxdiff.__all__:
        assert getattr(jaxdiff, name) is not None
    assert set(jaxdiff.__all__) <= set(dir(jaxdiff))
    assert callable(jaxdiff.plan)
    assert callable(jaxdiff.evaluate)
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxdiff.__version__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = jaxdiff.nonsense
