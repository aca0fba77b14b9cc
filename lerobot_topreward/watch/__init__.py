"""The watch command: score a dataset while it is being recorded."""
