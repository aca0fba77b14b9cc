"""The ways a run can go wrong that are not bugs.

Every message names the option or file, the rule, what was got and the cure, on one or two lines.
"""


class UserError(Exception):
    """A mistake that the user can mend: printed without a traceback, exit code 2."""


class EpisodeError(Exception):
    """One episode cannot be labelled: recorded with its reason, the run goes on, exit code 1."""


class TrainingError(Exception):
    """Training cannot go on: printed without a traceback, exit code 1."""
