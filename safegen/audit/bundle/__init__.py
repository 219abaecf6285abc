"""Bundles for auditors: entries with all that proves them, and a verifier that needs nothing of ours.

``verify_bundle.py`` goes into every bundle as ``verify.py``. It runs on Python 3.9 and later with the standard library
alone, and imports nothing from here.
"""
