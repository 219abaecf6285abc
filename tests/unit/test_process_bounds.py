"""Limits that the system holds: a process that asks for more gets none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from safegen.bounds.process import RESERVED, limit_child, resident
from safegen.media.ffmpeg_process import FfmpegProcess, executable

resource = pytest.importorskip("resource")

_LIMITED = """
from safegen.bounds.process import limit_this_process
limit_this_process(memory=400 << 20, cpu_seconds=1000)
import resource
print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE))
limit_this_process(memory=800 << 20)  # never loosens
try:
    bytearray(600 << 20)
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not all limit address space")
def test_a_process_limits_itself_and_never_loosens() -> None:
    said = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True).stdout
    assert said.split("\n") == ["(1000, 1000) (0, 0)", "refused", ""]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system has no prlimit")
def test_a_decoder_is_limited_from_outside() -> None:
    command = [executable(), "-v", "error", "-f", "lavfi", "-i", "color=black:s=64x64", "-f", "null", "-"]
    with FfmpegProcess(command, memory=1 << 30) as process:
        most = (1 << 30) + RESERVED
        assert resource.prlimit(process.child.pid, resource.RLIMIT_AS) == (most, most)
        process.child.kill()
    limit_child(process.child.pid, memory=1 << 30)  # gone meanwhile: nothing to limit
    assert resident(process.child.pid) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process uses")
def test_a_decoder_that_uses_more_memory_is_ended_and_says_so() -> None:
    command = [executable(), "-v", "error", "-f", "lavfi", "-i", "color=black:s=4096x4096", "-f", "null", "-"]
    with FfmpegProcess(command, memory=30 << 20) as process:
        assert process.finish() != 0
        assert process.refusal() == "decoding it takes more than 30 MiB of memory"
