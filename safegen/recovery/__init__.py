"""Credentials given back or renewed: found again by the mark, or signed once more beside all earlier ones."""
