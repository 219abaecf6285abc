"""Other watermarks, marked onto the same unmarked twins and read from the same attacked frames.

invisible-watermark's three methods work on single pictures and know neither keys nor an answer "no mark": every frame
carries the same bits, frames vote with their soft values, and the reader always returns as many bits as it is asked
for. So a payload counts as exact if all bits agree with the known truth, and as detected if so many agree as chance
reaches at most once in a million. That is kinder than what our own schemes have to do, who must tell *whether* there
is a payload, and which of 2**64. Payloads are 32 bits: rivaGan can carry no others, and the other two carry these most
reliably. The library refuses pictures below 256x256 pixels; its coders themselves do not, and are called directly.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark.codecs import Frames

Bits = NDArray[np.uint8]
PEER_BITS = 32
FALSE_POSITIVES = 1e-6


class Peer(Protocol):
    """A watermark of finished frames, uint8 RGB ``[T, H, W, 3]``."""

    name: str
    bits: int

    def mark(self, frames: Frames, bits: Bits) -> Frames:
        """Frames that carry ``bits``."""
        ...

    def read(self, frames: Frames) -> Bits:
        """The bits that frames carry, whether marked or not."""
        ...


class DwtDct:
    """``dwtDct``: the largest coefficient of each block of the Haar approximation, quantised."""

    name, bits = "dwtDct", PEER_BITS

    def _coder(self, bits: list[int]) -> Any:
        from imwatermark.maxDct import EmbedMaxDct

        return EmbedMaxDct(bits, wmLen=self.bits)

    def mark(self, frames: Frames, bits: Bits) -> Frames:
        """Every frame by the library's own coder."""
        coder = self._coder(bits.astype(int).tolist())
        return np.stack([coder.encode(np.ascontiguousarray(f[:, :, ::-1]))[:, :, ::-1] for f in frames])

    def read(self, frames: Frames) -> Bits:
        """The blocks' votes for every bit, summed over all frames."""
        coder, votes = self._coder([0] * self.bits), np.zeros(self.bits)
        for frame in frames:
            votes += self._votes(coder, np.ascontiguousarray(frame[:, :, ::-1]))
        return (votes > 0).astype(np.uint8)

    def _votes(self, coder: Any, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Votes for 1 less votes for 0 of one frame, as the library's ``decode`` collects them before its threshold."""
        votes = np.zeros(self.bits)

        def collect(plane: Any, scale: float, scores: list[list[float]]) -> list[list[float]]:
            for bit, values in enumerate(type(coder).decode_frame(coder, plane, scale, [[] for _ in scores])):
                votes[bit] += sum(2.0 * v - 1 for v in values)
            return [[0.0] for _ in scores]

        coder.decode_frame = collect
        coder.decode(bgr)
        return votes


class DwtDctSvd(DwtDct):
    """``dwtDctSvd``: the largest singular value of each block, quantised."""

    name = "dwtDctSvd"

    def _coder(self, bits: list[int]) -> Any:
        from imwatermark.dwtDctSvd import EmbedDwtDctSvd

        return EmbedDwtDctSvd(bits, wmLen=self.bits)


class RivaGan:
    """``rivaGan``: a trained network (RivaGAN, arXiv:1909.01285), 32 bits. The wheel brings its weights."""

    name, bits = "rivaGan", PEER_BITS

    def __init__(self) -> None:
        self._model = _riva()

    def mark(self, frames: Frames, bits: Bits) -> Frames:
        """Every frame by the library's own coder."""
        coder = self._model(bits.tolist(), self.bits)
        return np.stack([coder.encode(np.ascontiguousarray(f[:, :, ::-1]))[:, :, ::-1] for f in frames])

    def read(self, frames: Frames) -> Bits:
        """The decoder's outputs, averaged over frames, against the library's threshold of 0.52."""
        total = np.zeros(self.bits)
        for frame in frames:
            scaled = frame[:, :, ::-1].astype(np.float32) / 127.5 - 1
            total += self._model.decoder.run(None, {"frame": scaled.transpose(2, 0, 1)[None, :, None]})[0][0]
        return (total / len(frames) > 0.52).astype(np.uint8)


@lru_cache(maxsize=1)
def _riva() -> Any:
    import imwatermark
    import onnxruntime  # type: ignore[import-untyped]
    from imwatermark.rivaGan import RivaWatermark

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    folder = Path(imwatermark.__file__).parent
    for part in ("encoder", "decoder"):
        path = folder / f"rivagan_{part}.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"the installed invisible-watermark brings no {path.name}")
        setattr(
            RivaWatermark, part, onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        )
    return RivaWatermark


PEERS: dict[str, type[DwtDct] | type[RivaGan]] = {"dwtDct": DwtDct, "dwtDctSvd": DwtDctSvd, "rivaGan": RivaGan}


def enough_bits(total: int, false_positives: float = FALSE_POSITIVES) -> int:
    """How many of ``total`` fair bits must agree so that chance gets there at most that often: 30 of 32 for 1e-6."""
    tail = 0
    for agreeing in range(total, -1, -1):
        tail += math.comb(total, agreeing)
        if tail / 2**total > false_positives:
            return agreeing + 1
    return 0
