"""Fragmented MP4 in pieces (DASH, CMAF): an initialisation segment and its fragments as one file that decoders read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safegen.errors import UnreadableMediaError


@contextmanager
def joined(first: Path, fragments: Sequence[Path]) -> Iterator[Path]:
    """Yield a temporary file that holds ``first`` and then each fragment, as players put them together.

    Raises UnreadableMediaError if one of them cannot be read, or there is no room for the copy.
    """
    with tempfile.TemporaryDirectory(prefix="safegen-") as folder:
        whole = Path(folder) / f"joined{first.suffix or '.mp4'}"
        with whole.open("xb") as target:
            for part in (first, *fragments):
                try:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, target, 1 << 20)
                except OSError as error:
                    raise UnreadableMediaError(f"cannot read {part}: {error}", remedy="Give all segments.") from error
        yield whole
