"""The `jaxdiff` command: words and options in, one function of the library called."""

from jaxdiff.cli.main import main

__all__ = ["main"]
