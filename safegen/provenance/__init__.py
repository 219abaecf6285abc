"""Content Credentials (C2PA): what a manifest says, signing, reading, and the store of manifests.

The only part of safegen that imports the C2PA library, and only once something is signed or read: import
``safegen.provenance.manifest`` for the models, ``.sign`` and ``.read`` for the work, ``.store`` for kept manifests.
"""
