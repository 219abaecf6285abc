"""safegen.detectors."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.detectors, not detectors: the folder's import name lies under safegen")
