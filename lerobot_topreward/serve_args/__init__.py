"""The serve-args command."""
