"""Datasets to the Hub."""
