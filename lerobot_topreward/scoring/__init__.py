"""Run a scorer over the episodes of a dataset."""
