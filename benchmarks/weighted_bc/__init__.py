"""The parts of ``benchmarks/so101_weighted_bc.py``: the data, one run, the results."""
