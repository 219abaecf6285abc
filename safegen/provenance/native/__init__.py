"""A C2PA writer of our own: JUMBF, CBOR, COSE, and where they go in MP4, PNG and JPEG. It writes; c2pa-rs reads.

``writer`` is the way in. ``claim`` makes the manifest, ``cose`` signs it, ``bmff``, ``png`` and ``jpeg`` know the
containers, ``streaming`` copies and hashes in one pass.
"""
