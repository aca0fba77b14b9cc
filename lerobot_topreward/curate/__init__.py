"""The curate command: find and leave out bad demonstrations."""
