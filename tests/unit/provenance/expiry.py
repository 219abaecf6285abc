"""Certificates that expire while a test runs."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from safegen.errors import SafegenError
from safegen.keys import KeyStore
from safegen.keys import pki as key_pki
from safegen.settings import Home

Made = TypeVar("Made")


def made_before_expiry(home: Home, make: Callable[[KeyStore], Made]) -> tuple[KeyStore, Made]:
    """Keys of ``home`` whose certificate has just expired, and what ``make`` made while it was valid.

    ``make`` is called again, with keys that last longer, where a busy machine lets it miss the end.
    """
    for seconds in (3, 15, 75):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(key_pki, "LEAF_DAYS", (300 + seconds) / 86400)  # it begins five minutes ago
            keys = KeyStore.init(home, force=True)
        try:
            made = make(keys)
        except (AssertionError, SafegenError):
            if _now() < keys.leaf_valid_until:
                raise
            continue
        if _now() < keys.leaf_valid_until:
            break
    else:
        pytest.fail("the machine is too busy to sign within a minute")
    while _now() <= keys.leaf_valid_until + dt.timedelta(seconds=1):
        time.sleep(0.1)
    return keys, made


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
