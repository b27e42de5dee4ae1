"""Diffusion models for decision making, as pure JAX functions."""

__version__ = "0.1.0"
