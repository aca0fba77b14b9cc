"""Scoring in many processes: on one machine, on Slurm and on Ray, through datatrove."""
