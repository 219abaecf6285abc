"""The key store: everything that signs, marks or commits, in one private folder."""

from safegen.keys.commitment import check_commitment, commit_text
from safegen.keys.key_store import KeyIds, KeyStore, Purpose

__all__ = ["KeyIds", "KeyStore", "Purpose", "check_commitment", "commit_text"]
