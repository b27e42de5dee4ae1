"""Which devices a run uses, and where its arrays lie."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdiff.errors import UserError, reason

Device: TypeAlias = Any  # jax.Device, which type checkers do not see as a class


_MOST = 64  # virtual devices; `select_devices` refuses to give more than there are


def request_cpu_devices(count: int) -> None:
    """Ask for `count` virtual CPU devices; no effect once JAX has touched a device.

    XLA's threads inside one operation gain little at the sizes of planners; splitting
    the batch over two virtual devices uses two cores.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return  # asked for already, and XLA starts no CPU when asked twice
    # RuntimeError: JAX has started, with as many devices as it was asked for then.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(max(count, 1), _MOST))


def select_devices(
    count: int | None = None, *, platform: str | None = None
) -> list[Device]:
    """Return the first `count` devices over all processes, or every device.

    Args:
      count: how many; None for all.
      platform: "cpu", "gpu" or "tpu"; None for the one that JAX prefers.

    Raises:
      UserError: there are not as many, or none of that platform.
    """
    if platform is None:
        # JAX takes the CPU without a word where JAX_PLATFORMS asks for an absent GPU.
        wanted = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
        platform = "gpu" if wanted in ("cuda", "rocm") else wanted or None
    try:
        devices = jax.devices(platform)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"no {platform} device can be used on this machine ({reason(error)}); "
            "install JAX for it, or choose another one with `platform`"
        ) from error
    if count is None:
        return devices
    if count < 1 or count > len(devices):
        raise UserError(
            f"{count} devices were asked for with `devices`, and this machine offers "
            f"{len(devices)} ({devices[0].platform}); ask for 1 to {len(devices)}"
        )
    return devices[:count]


def _mesh(devices: Sequence[Device]) -> Mesh:
    return Mesh(np.asarray(devices), ("data",))


def replicate(tree: Any, devices: Sequence[Device]) -> Any:
    """Give every device a copy: leaves `[...]` become `[devices, ...]`, as pmap asks.

    Placed once and kept: an input that is not already laid out so would be copied to
    every device again at each dispatch.
    """
    sharding = NamedSharding(_mesh(devices), PartitionSpec("data"))
    local = [
        device for device in devices if device.process_index == jax.process_index()
    ]

    def place(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        copies = np.broadcast_to(leaf, (len(local), *leaf.shape))
        return jax.make_array_from_process_local_data(
            sharding, copies, (len(devices), *leaf.shape)
        )

    return jax.tree.map(place, tree)


def first_replica(tree: Any) -> Any:
    """Read one copy back to the host, as NumPy arrays.

    Indexing a replicated array with `[0]` would be a computation over all devices.
    """
    return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)


def share(tree: Any, devices: Sequence[Device]) -> Any:
    """Place arrays for `jit` over several devices, each holding the whole of them."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def split_batch(tree: Any, devices: Sequence[Device]) -> Any:
    """Split the leading axis of every leaf over the devices, for `jit`.

    Raises:
      ValueError: a leading axis is no multiple of the number of devices.
    """
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec("data")))
