"""Reward weights and the adapter to LeRobot's trainer."""
