"""Score in a thread of its own, so that a control loop never waits for a VLM."""

import atexit
import time as clock
from dataclasses import dataclass
from threading import Condition, Thread

import numpy as np

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.online.scorer import OnlineScore, OnlineScorer


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest score that is finished, as it is known now."""

    score: OnlineScore
    age: float  # seconds since its image was offered
    skipped: int  # images of this episode that a newer one replaced before their turn came


class BackgroundScorer:
    """Scores images in a thread; the newest one waits, older ones that still wait are skipped.

    So a score is never older than two images take, however slow the VLM is. No method but `wait`
    and `close` waits for the VLM.
    """

    def __init__(self, scorer: OnlineScorer) -> None:
        """Start the thread; nobody else may use the scorer until `close`."""
        self._scorer = scorer
        self._changed = Condition()  # guards all that follows; never held while scoring
        self._waiting: tuple[np.ndarray, float, float] | None = None  # image, time, when offered
        self._busy = False
        self._closed = False
        self._episode = 0
        self._newest: tuple[OnlineScore, float] | None = None
        self._skipped = 0
        self._failure: str | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="topreward", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread that is inside PyTorch when Python ends may crash

    def offer(self, image: np.ndarray, time: float) -> None:
        """Have an image scored when its turn comes; see `OnlineScorer.add`.

        Args:
            image: not changed by the caller afterwards.
            time: seconds since the episode began.
        """
        with self._changed:
            self._raise_error()
            self._skipped += self._waiting is not None
            self._waiting = image, time, clock.perf_counter()
            self._changed.notify_all()

    def newest(self) -> Newest | None:
        """Return the newest score of this episode; None until the first is finished."""
        with self._changed:
            self._raise_error()
            if self._newest is None:
                return None
            score, offered = self._newest
            return Newest(score, clock.perf_counter() - offered, self._skipped)

    @property
    def failure(self) -> str | None:
        """Why the last image of this episode could not be scored; None if it could."""
        with self._changed:
            return self._failure

    def reset(self) -> None:
        """Begin another episode: what is waiting or being scored counts no more."""
        with self._changed:
            self._raise_error()
            self._episode += 1
            self._waiting = self._newest = self._failure = None
            self._skipped = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every image is scored, at most `timeout` seconds; return whether they are."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._waiting is None and not self._busy, timeout=timeout
            )
            self._raise_error()
            return done

    def close(self) -> None:
        """End the thread, once the image that it works on is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.close)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError("the thread that scores has ended with an error") from self._error

    def _run(self) -> None:
        try:
            self._score_all()
        except BaseException as error:  # whoever asks next is told
            with self._changed:
                self._error, self._busy, self._waiting = error, False, None
                self._changed.notify_all()

    def _score_all(self) -> None:
        begun = -1  # no episode yet
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed or self._waiting is None:
                    return
                (image, time, offered), self._waiting = self._waiting, None
                episode, self._busy = self._episode, True
            if episode != begun:
                self._scorer.reset()
                begun = episode
            score, failure = None, None
            try:
                score = self._scorer.add(image, time)
            except EpisodeError as error:  # the scorer is as before, the next image may do
                failure = str(error)
            with self._changed:
                self._busy = False
                if episode == self._episode:
                    self._failure = failure
                    if score is not None:
                        self._newest = score, offered
                self._changed.notify_all()
