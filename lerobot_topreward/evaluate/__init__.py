"""The evaluate command: how far the rewards of a labelled dataset can be believed."""
