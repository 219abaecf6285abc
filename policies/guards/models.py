"""Guard models run through transformers, from a folder or from the Hugging Face hub.

Only safetensors are read and no code of a model's repository runs. The prompt is the model's own chat template; a text
that the template loses, or that is too long for the model, is a failed run and never a cut one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safegen.errors import PolicyError
from safegen.policies.guards.formats import FORMATS, Family, Question, UnreadableAnswerError
from safegen.policies.pack.model import ClassifierSpec
from safegen.policies.text.hits import Hit, NotAvailableError
from safegen.policies.text.views import View

# Imported where they are used: huggingface_hub, torch, transformers.

_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_MAX_READINGS = 3  # of one text: what was written, and what disguises hide
_FENCE = re.compile(r"<(?=\s*/?\s*(?:BEGIN|END|start|end|guardian|think|score)\b)", re.IGNORECASE)


class GuardModel:
    """One guard model. Scores are those of ``guards_formats``, by this project's categories."""

    batch = 1

    def __init__(self, spec: ClassifierSpec, tokenizer: Any, model: Any, digest: str, version: str) -> None:
        self.name = spec.name
        self.version = version
        self.weights_sha256: str | None = digest
        self._family: Family = FORMATS[spec.use]
        criteria = spec.options.get("criteria")
        self._questions = self._family.questions(tuple(map(str, criteria)) if isinstance(criteria, list) else ())
        self._strict = spec.options.get("mode", "strict") == "strict"
        self._tokenizer = tokenizer
        self._model = model
        self._special = [t for t in sorted(_special_tokens(tokenizer), key=len, reverse=True) if t.strip()]

    @classmethod
    def load(cls, spec: ClassifierSpec) -> GuardModel:
        """Load model and tokenizer. NotAvailableError: not there; PolicyError: altered, incomplete or no such model."""
        folder, revision = _folder(spec)
        if not list(folder.glob("*.safetensors")):
            raise NotAvailableError(f"no .safetensors weights for {spec.name}")
        digest = folder_digest(folder)
        wanted = spec.options.get("sha256")
        if wanted is not None and wanted != digest:
            raise PolicyError(f"the weights of {spec.name} were altered: digest {digest}")
        try:
            import torch
            import transformers
        except ImportError as exc:
            raise NotAvailableError(f"{spec.name} needs transformers and torch: {exc}") from exc
        device = str(spec.options.get("device", "cuda" if torch.cuda.is_available() else "cpu"))
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            # Llama Guard 4 reads pictures too: another class of model, asked in words alone.
            seeing = "ForConditionalGeneration" in str(config.architectures)
            auto = transformers.AutoModelForImageTextToText if seeing else transformers.AutoModelForCausalLM
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, told = auto.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                dtype=spec.options.get("dtype", "auto"), output_loading_info=True,
            )  # fmt: skip
            model = model.to(device).eval()
        except Exception as exc:
            raise PolicyError(f"{spec.name} cannot be loaded: {type(exc).__name__}: {exc}"[:300]) from exc
        if told["missing_keys"]:  # transformers fills these with chance
            raise PolicyError(f"the weights of {spec.name} are incomplete: {len(told['missing_keys'])} tensors missing")
        if not tokenizer.chat_template:
            raise PolicyError(f"{spec.name} has no chat template: is it a guard model of this family?")
        version = f"{spec.options.get('model') or folder.name}{f'@{revision}' if revision else ''}"
        guard = cls(spec, tokenizer, model, digest, version)
        guard.check_template()
        return guard

    def check_template(self) -> None:
        """Raise PolicyError unless the chat template carries the text, and what is asked about it."""
        probe = "a plain sentence that must come through"
        for question in self._questions:
            try:
                rendered = self._render(probe, question)
            except UnreadableAnswerError as exc:
                raise PolicyError(f"{self.name}: {exc}") from exc
            guideline = question.template.get("guideline")
            if isinstance(guideline, str) and guideline not in rendered:
                raise PolicyError(f"{self.name}: the chat template ignores the guideline")

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text. UnreadableAnswerError: an answer is not in the family's format."""
        return [self._judge(views) for views in texts]

    def _judge(self, views: Sequence[View]) -> list[Hit]:
        best: dict[str, Hit] = {}
        for name, text in readings(views):
            for question in self._questions:
                for category, score in self._ask(text, question).items():
                    if category not in best or score > best[category].score:
                        best[category] = Hit(category, score, name, (0, 0), f"{self.name}:{question.name}")
        return list(best.values())

    def _ask(self, text: str, question: Question) -> dict[str, float]:
        import torch

        rendered = self._render(self._defused(text), question)
        tokens = self._tokenizer(rendered, add_special_tokens=False, return_tensors="pt").to(self._model.device)
        config = self._model.config.get_text_config()
        most = int(getattr(config, "max_position_embeddings", 0) or 0)
        length = int(tokens["input_ids"].shape[1])
        if most and length + self._family.tokens > most:
            raise ValueError(f"{length} tokens do not fit into {most}")
        with torch.inference_mode():
            answer = self._generate(tokens, length) if self._family.tokens else self._yes(tokens)
        return self._family.read(answer, question, self._strict)

    def _generate(self, tokens: Any, length: int) -> str:
        end = self._tokenizer.eos_token_id
        out = self._model.generate(
            **{k: tokens[k] for k in ("input_ids", "attention_mask")},
            max_new_tokens=self._family.tokens, do_sample=False, pad_token_id=0 if end is None else end,
        )  # fmt: skip
        return str(self._tokenizer.decode(out[0][length:], skip_special_tokens=True))

    def _yes(self, tokens: Any) -> str:
        import torch

        vocabulary = self._tokenizer.get_vocab()
        if not {"Yes", "No"} <= set(vocabulary):
            raise UnreadableAnswerError("the tokenizer has no 'Yes' and 'No'")
        logits = self._model(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).logits
        both = logits[0, -1, [vocabulary["Yes"], vocabulary["No"]]].float()
        return repr(float(torch.softmax(both, dim=0)[0]))

    def _render(self, text: str, question: Question) -> str:
        """Return the whole prompt. Some templates take a message's text plain, others as a list of parts."""
        for content in (text, [{"type": "text", "text": text}]):
            try:
                rendered = self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True,
                    **question.template,
                )  # fmt: skip
            except Exception as exc:  # jinja2 errors and whatever else a template raises
                failure: Exception | None = exc
                continue
            failure = None
            if isinstance(rendered, str) and text.strip() in rendered and "'type': 'text'" not in rendered:
                return rendered
        raise UnreadableAnswerError("the chat template does not carry the text") from failure

    def _defused(self, text: str) -> str:
        """Return the text with the model's control tokens broken up: a prompt must not write its own verdict."""
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}" if len(token) > 1 else " ")
        return _FENCE.sub("< ", text)


def readings(views: Sequence[View]) -> list[tuple[str, str]]:
    """Return (view, text) of what a guard reads: the text as it was written, and what disguises hide."""
    written = views[0].written or views[0].text
    found = [("clean", written)]
    for view in views:
        if view.reliable and view.text != written.lower() and len(found) < _MAX_READINGS:
            found.append((view.name, view.text))
    return found


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and digests of a model folder's files: weights, configuration, tokenizer."""
    total = hashlib.sha256()
    for path in sorted({p for pattern in _FILES for p in folder.glob(pattern) if p.is_file()}):
        with path.open("rb") as file:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _special_tokens(tokenizer: Any) -> set[str]:
    return {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)}


def _folder(spec: ClassifierSpec) -> tuple[Path, str]:
    """Return the model's folder and, where it comes from the hub, its revision."""
    path = spec.options.get("path")
    if isinstance(path, str):
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise NotAvailableError(f"no folder for {spec.name}: {path}")
        return folder, ""
    try:
        from huggingface_hub import snapshot_download

        revision = spec.options.get("revision")
        found = snapshot_download(
            str(spec.options["model"]),
            revision=None if revision is None else str(revision),
            allow_patterns=list(_FILES),
        )
    except Exception as exc:  # no network, no such model, no leave to read it
        raise NotAvailableError(f"{spec.name} cannot be fetched from the hub: {type(exc).__name__}") from exc
    return Path(found), Path(found).name
