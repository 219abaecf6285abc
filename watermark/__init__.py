"""safegen.watermark."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.watermark, not watermark: the folder's import name lies under safegen")
