"""Probes: linear judges of what a generator computes on its way to a clip."""
