"""The ways a run can go wrong that are not bugs.

Every message names the option or file, the rule, what was got and the fix, on one or two lines. An
option is written as in Python, between backticks: `max_stall`, `vlm=FOLDER`. The console spells it
as the command line does: --max-stall, --vlm FOLDER.
"""


class UserError(Exception):
    """A mistake that the user can fix: printed without a traceback, exit code 2."""


class NotLabeledError(UserError):
    """There are no labels where some are needed."""


class EpisodeError(Exception):
    """One episode cannot be labeled: recorded with its reason, the run goes on, exit code 1."""


class TrainingError(Exception):
    """Training cannot go on: printed without a traceback, exit code 1."""
