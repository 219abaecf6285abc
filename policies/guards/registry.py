"""Optional guards: models and services that judge texts beside what ships with safegen.

A pack asks for one under ``text.classifiers`` with ``{use: …, path: …}``; docs/moderation.md lists them. What a guard
needs loads only when a pack asks for it, and one that is not there is recorded as not run: it blocks where the pack
requires it, and otherwise the decision says that it did not look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from safegen.policies.guards.endpoint import ModerationEndpoint
from safegen.policies.guards.models import GuardModel
from safegen.policies.guards.person_names import PersonRecogniser
from safegen.policies.pack.checks import FAMILIES
from safegen.policies.pack.model import ClassifierSpec
from safegen.policies.text.hits import TextClassifier

__all__ = ["GUARDS"]


def _model(spec: ClassifierSpec) -> TextClassifier:
    return GuardModel.load(spec)


def _endpoint(spec: ClassifierSpec) -> TextClassifier:
    return ModerationEndpoint.load(spec)


def _person_ner(spec: ClassifierSpec) -> TextClassifier:
    return PersonRecogniser.load(spec)


GUARDS: Mapping[str, Callable[[ClassifierSpec], TextClassifier]] = {
    **dict.fromkeys(FAMILIES, _model),
    "openai_compatible": _endpoint,
    "person_ner": _person_ner,
}
"""What loads each kind of guard. Raises NotAvailableError where it cannot run here, PolicyError where it is broken."""
