"""How the suite checks the package's annotations while it runs: shapes, dtypes and plain types."""

from beartype import BeartypeConf, beartype

# An int is a float where one is asked for, as in PEP 484.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
