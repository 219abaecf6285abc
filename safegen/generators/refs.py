"""Which model a name means, and what can be said about it before its weights are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from safegen.errors import GeneratorError, InputError

# Imported where they are used: huggingface_hub.

TINY = "tiny"
"""The name of the embedded model."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_INDEX = "*.safetensors.index*.json"
_CONFIGS = [
    "model_index.json", "card.json", "*/config.json", "scheduler/scheduler_config.json", _INDEX,
]  # fmt: skip
_NOT_LOADED = frozenset({
    "", ".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4",
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5", ".onnx",
})  # fmt: skip
_MAX_JSON_BYTES = 4 << 20  # a model's configuration is a few kilobytes; a card of gigabytes is an attack or a mistake


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One resolved model: a diffusers pipeline folder, or a hub repository whose configuration files were fetched."""

    kind: Literal["tiny", "path", "hub"]
    name: str  # what the caller wrote
    source: str  # what DiffusionPipeline.from_pretrained is given: a folder or a hub id
    configs: Path  # folder that holds model_index.json and the parts' config.json
    pipeline: str  # the pipeline's class name in diffusers
    revision: str = ""  # commit of a hub repository

    def config(self, part: str) -> dict[str, Any]:
        """Return ``<part>/config.json``, or an empty dict where the pipeline has no such part."""
        path = self.configs / part / "config.json"
        return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file of the model; GeneratorError if it is missing, too large or malformed."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise GeneratorError(f"{path} is larger than {_MAX_JSON_BYTES} bytes: no model's configuration is")
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GeneratorError(
            f"cannot read {path}: {error}", remedy="The model folder is damaged; save the pipeline again."
        ) from error
    if not isinstance(value, dict):
        raise GeneratorError(f"{path} does not hold a JSON object", remedy="Save the pipeline again.")
    return value


def resolve(name: str) -> ModelRef:
    """Return the model that ``name`` means: ``tiny``, a diffusers pipeline folder, or a hub id ``owner/model``.

    Raises InputError where the name means no video pipeline, GeneratorError where the files are damaged or the hub
    cannot be reached. No weights are read.
    """
    if name == TINY:
        folder = Path(str(resources.files("safegen.tinymodel"))) / "pipe"
        return _ref("tiny", name, str(folder), folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return _ref("path", name, str(path.resolve()), path.resolve())
    if path.exists():
        raise InputError(
            f"{name} is a file, not a pipeline folder", remedy="Name the folder that model_index.json lies in."
        )
    if _HUB_ID.fullmatch(name):
        configs = _fetch(name, _CONFIGS)
        return _ref("hub", name, name, configs, revision=configs.name)
    raise InputError(
        f"no model {name!r}", remedy=f'Name "{TINY}", an existing pipeline folder, or a hub id "owner/model".'
    )


def _ref(kind: Literal["tiny", "path", "hub"], name: str, source: str, configs: Path, revision: str = "") -> ModelRef:
    index = configs / "model_index.json"
    if not index.is_file():
        raise InputError(
            f"{name} is not a diffusers pipeline: it has no model_index.json",
            remedy="Save it with DiffusionPipeline.save_pretrained, or name its top folder.",
        )
    pipeline = read_json(index).get("_class_name")
    if not isinstance(pipeline, str):
        raise InputError(
            f"{name} needs code of its own (its _class_name is {type(pipeline).__name__}, not a diffusers class)",
            remedy="safegen runs no code that comes with a model; use a pipeline that diffusers itself has.",
        )
    return ModelRef(kind, name, source, configs, pipeline, revision)


def _fetch(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    """Return the local folder of a hub repository's files that match ``patterns``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise GeneratorError(
            f"cannot fetch {repository} from the model hub: {type(error).__name__}",
            remedy=f'Check the id and the connection, name a local folder, or use the embedded model "{TINY}".',
        ) from error


def vae_folder(ref: ModelRef) -> Path:
    """Return the local folder of the model's VAE (config and weights); a hub model's is fetched if need be."""
    check_weights(ref)
    folder = ref.configs if ref.kind != "hub" else _fetch(ref.source, ["vae/*"], ref.revision)
    if not (folder / "vae" / "config.json").is_file():
        raise GeneratorError(
            f"{ref.name} has no vae/config.json", remedy="safegen needs a latent video model with a VAE."
        )
    return folder / "vae"


def check_weights(ref: ModelRef) -> None:
    """GeneratorError unless every index of shards names safetensors files beside it, and nothing else.

    A loader that is asked for safetensors still opens whatever such an index names, by pickle if it ends in ``.bin``.
    """
    for index in sorted(ref.configs.rglob(_INDEX)):
        shards = read_json(index).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) and _all_text(shards.values()) else {""}
        if bad := sorted(n for n in names if Path(n).name != n or "\\" in n or Path(n).suffix != ".safetensors"):
            raise GeneratorError(
                f"{index.parent.name}/{index.name} names {bad[0]!r}, which is no safetensors file beside it",
                remedy="Only safetensors are loaded, for other formats run code. Save the pipeline again.",
            )


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def digest(ref: ModelRef) -> str:
    """Return the SHA-256 over names and contents of a local model's files, as hex; "" for a hub model.

    Left out are those that nothing here loads: weights that are no safetensors, pictures, texts about the model. A hub
    model is named by its commit instead, which is a digest of all of its files.
    """
    if ref.kind == "hub":
        return ""
    total = hashlib.sha256()
    for path in sorted(p for p in ref.configs.rglob("*") if p.is_file() and p.suffix.lower() not in _NOT_LOADED):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(ref.configs).as_posix()} {part}\n".encode())
    return total.hexdigest()


def model_facts(ref: ModelRef) -> dict[str, str]:
    """Return what manifests and ledger entries say about the model: name, id, pipeline, version, licence.

    ``version`` is ``sha256:<hex>`` over a local folder, or ``commit:<hex>`` of a hub repository; a local folder is
    named by its last part alone, for where it lies on this machine is nobody's business.
    """
    card_path = ref.configs / "card.json"
    card = read_json(card_path) if card_path.is_file() else {}
    name = ref.name if ref.kind == "hub" else "safegen-tiny" if ref.kind == "tiny" else Path(ref.source).name
    licence = card.get("license", "Apache-2.0" if ref.kind == "tiny" else "")  # the embedded weights are the package's
    return {
        "name": str(card.get("name", name)),
        "id": f"{ref.kind}:{name}",
        "pipeline": ref.pipeline,
        "version": f"commit:{ref.revision}" if ref.kind == "hub" else f"sha256:{digest(ref)}",
        "license": licence if isinstance(licence, str) else "",
    }
