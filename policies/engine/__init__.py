"""The engine: one request, or the frames of a clip, under one pack."""
