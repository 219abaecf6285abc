"""What a run keeps in its work folder, so that it can be stopped, continued and repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.watermark import metrics
from benchmarks.watermark.codecs import Frames
from benchmarks.watermark.schemes import Made, Scheme, Studio


class Lines:
    """A file of JSON lines that only grows. A last line cut short by a stop is ignored."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path, self.key = path, key
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if path.is_file():
            text = path.read_text("utf-8")
            for line in text[: text.rfind("\n") + 1].splitlines():
                self._keep(json.loads(line))
            if not text.endswith("\n"):
                path.write_text(text[: text.rfind("\n") + 1], "utf-8")

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows[tuple(row[k] for k in self.key)] = row

    def has(self, *key: Any, code: str | None) -> bool:
        """Whether the row is there, made by this code (None: by any)."""
        row = self.rows.get(key)
        return row is not None and code in (None, row["code"])

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; a later one with the same key counts instead of it."""
        self._keep(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Store:
    """Marked clips and their twins as .npy files, with what is known about each in a .json beside it."""

    def __init__(self, work: Path, studio: Studio) -> None:
        self.folder, self.studio = work / "clips", studio
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows = Lines(work / "rows.jsonl", ("seed", "scheme", "attack"))
        self.nulls = Lines(work / "nulls.jsonl", ("kind", "number", "scheme"))
        self.encode_file = work / "encode.json"
        studio.twins = self.twin

    def twin(self, seed: int) -> Frames:
        """The unmarked clip of this seed."""
        if not (self.folder / f"twin-{seed}.npy").is_file():
            frames, costs = self.studio.draw(seed)
            self._save(f"twin-{seed}", frames, {"generate": costs})
        return self._load(f"twin-{seed}")

    def marked(self, scheme: Scheme, seed: int) -> tuple[Frames, dict[str, Any]]:
        """The marked clip and what is known about it: payload, timings, quality."""
        name = f"{scheme.name}-{seed}"
        if not (self.folder / f"{name}.npy").is_file():
            made = scheme.generate(seed)
            self._keep_twin(made, seed)
            quality = metrics.quality(made.marked, made.twin, self.studio.fps)
            self._save(name, made.marked, {"payload": made.payload, "timings": made.timings, "quality": quality})
        return self._load(name), self.info(name)

    def _keep_twin(self, made: Made, seed: int) -> None:
        if (self.folder / f"twin-{seed}.npy").is_file():
            return
        whole, embed = made.timings["generate_marked"], made.timings["embed"]
        costs = {n: whole[n] - (0 if n == "peak_mb" else embed.get(n, 0)) for n in whole}
        self._save(f"twin-{seed}", made.twin, {"generate": costs})

    def encode_costs(self, seed: int) -> dict[str, float]:
        """What one VAE encode of a clip costs, measured once per work folder."""
        if not self.encode_file.is_file():
            self.encode_file.write_text(json.dumps(self.studio.encode_costs(self.twin(seed))) + "\n", "utf-8")
        return dict(json.loads(self.encode_file.read_text("utf-8")))

    def info(self, name: str) -> dict[str, Any]:
        """The .json beside a clip."""
        return dict(json.loads((self.folder / f"{name}.json").read_text("utf-8")))

    def _load(self, name: str) -> Frames:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def _save(self, name: str, frames: Frames, info: dict[str, Any]) -> None:
        """The frames last and by renaming: where they are, all is."""
        (self.folder / f"{name}.json").write_text(json.dumps(info) + "\n", "utf-8")
        partial = self.folder / f"{name}.partial.npy"
        np.save(partial, frames)
        partial.replace(self.folder / f"{name}.npy")
