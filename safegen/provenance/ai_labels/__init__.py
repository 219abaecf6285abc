"""Machine-readable labels other than C2PA's that say, or hint, that AI made a file. Anybody can write and remove them.

They are found and named, and no verdict rests on them. ``reading.read_ai_labels`` is the way in. ``stills``, ``movies``
and ``exif_words`` collect a file's words from its container, and each further module knows one kind of label.
"""
