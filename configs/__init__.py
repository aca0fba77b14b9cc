"""YAML presets that every command takes with ``--config``."""
