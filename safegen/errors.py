"""The exceptions of safegen.

Rules (ADR 0005): every name ends in Error; a negative verdict is a result, never an exception; what third-party
libraries raise is wrapped with ``from``; malformed input ends in one of these. Each class carries the exit code that
the command line answers with, so that one table serves the library and the shell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from safegen.types import Decision

EXIT_DONE = 0
EXIT_NOT_VERIFIED = 1
EXIT_BAD_INPUT = 2
EXIT_BLOCKED = 3
EXIT_COULD_NOT_RUN = 4
EXIT_OLDER_VERSION = 5


class SafegenError(Exception):
    """Base of all. ``str()`` says what happened; ``remedy`` says what to do about it, where that is known."""

    exit_code: ClassVar[int] = EXIT_COULD_NOT_RUN

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def diagnostics(self) -> str:
        """Return the message and the remedy as text for people."""
        return f"{self}\n{self.remedy}" if self.remedy else str(self)


class InputError(SafegenError):
    """The caller's words or file are at fault: a bad size, an empty prompt, a path that is no media."""

    exit_code = EXIT_BAD_INPUT


class ConfigError(SafegenError):
    """A setting, profile or policy file is missing, malformed or contradictory."""


class InstallationError(SafegenError):
    """A library that safegen asks for is missing or cannot be loaded."""


class KeyStoreError(ConfigError):
    """Keys are missing, expired, readable by others, or damaged."""


class PolicyError(SafegenError):
    """Moderation could not run; the guard fails closed."""


class BlockedError(SafegenError):
    """Content was refused by policy. Not a fault: it carries the decision."""

    exit_code = EXIT_BLOCKED

    def __init__(self, message: str, decision: Decision, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.decision = decision


class MediaError(SafegenError):
    """Encoding or decoding failed on our side (codec missing, disk full)."""


class UnreadableMediaError(InputError):
    """The given file cannot be decoded: truncated, empty, no media, or a folder."""


class GeneratorError(SafegenError):
    """The model could not be loaded, is no video pipeline, or failed while sampling."""


class WatermarkError(SafegenError):
    """Embedding or extraction could not run, or the mark did not survive our own encoder."""


class PayloadError(WatermarkError):
    """A payload is malformed: wrong length, unknown version, content id out of range."""


class ProvenanceError(SafegenError):
    """Signing failed, or a manifest could not be built."""


class DetectorError(SafegenError):
    """The passive detector could not run."""


class LedgerError(SafegenError):
    """The ledger could not be opened, read or appended to."""


class LedgerBusyError(LedgerError):
    """Another writer held the ledger for longer than the time-out."""


class LedgerDamagedError(LedgerError):
    """The ledger's tables contradict themselves or its signed checkpoint. ``safegen ledger fsck`` says where."""


class MigrationRequiredError(LedgerError):
    """The ledger's schema is older or newer than this version of safegen."""


class ResolutionError(SafegenError):
    """A soft-binding resolution service, or something that it needs, refused, failed or answered nonsense."""


class CancelledError(SafegenError):
    """The user interrupted; nothing was left behind and the ledger says so."""


class TimeLimitError(SafegenError):
    """What was asked for took longer than it was given."""


class VerificationError(SafegenError):
    """Verification could not be carried out at all (a *negative* verdict is a Verdict, not this)."""
