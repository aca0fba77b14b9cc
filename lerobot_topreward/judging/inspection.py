"""A recording as a whole: every episode is checked by itself, then against the others."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt64

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.judging.coverage import (
    Coverage,
    measure_coverage,
    note_coverage,
)
from lerobot_topreward.judging.defects import CHECKS, Check
from lerobot_topreward.judging.motion import (
    LONGEST_LAG_S,
    MOTION_METRICS,
    Motion,
    longest_run,
    measure_motion,
    task_z,
)
from lerobot_topreward.judging.profile import LEAST_EPISODES, Profile, measure_profile
from lerobot_topreward.records import EpisodeRecording, Finding, Signals

Recordings = Iterable[tuple[int, EpisodeRecording | EpisodeError]]

MAX_Z = 3.5  # Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers
_FROZEN_S = 0.5  # of repeated frames; shorter ones are a slow sensor
_RARE = 3.0  # times the 90th percentile of the longest runs: what is longer is not usual here
_JUMP = 3.0  # times the 95th percentile of steps: a recording that froze resumes so
_AGREE = 0.8  # correlation that commands and the readings that follow them reach at their best lag
_OFF_S, _FAR_OFF_S = 0.15, 0.3  # from the usual lag: suspect, broken
_SATURATED = 0.15  # of the frames at which the arm moves
_LEAST_COPY_S = 1.0  # that equal frames have to last
_PLACEHOLDERS = {
    *("test", "testing", "todo", "tbd", "task", "n/a", "na", "none", "null", "asdf", "foo", "bar"),
    *("xxx", "dummy", "default", "untitled", "example", "placeholder", "single_task", "new task"),
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a recording, and the numbers that it was found by."""

    findings: tuple[Finding, ...]  # of the dataset first, then by episode
    motions: Mapping[int, Motion]  # of the episodes that could be read
    tasks: Mapping[int, str]
    coverage: tuple[Coverage, ...]

    @property
    def broken(self) -> dict[int, list[Finding]]:
        """Episodes on which training would be wrong, and why."""
        broken: dict[int, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            if finding.level == "broken" and finding.episode_index is not None:
                broken[finding.episode_index].append(finding)
        return dict(broken)

    def describe_broken(self) -> dict[int, str]:
        """Say in a sentence what is broken in each of them."""
        return {
            episode: "; ".join(f"{found.defect}: {found.text}" for found in findings)
            for episode, findings in self.broken.items()
        }

    def with_findings(self, more: Iterable[Finding]) -> "Inspection":
        """Add findings: those of the dataset first, then by episode."""
        every = [*self.findings, *more]
        every.sort(key=lambda found: -1 if found.episode_index is None else found.episode_index)
        return replace(self, findings=tuple(every))


def inspect_recording(
    read: Callable[[], Recordings],
    signals: Signals,
    *,
    fps: float,
    checks: Sequence[Check] = CHECKS,
) -> Inspection:
    """Check every episode of a dataset.

    Args:
        read: gives every episode, or why it cannot be read; called twice, so that no more than one
            file is in memory.
        signals: what their values are.
        fps: the dataset's clock, Hz.
        checks: of single episodes, your own among them.
    """
    # Values of strangers overflow: what comes of it is inf or nan, which no limit calls wrong.
    with np.errstate(all="ignore"):
        recordings = (found for _, found in read() if not isinstance(found, EpisodeError))
        profile = measure_profile(recordings, signals, fps=fps)
        findings: list[Finding] = [*_find_unused(profile)]
        motions: dict[int, Motion] = {}
        tasks: dict[int, str] = {}
        hashes: dict[int, UInt64[np.ndarray, " frames"]] = {}
        starts: dict[int, np.ndarray] = {}
        for episode, recording in read():
            if isinstance(recording, EpisodeError):
                findings.append(Finding(episode, "broken", "unreadable", str(recording)))
                continue
            if len(recording.values) == 0:
                text = f"has no frames; meta/episodes says {recording.declared}"
                findings.append(Finding(episode, "broken", "missing frames", text))
                continue
            for check in checks:
                findings += check.find(recording, profile)
            motions[episode] = measure_motion(recording, profile)
            tasks[episode] = recording.task
            hashes[episode] = hash_frames(recording)
            starts[episode] = recording.values[0].copy()  # a view would keep the whole episode
        coverage = measure_coverage(starts, tasks, profile)
        findings += find_frozen(motions, fps=fps)
        findings += find_out_of_step(motions, profile)
        findings += find_saturated(motions)
        findings += find_outliers(motions)
        findings += find_bad_tasks(tasks)
        findings += find_copies(hashes, least=profile.frames(_LEAST_COPY_S))
        findings += [note_coverage(found) for found in coverage]
        return Inspection((), motions, tasks, tuple(coverage)).with_findings(findings)


def _find_unused(profile: Profile) -> Iterator[Finding]:
    """Note the dimensions that move in no episode."""
    chosen = profile.signals.commands + profile.signals.readings
    unused = [profile.signals.names[i] for i in chosen if not profile.moves[i]]
    if unused and profile.episodes:
        more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        text = (
            f"{', '.join(unused[:4])}{more} {'move' if len(unused) > 1 else 'moves'} in no episode"
        )
        yield Finding(None, "note", "unused dimension", text)


def find_frozen(motions: Mapping[int, Motion], *, fps: float) -> Iterator[Finding]:
    """Find recordings in which every number stands still, bit for bit, as no sensor does.

    Encoders of an arm at rest can repeat, too. So a run is broken where it ends in a jump, and
    suspect where such runs are rare in the dataset.
    """
    lengths = {e: m.repeats[1] - m.repeats[0] + 1 for e, m in motions.items() if m.repeats}
    every = [lengths.get(episode, 0) for episode in motions]
    usual = float(np.quantile(every, 0.9)) if len(every) >= LEAST_EPISODES else np.inf
    for episode, frames in lengths.items():
        motion = motions[episode]
        text = f"no command and no reading changes a bit for {frames / fps:.2f} s"
        if frames < max(3, _FROZEN_S * fps):
            continue
        if motion.resumes > _JUMP:
            text = f"{text}, then all jump on, {motion.resumes:.1f} times as far as in a fast step"
            yield Finding(episode, "broken", "frozen recording", text, motion.repeats)
        elif frames > _RARE * usual:
            text = f"{text}; usual here is {usual / fps:.2f} s at most"
            yield Finding(episode, "suspect", "frozen recording", text, motion.repeats)


def find_out_of_step(motions: Mapping[int, Motion], profile: Profile) -> Iterator[Finding]:
    """Find episodes whose readings follow their commands earlier or later than usual."""
    known = {e: m.agreement for e, m in motions.items() if np.isfinite(m.agreement).any()}
    if not known:
        return
    reach = profile.frames(LONGEST_LAG_S)
    best = {episode: int(np.nanargmax(agreement)) for episode, agreement in known.items()}
    usual = int(np.median([*best.values()]))
    if np.median([np.nanmax(agreement) for agreement in known.values()]) < _AGREE:
        text = (
            "commands are no targets of the readings (they hardly correlate), so lag is not judged"
        )
        yield Finding(None, "note", "not compared", text)
        return
    lag = (usual - reach) / profile.fps
    if not -0.5 / profile.fps <= lag < _FAR_OFF_S:
        how = f"follow their commands by {lag:.2f} s" if lag > 0 else f"lead by {-lag:.2f} s"
        yield Finding(None, "suspect", "out of step", f"in most episodes readings {how}")
    for episode, agreement in known.items():
        away = (best[episode] - usual) / profile.fps
        highest = float(np.nanmax(agreement))
        # Of an episode that hardly moves, every lag fits: only a much better fit says something.
        better = 1 - highest < 0.5 * (1 - np.nan_to_num(agreement[usual], nan=-1.0))
        if abs(away) >= _OFF_S and better and highest >= _AGREE:
            text = (
                f"readings follow their commands by {(best[episode] - reach) / profile.fps:.2f} s; "
                f"usual here is {lag:.2f} s"
            )
            sure = abs(away) >= _FAR_OFF_S and len(known) >= LEAST_EPISODES
            level = "broken" if sure else "suspect"
            yield Finding(episode, level, "out of step", text)
        elif highest < _AGREE:
            text = f"commands and readings correlate by {highest:.2f} at best; at least {_AGREE} is usual"
            yield Finding(episode, "suspect", "out of step", text)


def find_saturated(motions: Mapping[int, Motion]) -> Iterator[Finding]:
    """Find episodes whose commands are cut off at a limit more than elsewhere in the task."""
    for members in group_by_task(motions).values():
        usual = float(np.median([np.nan_to_num(motion.saturated) for motion in members]))
        for motion in members:
            if motion.saturated >= max(_SATURATED, 2 * usual):
                text = (
                    f"a command is cut off at a limit in {motion.saturated:.0%} of the frames at which "
                    f"the arm moves; {usual:.0%} is usual in this task"
                )
                yield Finding(motion.episode_index, "suspect", "saturated command", text)


def find_outliers(motions: Mapping[int, Motion]) -> Iterator[Finding]:
    """Find episodes that move unlike the others of their task, by robust z."""
    few = Counter()
    for task, members in group_by_task(motions).items():
        if len(members) < LEAST_EPISODES:
            few[task] += len(members)
            continue
        far: dict[tuple[int, str], Finding] = {}  # one of each defect per episode
        for metric in MOTION_METRICS:
            values = [getattr(motion, metric.key) for motion in members]
            median = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
            for motion, value, z in zip(members, values, task_z(values), strict=True):
                far_off = (z if metric.worst == "high" else abs(z)) > MAX_Z
                if not far_off or value < metric.least:
                    continue
                text = (
                    f"{metric.label} {value:.{metric.digits}f}{metric.unit}; the median of its task "
                    f"is {median:.{metric.digits}f} (z {z:.1f})"
                )
                frames = longest_run(motion.idle) if metric.key == "longest_idle" else None
                finding = Finding(motion.episode_index, "suspect", metric.defect, text, frames)
                far.setdefault((motion.episode_index, metric.defect), finding)
        yield from far.values()
    if few:
        text = (
            f"{len(few)} tasks have under {LEAST_EPISODES} episodes ({few.total()} together), too few "
            "to say which of them move unlike the others"
        )
        yield Finding(None, "note", "not compared", text)


def find_bad_tasks(tasks: Mapping[int, str]) -> Iterator[Finding]:
    """Find tasks that say nothing, and two spellings of one task."""
    for episode, task in tasks.items():
        words = task.strip().casefold().strip(".!?\"'")
        if not all(part.strip() for part in task.split(" / ")):  # as the reader joins several
            how = "some of its frames have" if words else "it has"
            yield Finding(episode, "broken", "no task", f"{how} no task")
        elif (
            words in _PLACEHOLDERS
            or (words.isascii() and len(words) < 3)  # two Chinese characters can be a task
            or not re.search(r"[^\W\d_]", words)
        ):
            text = f"the task is {task!r}, which says nothing"
            yield Finding(episode, "suspect", "placeholder task", text)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for task in tasks.values():
        spellings[" ".join(re.findall(r"\w+", task.casefold()))][task] += 1
    for words, found in spellings.items():
        if words and len(found) > 1:
            shown = ", ".join(f"{text!r} ({count})" for text, count in found.most_common(3))
            yield Finding(None, "suspect", "task spelled twice", f"one task is spelled {shown}")


def find_copies(
    hashes: Mapping[int, UInt64[np.ndarray, " frames"]], *, least: int
) -> Iterator[Finding]:
    """Find episodes that equal another one, or that begin with it.

    Args:
        hashes: of every frame's values, by episode.
        least: frames; shorter episodes are not compared.
    """
    alike: dict[bytes, list[int]] = defaultdict(list)
    for episode, frames in hashes.items():
        if len(frames) >= least and len(np.unique(frames)) > 1:
            alike[frames[:least].tobytes()].append(episode)
    for group in alike.values():
        # The shortest first: a longer one can only begin with a shorter one.
        group.sort(key=lambda episode: (len(hashes[episode]), episode))
        for i, episode in enumerate(group):
            for shorter in group[:i]:
                own, other = hashes[episode], hashes[shorter]
                if np.array_equal(own[: len(other)], other):
                    equal = len(own) == len(other)
                    how = "equals" if equal else f"begins with the {len(other)} frames of"
                    text = f"{how} episode {shorter}"
                    yield Finding(episode, "suspect", "copy", text, (0, len(other) - 1))
                    break


def hash_frames(recording: EpisodeRecording) -> UInt64[np.ndarray, " frames"]:
    """Hash the values of every frame: 8 bytes each, whatever was recorded."""
    values = np.ascontiguousarray(recording.values.astype(np.float32)).view(np.uint32)
    weights = np.random.default_rng(0).integers(2**63, size=values.shape[1], dtype=np.uint64) | 1
    return (values.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)


def group_by_task(motions: Mapping[int, Motion]) -> dict[str, list[Motion]]:
    """Group the motions of episodes by their task."""
    groups: dict[str, list[Motion]] = defaultdict(list)
    for motion in motions.values():
        groups[motion.task].append(motion)
    return dict(groups)
