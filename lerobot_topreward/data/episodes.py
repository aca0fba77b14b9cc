"""What the option `episodes` means."""

from lerobot_topreward.errors import UserError


def parse_episodes(spec: str | None, *, total: int, max_episodes: int | None) -> list[int]:
    """Read the option `episodes`.

    It holds indices and half-open ranges as in Python, ``0:10,15`` for 0..9 and 15; ``5:`` runs to
    the end. None means all. Only the first `max_episodes` of them are kept.

    Raises:
        UserError: Not in that form, out of range, named twice, or nothing left.
    """
    if max_episodes is not None and max_episodes < 1:
        raise UserError(f"`max_episodes` must be at least 1; got {max_episodes}")
    chosen: set[int] = set()
    for part in [":"] if spec is None else map(str.strip, spec.split(",")):
        first, colon, last = part.partition(":")
        try:
            start = int(first) if first or not colon else 0
            stop = (int(last) if last else total) if colon else start + 1
        except ValueError:
            raise UserError(
                f"`episodes` must be indices and ranges such as 0:10,15; got {part!r} in {spec!r}"
            ) from None
        if start < 0 or stop > total:
            raise UserError(
                f"`episodes={part!r}` is out of range: the dataset has episodes 0..{total - 1} "
                f"(0:{total} is all of them)"
            )
        if start >= stop:
            raise UserError(f"`episodes={part!r}` is empty: the end of a range is not part of it")
        if twice := chosen & set(range(start, stop)):
            raise UserError(f"`episodes={spec!r}` names episode {min(twice)} twice")
        chosen |= set(range(start, stop))
    return sorted(chosen)[:max_episodes]
