"""PointMaze: the mazes, their data, their scores and their pictures."""
