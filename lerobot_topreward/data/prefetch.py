"""Work done ahead of its use, in threads of its own."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from lerobot_topreward.errors import EpisodeError

_MOST = 16  # threads, unless more are asked for: each holds a clip


def decode_threads() -> int:
    """How many threads decode unless told otherwise: one less than the cores that this process has."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))  # a cluster gives some of the machine's
    else:
        cores = os.cpu_count() or 1
    return min(max(1, cores - 1), _MOST)


def work_ahead[A, T](
    work: Callable[[A], T],
    todo: Iterable[A],
    *,
    ahead: int = 2,
    give_up: Callable[[], None] | None = None,
) -> Generator[tuple[A, T | EpisodeError]]:
    """Do the work of the next few items, each in its own thread, while the caller uses this one.

    No more results than these and the caller's own are in memory, and no thread outlives the
    generator, also when the caller stops early or is interrupted. Work that may take long is ended
    by `give_up`, which is called before its threads are waited for.

    Yields:
        Each item with its result, or with the `EpisodeError` that it ended in.
    """
    rest = iter(todo)
    waiting: deque[tuple[A, Future[T]]] = deque()
    pool = ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="decode")
    try:
        waiting.extend((item, pool.submit(work, item)) for item in islice(rest, ahead))
        while waiting:
            item, future = waiting.popleft()
            error = future.exception()
            result = error if isinstance(error, EpisodeError) else future.result()
            waiting.extend((after, pool.submit(work, after)) for after in islice(rest, 1))
            yield item, result
    finally:
        if give_up is not None:
            give_up()
        pool.shutdown(cancel_futures=True)
