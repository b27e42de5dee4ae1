"""What benchmarks are as commands: options from flags, one sentence if wrong."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from jaxdiff.devices import request_cpu_devices
from jaxdiff.errors import UserError


def run_command(
    main: Callable[[Any], None], options: type, *, cpu_devices: int | None = None
) -> None:
    """Read the options from the command line, run, and exit with 2 on a `UserError`.

    Args:
      main: takes an instance of `options`.
      options: a dataclass.
      cpu_devices: virtual devices to split a CPU into, before JAX is asked for any.
    """
    if cpu_devices is not None:
        request_cpu_devices(cpu_devices)
    try:
        main(tyro.cli(options))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
