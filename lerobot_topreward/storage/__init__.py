"""What is kept: raw scores, columns, sidecar, and how labels are read."""
