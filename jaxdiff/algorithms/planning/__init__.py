"""Planners: algorithms that denoise whole trajectories."""
