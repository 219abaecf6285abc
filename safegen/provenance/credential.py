"""What was read from a file's manifests, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from safegen.provenance.manifest import SoftBinding
from safegen.types import ContentId


class CredentialState(StrEnum):
    """How reading ended. ``valid`` is intact but signed by someone whom the given anchors do not vouch for."""

    ABSENT = "absent"
    VALID = "valid"
    TRUSTED = "trusted"
    INVALID = "invalid"
    UNREADABLE = "unreadable"


class Origin(StrEnum):
    """Where the manifest came from."""

    NONE = "none"
    EMBEDDED = "embedded"
    SIDECAR = "sidecar"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One ingredient of the active manifest; ``manifest_id`` and ``content_id`` where it had a manifest of its own.

    ``failure_codes`` is what the signer found wrong with that manifest when the ingredient was added.
    """

    title: str
    relationship: str
    manifest_id: str | None
    content_id: ContentId | None
    failure_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credential:
    """The active manifest of a file and how it validated.

    Everything but ``state`` is what the manifest *says*: believe it only where ``signature_valid`` and
    ``signer_trusted`` hold. ``content_matches`` is the hard binding (None: not checked). ``timestamp`` comes from a
    time-stamp authority (a listed one if ``timestamp_trusted``), ``claimed_time`` from the manifest itself; both ISO
    8601. ``listed_by`` names the trust list that vouches for a signer that is not our own. ``failure_codes`` are C2PA
    validation codes, those of ingredients included (``ingredient_failures`` alone), and ``explanations`` the library's
    words for them. ``identity_problems`` are codes about identity assertions (CAWG), which decide nothing about the
    credential. ``denies_ai``: a camera or a person is named as the origin. ``sidecar`` is the name of the file that it
    came from. ``remote_url`` is named by the file and was not fetched.
    """

    state: CredentialState
    origin: Origin = Origin.NONE
    manifest_id: str | None = None
    content_id: ContentId | None = None
    run_id: str | None = None
    soft_bindings: tuple[SoftBinding, ...] = ()
    claim_generator: str = ""
    signer: str = ""
    organisation: str = ""
    leaf_serial: str = ""
    timestamp: str | None = None
    claimed_time: str | None = None
    signature_valid: bool = False
    signer_trusted: bool = False
    content_matches: bool | None = None
    failure_codes: tuple[str, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    listed_by: str = ""
    timestamp_trusted: bool = False
    ai_generated: bool = False
    denies_ai: bool = False
    ingredient_failures: tuple[str, ...] = ()
    identity_problems: tuple[str, ...] = ()
    explanations: Mapping[str, str] = field(default_factory=dict)
    sidecar: str = ""
    out_of_bounds: bool = False  # unreadable because it would take too much time or memory
    remote_url: str | None = None
    problem: str = ""

    @property
    def own_manifest_holds(self) -> bool:
        """Whether the active manifest is intact and fits the file, whatever is wrong with its ingredients' own."""
        own = set(self.failure_codes) - set(self.ingredient_failures) - {"signingCredential.untrusted"}
        return self.signature_valid and self.content_matches is not False and not own

    @property
    def only_expired(self) -> bool:
        """Whether nothing is wrong but that the certificate has expired since and no time-stamp vouches for the time.

        C2PA calls such a file invalid. A ledger entry with its signed time can still vouch for it.
        """
        return (
            self.signature_valid
            and self.content_matches is not False
            and bool(self.failure_codes)
            and set(self.failure_codes) <= {"signingCredential.expired", "signingCredential.untrusted"}
            and "signingCredential.expired" in self.failure_codes
        )
