"""The claw machine: scenes, data, scores and pictures."""
