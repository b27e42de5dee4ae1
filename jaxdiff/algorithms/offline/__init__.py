"""Offline reinforcement learning: policies from recorded transitions with rewards."""
