"""Follow a recorder: every episode is scored and judged as soon as it is saved."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status

from lerobot_topreward.console import StopRequest, name_episodes
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.info import INFO_PATH, Info
from lerobot_topreward.data.video import read_video, sample_clip
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.judging.line import Line, Opinion, judge_episode
from lerobot_topreward.records import Clip, PrefixScores, Segment
from lerobot_topreward.scoring.claim import describe_size
from lerobot_topreward.scoring.scorer import (
    ConcurrentScorer,
    SizedScorer,
    frames_wanted,
    score_clip,
)
from lerobot_topreward.scoring.servers import try_clip
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import Store
from lerobot_topreward.storage.waiting import read_sizes, waiting_shard, write_sizes
from lerobot_topreward.watch.config import WatchConfig
from lerobot_topreward.watch.notes import Marks
from lerobot_topreward.watch.recording import (
    BEGINNING,
    Mark,
    NotYetError,
    Place,
    Videos,
    is_closed,
    read_task,
    read_totals,
)
from lerobot_topreward.watch.reference import Lines
from lerobot_topreward.watch.running import Running
from lerobot_topreward.watch.settle import Settled, settle

_PATIENCE_S = 5.0  # before it is said that an episode cannot be judged: files are being written
_RINGS = {"good": 1, "bad": 3, "cannot tell": 0}
_STYLES = {"good": "green", "bad": "bold red", "cannot tell": "yellow"}


@dataclass(slots=True)
class Clock:
    """What tells the time and waits; tests hand in another one."""

    now: Callable[[], float] = time.monotonic  # s
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class Follower:
    """What is known of a dataset that is being recorded."""

    config: WatchConfig
    root: Path
    output: Path
    key: ScoreKey
    fps: float
    lines: Lines
    marks: Marks
    videos: Videos
    waiting: Store  # of the scores
    load: Callable[[], SizedScorer]
    console: Console
    clock: Clock
    running: Running = field(init=False)
    opinions: dict[int, Opinion] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)  # episodes not judged so far, and why
    total: int = 0  # episodes
    settled: Settled | None = None
    _totals: Mark = BEGINNING
    _scorer: SizedScorer | None = None
    _status: Status = field(init=False)
    _tested: bool = False  # servers
    _shown: set[str] = field(default_factory=set)
    # Episodes whose video could not be read: what the files were like, and why.
    _tried: dict[int, tuple[object, str]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)  # when something was first to be said
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare what is shown while an episode is being recorded; only a terminal shows it."""
        self.running = Running(self.root, self.key, self.fps, self.config.task)
        self._status = self.console.status("waiting for an episode")

    def follow(self, stop: StopRequest) -> None:
        """Judge episodes until the recorder has closed its files, or the user stops.

        Raises:
            UserError: the disk is full, no server is left, or the output is another dataset's.
        """
        self._shown = read_sizes(self.waiting)
        self.look(stop)
        began_with, was_open = self.total, False
        if self.total and is_closed(self.root):
            self._settle(score=False)
        with self._status:
            while not stop.asked and not self._has_enough():
                if not self.total or not is_closed(self.root):
                    was_open = self.total > 0
                elif was_open or self.total > began_with or self._is_complete():
                    self._status.stop()
                    if self._settle(score=True):
                        return
                    self._status.start()
                if not self._look_at_running():
                    self.clock.sleep(self.config.interval)
                self.look(stop)

    def _look_at_running(self) -> bool:
        """Show the next picture of the episode that is being recorded; False where there is none."""
        running = self.running
        if not running.look(self.total, self._totals, self.scorer) or running.newest is None:
            return False
        line = self.lines.of(running.task)
        good = f", good from {line.high:.2f}" if isinstance(line, Line) else ""
        self._status.update(
            f"episode {self.total} so far: {running.newest.time:.1f} s, log P(True) "
            f"{running.newest.log_prob_true:.2f} nats{good}"
        )
        return True

    def _has_enough(self) -> bool:
        judged = len(self.opinions) + len(self.failed)
        return self._is_complete() and judged >= self.total

    def _is_complete(self) -> bool:
        wanted = self.config.until_episodes
        return wanted is not None and self.total >= wanted

    def look(self, stop: StopRequest) -> None:
        """Look at the folder once, and judge what has come."""
        try:
            info = read_totals(self.root)
            if info.fps != self.fps:
                raise UserError(f"the dataset has {info.fps:g} fps now, and had {self.fps:g}")
        except UserError as error:
            if not (self.root / INFO_PATH).exists():
                self.marks.forget()  # what comes next may be another dataset
                self._begin_again()
            self._say_later([f"waiting: {error}"])
            return
        totals = Mark(info.total_frames, info.total_tasks)
        if not self.marks.add(info.total_episodes, totals):
            self._begin_again()
        if totals != self._totals:
            self.settled = None  # there is more now
        self.total, self._totals = info.total_episodes, totals
        stamp = [info.total_frames, *self.videos.stamp(info)]
        self.later = {}
        for episode in range(self.total):
            if stop.asked:
                return
            if episode in self.opinions or episode in self.failed:
                continue
            try:
                self._judge(episode, info, stamp)
            except NotYetError as error:
                self.later[episode] = str(error)
            except EpisodeError as error:
                self.failed[episode] = str(error)
                self.console.print(f"episode {episode} failed: {error}", style="red")
        self._say_later(
            [
                f"{episodes}: cannot tell yet, {reason}; judged when the recorder has closed its "
                "files"
                for reason, episodes in self.reasons().items()
            ]
        )

    def reasons(self) -> dict[str, str]:
        """Say why episodes are not judged so far: the reasons, each with its episodes in words."""
        found: dict[str, list[int]] = defaultdict(list)
        for episode, reason in self.later.items():
            found[reason].append(episode)
        return {reason: name_episodes(episodes) for reason, episodes in found.items()}

    def _begin_again(self) -> None:
        if self.total:
            self.console.print("this is not the dataset that was here: begun again", style="yellow")
        self.opinions, self.failed, self._tried, self.later = {}, {}, {}, {}
        self.total = 0

    def _say_later(self, texts: Sequence[str]) -> None:
        """Say once what has been so for a while."""
        now = self.clock.now()
        self._since = {text: self._since.get(text, now) for text in texts}
        for text, since in self._since.items():
            if text not in self._said and now - since >= _PATIENCE_S:
                self._said.add(text)
                self.console.print(text, style="yellow")

    def _judge(self, episode: int, info: Info, stamp: object) -> None:
        """Judge an episode that was saved, scoring it unless that was done.

        Raises:
            NotYetError: not now.
            EpisodeError: it cannot be scored.
        """
        before_now, why = self._tried.get(episode, (None, ""))
        if before_now == stamp:
            raise NotYetError(why)
        span, before, after = self.marks.span_of(episode)
        task = self.key.instruction
        if task is None:
            task = read_task(self.root, before, after, given=self.config.task)
        place = self.videos.locate(info, span)
        segment = Segment(episode, 0, span.length, task)
        try:
            clip = self._read(segment, place)
        except EpisodeError as error:
            self._tried[episode] = stamp, str(error)
            raise NotYetError(str(error)) from None
        shard = waiting_shard(clip)
        scores = self.waiting.read(shard)
        if scores is None:
            scores = self._score(clip)
            self.waiting.write(shard, scores)
        self._say(episode, judge_episode(scores, self.lines.of(task)))

    def _read(self, segment: Segment, place: Place) -> Clip:
        return sample_clip(
            lambda frames, keep: read_video(
                place.path,
                place.start + frames / self.fps,
                keep,
                name=place.path.relative_to(self.root),
            ),
            fps=self.fps,
            segment=segment,
            sample_fps=self.key.sample_fps,
            final_frame=self.key.final_frame,
            max_images=self.key.max_images,
            also=frames_wanted(self.scorer, self.key, segment.length, fps=self.fps),
        )

    @property
    def scorer(self) -> SizedScorer:
        """Who is asked."""
        if self._scorer is None:
            self._scorer = self.load()
        return self._scorer

    def _score(self, clip: Clip) -> list[PrefixScores]:
        if not self._tested:
            try_clip(self.scorer, clip, console=self.console)
            self._tested = True
        size = describe_size(self.scorer, clip)
        if size not in self._shown:
            self._shown.add(size)
            write_sizes(self.waiting, self._shown)  # before any score that it belongs to
        return score_clip(clip, self.scorer, ["none"], self.key.prefix_count)

    def _say(self, episode: int, opinion: Opinion) -> None:
        if self.opinions.get(episode) == opinion:
            return
        self.opinions[episode] = opinion
        self._status.update("waiting for an episode")
        self.console.print(
            f"episode {episode:<4} {opinion.word:<12} {opinion.reason}", style=_STYLES[opinion.word]
        )
        if self.config.sound:
            for _ in range(_RINGS[opinion.word]):
                self.console.bell()

    def _settle(self, *, score: bool) -> bool:
        """Bring label's store up to date with a dataset that is closed; False where it is not."""
        try:
            source = open_source(repo_id=self.config.repo_id, root=self.root, revision=None)
            assert source.fingerprints  # reads all of it
        except UserError as error:
            self._say_later([f"waiting: {error}"])
            return False
        load = (lambda: self.scorer) if score else None
        self.settled = settle(
            source, self.config, self.key, self.output, load=load, console=self.console
        )
        if isinstance(self._scorer, ConcurrentScorer):
            self._scorer = None  # it was closed
        self.failed |= self.settled.outcome.failed
        for episode, scores in sorted(self.settled.scores.items()):
            self.failed.pop(episode, None)
            task = " / ".join(dict.fromkeys(part.segment.instruction for part in scores))
            self._say(episode, judge_episode(scores, self.lines.of(task)))
        self.later = {
            episode: "it was not scored"
            for episode in range(self.total)
            if episode not in self.opinions and episode not in self.failed
        }
        return True
