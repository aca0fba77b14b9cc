"""The episode that is being recorded now: its pictures are scored while they come.

Until a video is encoded, LeRobot's recorder keeps its pictures as
``images/<camera>/episode-000123/frame-000000.png``; one that encodes while it records has none.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lerobot_topreward.data.info import find_file
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.online.scorer import OnlineScore, OnlineScorer
from lerobot_topreward.scoring.scorer import SizedScorer
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.watch.recording import Mark, NotYetError, read_task

_IMAGES = 200  # of an episode; of a longer one every second is forgotten, see `OnlineScorer`


@dataclass(slots=True)
class Running:
    """Shows a VLM of this process the pictures of one episode after another as they are written."""

    root: Path
    key: ScoreKey
    fps: float
    given: str | None  # task, as far as somebody said it
    task: str = ""
    newest: OnlineScore | None = None
    _of: tuple[int, Mark] | None = None  # the episode, and what was recorded before it
    _online: OnlineScorer | None = None
    _shown: list[Path] = field(default_factory=list)

    def look(self, episode: int, before: Mark, scorer: SizedScorer) -> bool:
        """Show the next picture of an episode; False where there is none to show.

        Pictures are those of the schedule, but for the last one of an episode, which nobody knows.

        Args:
            episode: its number.
            before: totals of the dataset without it.
            scorer: who is asked; only a VLM in this process can be.
        """
        cleared = bool(self._shown) and not self._shown[-1].exists()
        if self._of != (episode, before) or cleared:
            self._of, self._shown, self.newest = (episode, before), [], None
            self._online = self._begin(before, scorer)
        if self._online is None:
            return False
        frame = round(len(self._shown) * max(self.fps / self.key.sample_fps, 1.0))
        folder = Path("images") / self.key.camera / f"episode-{episode:06d}"
        try:
            path = find_file(self.root, folder / f"frame-{frame:06d}.png")
            if path is None:
                return False
            with Image.open(path) as image:
                picture = np.asarray(image.convert("RGB"))
        except Exception:  # is being written, or was removed: the next look finds out
            return False
        try:
            self.newest = self._online.add(picture, frame / self.fps)
        except EpisodeError:  # the episode itself is scored when it is saved
            self._online = None
            return False
        self._shown.append(path)
        return True

    def _begin(self, before: Mark, scorer: SizedScorer) -> OnlineScorer | None:
        task = self.key.instruction or (self.given if not before.tasks else None)
        most = min(_IMAGES, self.key.max_images or _IMAGES)
        try:
            # The task of an episode that adds none to those that there are.
            self.task = task or read_task(self.root, before, before, given=self.given)
            return OnlineScorer(scorer, self.task, max_images=most, beyond="thin")
        except (NotYetError, UserError):  # a server, or a reward model: they keep nothing
            return None
