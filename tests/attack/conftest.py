import sys
from pathlib import Path

# For the modules beside this one and those of the Hub's tests: there is no package of tests.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "hub")]
