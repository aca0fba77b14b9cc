"""The evaluate command: how far the rewards of a labeled dataset can be believed."""
