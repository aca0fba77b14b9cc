"""Reward-aligned behavior cloning for LeRobot, after TOPReward (arXiv 2602.19313)."""

from importlib.metadata import version

__version__ = version("lerobot-topreward")
