"""The command line: a thin shell over the library. Heavy imports wait until a command needs them."""

from safegen.cli.app import app, main

__all__ = ["app", "main"]
