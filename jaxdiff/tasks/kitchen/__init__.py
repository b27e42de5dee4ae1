"""The Franka kitchen and a toy of it: tasks, data and scores."""
