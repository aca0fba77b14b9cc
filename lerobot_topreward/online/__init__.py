"""Rewards while the robot moves."""
