"""The C2PA Soft Binding Resolution API (v2.4) over this home's ledger and manifests, and a client for such services.

``safegen.service.app`` makes the ASGI application (extra ``server``), ``safegen.service.client`` asks one.
docs/recovery.md says what is served and to whom.
"""
