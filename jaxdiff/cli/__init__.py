"""The `jaxdiff` command: words and options in, one function of the library called."""

import sys


def main(args: list[str] | None = None) -> None:
    """Run the command; see `jaxdiff.cli.dispatch.run`."""
    try:
        # Imports take seconds, in which Ctrl-C is one word too.
        from jaxdiff.cli.dispatch import run
    except KeyboardInterrupt:
        print("jaxdiff: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run(args)


__all__ = ["main"]
