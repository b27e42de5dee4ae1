"""PushT: the demonstrator, data and pictures."""
