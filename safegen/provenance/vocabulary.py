"""The words of C2PA 2.4 that the conformance checks know: assertions, actions, parameters, validation codes."""

from __future__ import annotations

from typing import Final

DEPRECATED_ASSERTIONS: Final = frozenset(
    {"c2pa.claim", "c2pa.hash.bmff.v2", "c2pa.asset-type", "c2pa.ingredient", "c2pa.ingredient.v2", "c2pa.actions"}
)
ASSERTIONS: Final = DEPRECATED_ASSERTIONS | {
    f"c2pa.{name}"
    for name in (
        "actions.v2", "ai-disclosure", "alternative-content-representation", "assertion.metadata", "asset-ref",
        "asset-type.v2", "certificate-status", "cloud-data", "depthmap.GDepth", "embedded-data",
        "environmental-sustainability", "external-reference", "hash.bmff.v3", "hash.boxes", "hash.collection.data",
        "hash.data", "hash.data.part", "hash.multi-asset", "icon", "ingredient.v3", "metadata", "repository-receipt",
        "session-keys", "soft-binding", "thumbnail.claim", "thumbnail.ingredient", "time-stamp",
    )
}  # fmt: skip
INCEPTION: Final = frozenset({"c2pa.created", "c2pa.opened"})
NEED_NO_SOURCE_TYPE: Final = INCEPTION | {
    f"c2pa.{name}"
    for name in (
        "converted", "edited.metadata", "enhanced", "placed", "published", "redacted", "repackaged",
        "resized.proportional", "transcoded", "watermarked", "watermarked.bound", "watermarked.unbound",
    )
}  # fmt: skip
DEPRECATED_ACTIONS: Final = frozenset(
    f"c2pa.{name}"
    for name in (
        "color_adjustments", "copied", "formatted", "managed", "printed", "produced", "saved", "version_updated",
        "watermarked",
    )
)  # fmt: skip
ACTIONS: Final = NEED_NO_SOURCE_TYPE | {
    f"c2pa.{name}"
    for name in (
        "addedText", "adjustedColor", "changedSpeed", "color_adjustments", "cropped", "deleted", "drawing", "dubbed",
        "edited", "filtered", "mastered", "mixed", "orientation", "remixed", "removed", "resized", "translated",
        "trimmed", "unknown",
    )
}  # fmt: skip
PARAMETERS: Final = frozenset(
    {
        "description", "ingredient", "ingredients", "italic", "multipleInstances", "optical-size", "ranges",
        "redacted", "relatedAssertions", "slant", "sourceLanguage", "targetLanguage", "weight", "width",
    }
)  # fmt: skip
RELATIONSHIPS: Final = frozenset({"parentOf", "inputTo", "componentOf"})
MALFORMED: Final = frozenset(
    {
        *(
            f"assertion.{name}.malformed"
            for name in (
                "action", "alternativeContentRepresentation", "bmffHash", "boxesHash", "collectionHash", "dataHash",
                "external-reference", "ingredient", "multiAssetHash",
            )
        ),
        "assertion.alternativeContentRepresentation.missing", "assertion.boxesHash.unknownBox",
        "assertion.cbor.invalid", "assertion.external-reference.created",
        "assertion.external-reference.labelMismatch", "assertion.json.invalid", "assertion.multipleHardBindings",
        "claim.cbor.invalid", "claim.hardBindings.missing", "claim.malformed", "claim.missing", "claim.multiple",
        "hashedURI.missing", "ingredient.manifest.missing", "manifest.compressed.invalid",
        "manifest.html.multipleManifests", "manifest.inaccessible", "manifest.multipleParents",
        "manifest.structuredText.emptyReference", "manifest.structuredText.malformedReference",
        "manifest.structuredText.multipleReferences", "manifest.structuredText.noManifest",
        "manifest.structuredText.noResolutionPath", "manifest.timestamp.invalid", "manifest.timestamp.wrongParents",
        "manifest.update.invalid", "manifest.update.wrongParents",
    }
)  # fmt: skip
MISMATCHED: Final = frozenset(
    {
        "assertion.action.ingredientMismatch", "assertion.action.redactionMismatch",
        "assertion.alternativeContentRepresentation.hashMismatch", "assertion.bmffHash.mismatch",
        "assertion.boxesHash.mismatch", "assertion.collectionHash.mismatch", "assertion.dataHash.mismatch",
        "assertion.external-reference.hashMismatch", "assertion.hardBinding.redacted",
        "assertion.hashedURI.mismatch", "assertion.multiAssetHash.mismatch", "claimSignature.missing",
        "hashedURI.mismatch", "ingredient.claimSignature.mismatch", "ingredient.claimSignature.missing",
        "ingredient.manifest.mismatch",
    }
)  # fmt: skip
HUMAN_ENTRY: Final = frozenset({"humanEntry.anonymous", "humanEntry.credentialed"})
NOT_BY_REFERENCE: Final = ("c2pa.hash", "c2pa.ingredient")
NEVER_BY_REFERENCE: Final = frozenset({"c2pa.actions", "c2pa.actions.v2", "c2pa.cloud-data", "c2pa.external-reference"})
TIFF: Final = frozenset({"image/tiff", "image/x-adobe-dng"})
ORIGINAL: Final = "exif.originalPreservationImage"
