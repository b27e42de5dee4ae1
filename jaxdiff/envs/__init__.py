"""Simulated tasks: what jaxdiff knows about them, and their scripted experts."""
