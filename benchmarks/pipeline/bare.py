"""The bare diffusers call that ``safegen generate`` is compared with: same folder, same settings, nothing around it.

    python benchmarks/pipeline/bare.py FOLDER SEED

Prints seconds as JSON. ``autocast`` is what safegen uses on the same machine, so that the ratio measures what safegen
adds and not what it saves.
"""

import json
import sys
import time
from pathlib import Path

started = time.perf_counter()
import torch  # noqa: E402
from diffusers import DiffusionPipeline  # noqa: E402

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
card = json.loads((folder / "card.json").read_text())
imported = time.perf_counter()
pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
loaded = time.perf_counter()
flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
native = "avx512_bf16" in flags or "amx_bf16" in flags
generator = torch.Generator().manual_seed(seed)
with torch.autocast("cpu", dtype=torch.bfloat16, enabled=native):
    frames = pipe(
        "a red ball bouncing on grass at sunset", **card["call"], generator=generator, output_type="np"
    ).frames
done = time.perf_counter()
print(
    json.dumps(
        {
            "import": imported - started,
            "load": loaded - imported,
            "call": done - loaded,
            "at": time.time(),
            "shape": list(frames[0].shape),
        }
    )
)
