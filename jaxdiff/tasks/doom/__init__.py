"""Doom: the game, the demonstrator, data and scores."""
