"""What a server answers, which is not believed before it is checked."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lerobot_topreward.errors import EpisodeError

ROUNDING = 1e-3  # of a log-probability that may come out above 0
LEAST = -9999.0  # what vLLM writes for a probability of 0, and others for the least float
_HUGE = 1e39


@dataclass(frozen=True, slots=True)
class Reading:
    """What one answer says of a prefix."""

    true: float  # nats, <= 0
    false: float
    true_censored: bool = False  # only a bound: the answer was not among those returned
    false_censored: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and how its answer is read."""

    make: Callable[[], bytes]  # the JSON of the request, made when its turn comes
    read: Callable[[Mapping[str, Any]], Reading]  # raises EpisodeError


def first_token(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Read the log-probabilities that a server returned for the first token of its answer.

    Returns:
        Tokens as the server writes them, with nats <= 0; at least one.

    Raises:
        EpisodeError: there are none, or they are none.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise EpisodeError("the server's answer has no choices; is it OpenAI-compatible?")
    logprobs = choices[0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = content[0] if isinstance(content, list) and content else None
    top = first.get("top_logprobs") if isinstance(first, Mapping) else None
    if not isinstance(top, list) or not top:
        raise EpisodeError(
            "the server's answer has no log-probabilities; take a server that returns "
            "top_logprobs, such as vLLM, SGLang or llama.cpp, and see whether it must be told to"
        )
    found = []
    for item in top:
        token = item.get("token") if isinstance(item, Mapping) else None
        value = item.get("logprob") if isinstance(item, Mapping) else None
        if not isinstance(token, str) or isinstance(value, bool):
            raise EpisodeError(_no_log_prob(item))
        if not isinstance(value, int | float) or not -_HUGE < value <= ROUNDING:
            raise EpisodeError(_no_log_prob(item))
        found.append((token, min(max(float(value), LEAST), 0.0)))
    if sum(math.exp(value) for _, value in dict(found).items()) > 1 + 1e-2:
        raise EpisodeError("the server's log-probabilities add up to more than a probability of 1")
    return found


def _no_log_prob(item: Any) -> str:
    return f"the server's answer has a log-probability that is none: {item!r:.80}"
