"""Recorded data: reading, episodes, windows, transitions, normalisation, storage."""
