"""The label command."""
