"""LeRobot's own reward models as judges, behind the `Scorer` protocol."""
