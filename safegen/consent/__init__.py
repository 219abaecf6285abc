"""Consent records: what a person allowed, signed by them or by whoever speaks for them, and whose word is taken."""
