"""The question a VLM is asked, word for word as the authors asked it.

The paper (arXiv 2602.19313, section 3) prints a full stop after the instruction; the reference code
(https://github.com/TOPReward/TOPReward) and LeRobot's port do not, and neither do we.
"""

PROMPT_PREFIX = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
)
PROMPT_SUFFIX = "{instruction} Decide whether the above statement is True or not. The answer is:"
ANSWERS = (" True", " False")  # one token each, with the leading space


def question(instruction: str) -> str:
    """The text that follows the video, up to where the answer's token is predicted."""
    return PROMPT_PREFIX + PROMPT_SUFFIX.format(instruction=instruction)
