"""The asset checks of the C2PA conformance programme 0.2 for specification 2.4, evaluated by our own code.

The programme publishes 31 checks as expressions over crJSON, the JSON view of a manifest store that validators print.
Here they are written down anew, under their official ids (``validation:...``). They look at the active manifest only
and ask whether a *generator* did its part; who signed, and whether to believe it, is not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from safegen.provenance import vocabulary

SPEC_VERSION: Final = ("2", "4")
CONFORMANCE: Final = "validation:"
"""What the ids of the programme's checks begin with."""

MAX_DETAIL: Final = 500


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement: what must hold, whether it does, and where not, by what it is broken."""

    id: str
    summary: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The active manifest as crJSON has it. Nothing in it has a type for certain: a file chose most of it."""

    label: str
    claim: Mapping[str, Any]
    assertions: Mapping[str, Any]
    results: object

    @classmethod
    def active(cls, crjson: object) -> _Manifest:
        manifests = _mapping(crjson).get("manifests")
        found = _mapping(manifests[0] if isinstance(manifests, list) and manifests else None)
        claim, assertions = _mapping(found.get("claim.v2")), _mapping(found.get("assertions"))
        return cls(_as_text(found.get("label")), claim, assertions, found.get("validationResults"))

    @property
    def values(self) -> list[Mapping[str, Any]]:
        return [_mapping(value) for value in self.assertions.values()]

    @property
    def actions(self) -> list[Mapping[str, Any]]:
        """The actions of every assertion that has any, in the order in which crJSON has them."""
        return [_mapping(action) for value in self.values for action in _items(value.get("actions"))]

    @property
    def named(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(_as_text(action.get("action")), action) for action in self.actions]

    @property
    def ingredients(self) -> list[tuple[str, Mapping[str, Any]]]:
        found = ((label, _mapping(value)) for label, value in self.assertions.items())
        return [(label, value) for label, value in found if value.get("relationship") is not None]

    def failures(self, codes: frozenset[str]) -> Iterator[str]:
        if not self.results:
            yield "there are no validation results"
        for entry in _items(_mapping(self.results).get("failure")):
            if (code := _as_text(_mapping(entry).get("code"))) in codes:
                yield code


_Finder = Callable[[_Manifest], Iterable[str]]


def check_conformance(crjson: object) -> tuple[Check, ...]:
    """Evaluate all 31 checks on a crJSON document (``safegen verify --crjson``, parsed), in the programme's order.

    ``passed`` is false also for the one check of which the programme only warns. Never raises: a document that is no
    crJSON, or has no manifest, fails.
    """
    manifest = _Manifest.active(crjson)
    checks = []
    for name, summary, find in _CHECKS:
        found = list(find(manifest))
        checks.append(Check(f"{CONFORMANCE}{name}", summary, not found, ", ".join(dict.fromkeys(found))[:MAX_DETAIL]))
    return tuple(checks)


def older_version(crjson: object) -> str:
    """Return the version of C2PA before ``SPEC_VERSION`` that the active manifest was made to, "" for any other.

    "1" where its claim has the form that version 2 has replaced, else what it names itself.
    """
    manifests = _mapping(crjson).get("manifests")
    found = _mapping(manifests[0] if isinstance(manifests, list) and manifests else None)
    if found.get("claim") and not found.get("claim.v2"):
        return "1"
    said = _said_version(_Manifest.active(crjson))
    parts = said.split(".") if isinstance(said, str) else []
    wanted = [int(part) for part in SPEC_VERSION]
    numbers = [int(part) for part in parts[:2] if part.isascii() and part.isdigit() and len(part) < 4]
    return ".".join(map(str, numbers)) if len(numbers) == 2 and numbers < wanted else ""


# -- the checks: each yields what breaks it ----------------------------------------------------------------------------


def _missing_source_types(m: _Manifest) -> Iterator[str]:
    for name, action in m.named:
        perceptible = name.startswith("c2pa.") and name not in vocabulary.NEED_NO_SOURCE_TYPE
        if perceptible and action.get("digitalSourceType") is None:
            yield _shown(name)


def _said_version(m: _Manifest) -> object:
    info = m.claim.get("claim_generator_info")
    info = info[0] if isinstance(info, list) and info else info
    return _mapping(info).get("specVersion")


def _spec_version(m: _Manifest) -> Iterator[str]:
    said = _said_version(m)
    if not said:
        yield "missing"
    elif not isinstance(said, str) or tuple(said.split(".")[:2]) != SPEC_VERSION:
        yield _shown(said)


def _actions_not_said_complete(m: _Manifest) -> Iterator[str]:
    for label, value in m.assertions.items():
        data = _mapping(value)
        if data.get("actions") is not None and data.get("allActionsIncluded") is None:
            yield _shown(label)


def _opened_with_source_type(m: _Manifest) -> Iterator[str]:
    for name, action in m.named:
        if name == "c2pa.opened" and action.get("digitalSourceType") is not None:
            yield _shown(action["digitalSourceType"])


def _no_results(m: _Manifest) -> Iterator[str]:
    if m.results is None:
        yield "there are no validation results"


def _inception(m: _Manifest) -> Iterator[str]:
    urls = [_as_text(_mapping(entry).get("url")) for entry in _items(m.claim.get("created_assertions"))]
    first = next((url for url in urls if "c2pa.actions" in url), None)
    if first is None or not first.endswith("c2pa.actions.v2"):
        yield "no created c2pa.actions.v2" if first is None else f"{_shown(first)} comes first"
    names = [name for name, _ in m.named]
    if "c2pa.created" in names and names[0] not in vocabulary.INCEPTION:
        yield f"{_shown(names[0])} comes first"


def _deprecated_assertions(m: _Manifest) -> Iterator[str]:
    return (_shown(k) for k in m.assertions if k.startswith("stds.") or k in vocabulary.DEPRECATED_ASSERTIONS)


def _unknown_assertions(m: _Manifest) -> Iterator[str]:
    return (_shown(k) for k in m.assertions if k.startswith("c2pa.") and k.split("__")[0] not in vocabulary.ASSERTIONS)


def _deprecated_actions(m: _Manifest) -> Iterator[str]:
    return (name for name, _ in m.named if name in vocabulary.DEPRECATED_ACTIONS)


def _unknown_actions(m: _Manifest) -> Iterator[str]:
    return (_shown(name) for name, _ in m.named if name.startswith("c2pa.") and name not in vocabulary.ACTIONS)


def _assertions_without_namespace(m: _Manifest) -> Iterator[str]:
    return (_shown(label) for label in m.assertions if "." not in label)


def _actions_without_namespace(m: _Manifest) -> Iterator[str]:
    return (_shown(name) for name, _ in m.named if "." not in name)


def _parameters_without_namespace(m: _Manifest) -> Iterator[str]:
    for _, action in m.named:
        parameters = action.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            yield "parameters that are no map"
        yield from (_shown(k) for k in _mapping(parameters) if k not in vocabulary.PARAMETERS and "." not in k)


def _legacy_parameters(m: _Manifest) -> Iterator[str]:
    for name, action in m.named:
        parameters = _mapping(action.get("parameters"))
        if parameters.get("description") is not None or parameters.get("ingredient") is not None:
            yield _shown(name)


def _label(m: _Manifest) -> Iterator[str]:
    if not m.label.startswith("urn:c2pa:"):
        yield _shown(m.label)


def _human_ratings(m: _Manifest) -> Iterator[str]:
    for label, value in m.assertions.items():
        data = _mapping(value)
        source = _as_text(_mapping(data.get("dataSource")).get("type"))
        if data.get("reviewRatings") is not None and source in vocabulary.HUMAN_ENTRY:
            yield _shown(label)


def _ingredients_that(wrong: Callable[[bool, Mapping[str, Any]], bool]) -> _Finder:
    """Name the ingredients for which ``wrong(has a manifest, data)`` holds."""
    return lambda m: (_shown(k) for k, data in m.ingredients if wrong(data.get("activeManifest") is not None, data))


def _relationships(m: _Manifest) -> Iterator[str]:
    return (
        _shown(d["relationship"])
        for _, d in m.ingredients
        if _as_text(d["relationship"]) not in vocabulary.RELATIONSHIPS
    )


def _created_without_source_type(m: _Manifest) -> Iterator[str]:
    return (n for n, action in m.named if n == "c2pa.created" and action.get("digitalSourceType") is None)


def _claim_fields(m: _Manifest) -> Iterator[str]:
    if m.claim.get("specVersion") is not None:
        yield "specVersion in the claim"


def _original_images(m: _Manifest) -> Iterator[str]:
    for label, value in m.assertions.items():
        data, parameters = _mapping(value), _mapping(_mapping(value).get("parameters"))
        part, image = parameters.get("multiAssetPartIndex"), parameters.get("embeddedOriginalPreservationImage")
        if vocabulary.ORIGINAL in (data.get("type"), parameters.get("type")) and (part is None) is (image is None):
            yield _shown(label)


def _forbidden_references(m: _Manifest) -> Iterator[str]:
    for data in m.values:
        if data.get("label") is None or data.get("url") is None or data.get("relationship") is not None:
            continue
        label = data["label"]
        if not isinstance(label, str):
            yield "a label that is no text"
        elif label in vocabulary.NEVER_BY_REFERENCE or label.startswith(vocabulary.NOT_BY_REFERENCE):
            yield _shown(label)


def _hashes_with_address(m: _Manifest) -> Iterator[str]:
    for label in ("c2pa.hash.data", "c2pa.hash.bmff.v3"):
        if _mapping(m.assertions.get(label)).get("url"):
            yield label


def _opened_and_saved(m: _Manifest) -> Iterator[str]:
    complete = _mapping(m.assertions.get("c2pa.actions.v2")).get("allActionsIncluded")
    if complete is not True and [name for name, _ in m.named] == ["c2pa.opened"]:
        yield "allActionsIncluded is not true"


def _opened_without_ingredient(m: _Manifest) -> Iterator[str]:
    for name, action in m.named:
        references = _mapping(action.get("parameters")).get("ingredients")
        if name == "c2pa.opened" and (not isinstance(references, list) or len(references) != 1):
            yield f"{len(_items(references))} references"


def _tiff_boxes(m: _Manifest) -> Iterator[str]:
    media_type = _as_text(_mapping(m.assertions.get("c2pa.asset-type.v2")).get("dc:format"))
    if "c2pa.hash.boxes" in m.assertions and media_type in vocabulary.TIFF:
        yield "c2pa.hash.boxes"


_CHECKS: Final[tuple[tuple[str, str, _Finder], ...]] = (
    (
        "mandatory_dst_for_perceptible_transformations",
        "every C2PA action that changes what is perceived names a digital source type",
        _missing_source_types,
    ),
    ("mandatory_spec_version", "the claim generator declares specification 2.4", _spec_version),
    (
        "mandatory_all_actions_included",
        "every actions assertion says whether it is complete (allActionsIncluded)",
        _actions_not_said_complete,
    ),
    ("no_dst_for_opened_action", "c2pa.opened names no digital source type", _opened_with_source_type),
    ("well_formed_data_present", "the manifest's structure was validated", _no_results),
    (
        "well_formed_success",
        "validation found nothing malformed or missing",
        lambda m: m.failures(vocabulary.MALFORMED),
    ),
    ("valid_data_present", "the manifest's hashes were validated", _no_results),
    ("valid_success", "validation found no hash that differs", lambda m: m.failures(vocabulary.MISMATCHED)),
    (
        "inception_action_position",
        "the first created actions assertion is c2pa.actions.v2 and begins with created or opened",
        _inception,
    ),
    ("no_deprecated_assertions", "no deprecated assertion is used", _deprecated_assertions),
    ("no_unsupported_assertions", "every c2pa.* assertion is one of the specification", _unknown_assertions),
    ("no_deprecated_actions", "no deprecated action is used", _deprecated_actions),
    ("no_unsupported_actions", "every c2pa.* action is one of the specification", _unknown_actions),
    (
        "no_unrecognized_custom_assertions",
        "assertions of one's own are named in a namespace",
        _assertions_without_namespace,
    ),
    ("no_unrecognized_custom_actions", "actions of one's own are named in a namespace", _actions_without_namespace),
    (
        "no_unrecognized_custom_action_parameters",
        "action parameters of one's own are named in a namespace",
        _parameters_without_namespace,
    ),
    (
        "discouraged_legacy_action_parameters",
        "no action keeps description or ingredient among its parameters (the programme warns only)",
        _legacy_parameters,
    ),
    ("active_manifest_urn", "the manifest's label is a urn:c2pa:", _label),
    ("review_ratings_datasource", "nothing entered by people carries review ratings", _human_ratings),
    (
        "ingredient_v3_no_active_manifest",
        "an ingredient without a manifest has no validation results",
        _ingredients_that(lambda has, data: not has and data.get("validationResults") is not None),
    ),
    (
        "ingredient_v3_mandatory_validation_results",
        "an ingredient with a manifest has validation results",
        _ingredients_that(lambda has, data: has and data.get("validationResults") is None),
    ),
    (
        "ingredient_relationship_values",
        "every ingredient is parentOf, inputTo or componentOf",
        _relationships,
    ),
    ("mandatory_dst_for_created_action", "c2pa.created names a digital source type", _created_without_source_type),
    ("no_deprecated_claim_fields", "the claim itself has no specVersion", _claim_fields),
    (
        "ingredient_v3_choice",
        "no ingredient has a manifest and a digital source type at once",
        _ingredients_that(lambda has, data: has and data.get("digitalSourceType") is not None),
    ),
    (
        "alternative_content_representation_choice",
        "an original preservation image is a part of the file or embedded, one of the two",
        _original_images,
    ),
    (
        "forbidden_labels_in_external_references",
        "no external reference leads to actions, hashes, ingredients or further references",
        _forbidden_references,
    ),
    ("no_url_in_hashes", "no hash assertion has the deprecated url", _hashes_with_address),
    (
        "all_actions_included_opened",
        "where opening is the only action, the list of actions is said to be complete",
        _opened_and_saved,
    ),
    (
        "opened_action_ingredient_reference",
        "c2pa.opened refers to exactly one ingredient",
        _opened_without_ingredient,
    ),
    ("no_box_hash_for_tiff", "a TIFF is not bound by a box hash", _tiff_boxes),
)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _shown(value: object) -> str:
    """A value from a file, for terminals: cut short, without control characters, never empty."""
    text = value if isinstance(value, str) else type(value).__name__
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:100]) or '""'
