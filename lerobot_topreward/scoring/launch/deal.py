"""Which process scores which episodes."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

_SLACK = 0.1  # of a fair part: what one process may have more, to leave a video file whole


def deal_out(
    costs: Mapping[int, float], files: Mapping[int, str], *, ranks: int
) -> list[list[int]]:
    """Deal episodes out so that processes end together and rarely read the same video file.

    In the order of files, every process gets the episodes between two cuts. A cut lies where the
    parts come out equal; at the end of a file, if there is one within a tenth of a part. So no file
    is read by more processes than its length takes.

    Args:
        costs: of each episode, > 0, such as its frames.
        files: the video file of each episode.
        ranks: how many processes, >= 1.

    Returns:
        The episodes of each process, ascending; all of them together are those of `costs`, once.
    """
    order = sorted(costs, key=lambda episode: (files[episode], episode))
    ends = [0.0, *accumulate(costs[episode] for episode in order)]
    inner = (i for i in range(1, len(order)) if files[order[i - 1]] != files[order[i]])
    whole = [0, *inner, len(order)]  # where a file begins or ends
    at = [ends[i] for i in whole]
    part = ends[-1] / ranks
    cuts = [0]
    for rank in range(1, ranks):
        due = rank * part
        best = whole[_nearest(at, due)]
        if abs(ends[best] - due) > _SLACK * part:
            best = _nearest(ends, due)
        cuts.append(max(best, cuts[-1]))
    cuts.append(len(order))
    return [sorted(order[a:b]) for a, b in pairwise(cuts)]


def _nearest(ends: Sequence[float], due: float) -> int:
    """The position in an ascending list of the value that is nearest to another."""
    after = min(bisect_left(ends, due), len(ends) - 1)
    return after - 1 if after and due - ends[after - 1] <= ends[after] - due else after
