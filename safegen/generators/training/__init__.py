"""Training probes of a user's own model (extra ``train``)."""
