"""Policies that imitate demonstrations."""
