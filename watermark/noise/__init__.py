"""A mark in the signs of the initial noise (opt-in)."""
