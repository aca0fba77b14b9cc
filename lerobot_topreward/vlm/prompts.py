"""The question a VLM is asked, word for word as the authors asked it.

The paper (arXiv 2602.19313, section 3) prints a full stop after the instruction; the reference code
(https://github.com/TOPReward/TOPReward) and LeRobot's port do not, and neither do we.
"""

import re

from lerobot_topreward.errors import UserError

PROMPT_PREFIX = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
)
PROMPT_SUFFIX = "{instruction} Decide whether the above statement is True or not. The answer is:"
ANSWERS = (" True", " False")  # one token each, with the leading space
# Qwen's tokenizer turns these into single control tokens wherever they stand.
_CONTROL = re.compile(r"<\|[^|]*\|>|</?(think|tool_call|tool_response)>")


def question(instruction: str) -> str:
    """The text that follows the video, up to where the answer's token is predicted."""
    return PROMPT_PREFIX + PROMPT_SUFFIX.format(instruction=instruction)


def holds_text(instruction: str) -> bool:
    """Whether an instruction is free of control tokens."""
    return _CONTROL.search(instruction) is None


def require_text(instruction: str, *, what: str, fix: str) -> None:
    """Refuse an instruction with control tokens such as ``<|im_end|>``.

    Raises:
        UserError: it begins with what the instruction is and ends with the fix.
    """
    found = _CONTROL.search(instruction)
    if found is not None:
        raise UserError(
            f"{what} must be plain text; {instruction[:80]!r} holds the control token "
            f"{found.group()[:40]!r} of the VLM. {fix}"
        )
