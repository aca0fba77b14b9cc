"""The report command: one HTML page with every episode, its curve and its verdict."""
