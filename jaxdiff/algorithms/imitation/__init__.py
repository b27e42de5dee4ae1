"""Algorithms that imitate demonstrations."""
