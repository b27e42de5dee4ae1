"""Recorded experience: reading, windows, normalisation and local data makers."""
