"""Tasks: all that the library knows of each environment."""
