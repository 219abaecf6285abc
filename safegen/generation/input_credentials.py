"""The credentials of input files, looked at before any model loads: they become ingredients of what is made of them.

One that does not hold is recorded with what is wrong with it, as C2PA wants. One that nobody can read cannot be, and
would be found out only when the finished clip is signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safegen.errors import InputError
from safegen.provenance.credential import CredentialState
from safegen.provenance.read import read_credential


def check_input_credentials(paths: Iterable[Path]) -> None:
    """InputError for a file whose credential cannot be read, and so not be kept; UnreadableMediaError for no file."""
    for path in paths:
        found = read_credential(path)
        unreadable = found.state is CredentialState.UNREADABLE
        if unreadable or (found.state is CredentialState.INVALID and not found.failure_codes):
            raise InputError(
                f"The credential of {path} cannot be read, so it could not be kept with what is made of it:"
                f" {found.problem or 'it is damaged'}.",
                remedy="Give a copy of the file without its credential.",
            )
