"""Scorers: the only part of the package that imports transformers."""
