"""The embedded demonstration model: weights, card and training recipe."""
