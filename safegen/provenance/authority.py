"""Asking an authority over HTTP: a time-stamp's, or a certificate's OCSP responder."""

from __future__ import annotations

import urllib.request


def post(url: str, query: bytes, kinds: tuple[str, str], *, seconds: float, most: int) -> bytes:
    """Send ``query`` and return the answer; ``kinds`` are the media types of the two.

    ``url`` is http or https: the caller has seen to it. OSError if nobody answers within ``seconds``, ValueError if the
    answer is longer than ``most`` bytes.
    """
    request = urllib.request.Request(  # noqa: S310 - callers let http and https through only
        url, data=query, headers={"Content-Type": kinds[0], "Accept": kinds[1]}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
        content = bytes(answer.read(most + 1))
    if len(content) > most:
        raise ValueError("the answer is too long")
    return content
