"""Every defect is found where it is put, at its level, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from recordings import FPS, SIGNALS, inspect, make_recording, make_recordings, of_episode

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.judging.defects import DEFECTS, Check, ClockCheck
from lerobot_topreward.judging.inspection import find_copies, hash_frames, inspect_recording
from lerobot_topreward.judging.profile import measure_profile
from lerobot_topreward.records import EpisodeRecording, Signals

BAD = 4  # the episode that gets a defect
Change = Callable[[EpisodeRecording], EpisodeRecording]


def with_values(change: Callable[[np.ndarray], object]) -> Change:
    def apply(recording: EpisodeRecording) -> EpisodeRecording:
        values = recording.values.copy()
        change(values)
        return replace(recording, values=values)

    return apply


def with_time(change: Callable[[np.ndarray], object]) -> Change:
    def apply(recording: EpisodeRecording) -> EpisodeRecording:
        timestamp = recording.timestamp.copy()
        change(timestamp)
        return replace(recording, timestamp=timestamp)

    return apply


def shift_commands(values: np.ndarray, frames: int) -> None:
    values[:-frames, :6] = values[frames:, :6].copy()
    values[-frames:, :6] = values[-1, :6]


def freeze(values: np.ndarray) -> None:
    values[50:72] = values[50]


def clip(values: np.ndarray) -> None:
    np.minimum(values[:, 1], np.quantile(values[:, 1], 0.7), out=values[:, 1])


def hold(values: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (70, 12))
    values[60:130] = values[60] + noise


def die(values: np.ndarray) -> None:
    values[:, 7] = values[0, 7]


def jump(values: np.ndarray) -> None:
    values[80, 8] += 90


def put(value: float) -> Change:
    def change(values: np.ndarray) -> None:
        values[66, 8] = value

    return with_values(change)


def close_gripper(values: np.ndarray) -> None:
    values[:, [5, 11]] = 0.0


def repeat_time(timestamp: np.ndarray) -> None:
    timestamp[80] = timestamp[79]


def turn_back(timestamp: np.ndarray) -> None:
    timestamp[80] = 0.0


def leave_gap(timestamp: np.ndarray) -> None:
    timestamp[80:] += 1 / FPS


def slow_down(timestamp: np.ndarray) -> None:
    timestamp *= 1.2


def lose_time(timestamp: np.ndarray) -> None:
    timestamp[80] = np.inf


def with_pictures(recording: EpisodeRecording, more: float) -> EpisodeRecording:
    """A video of so many more frames than there are rows."""
    seconds = (len(recording.timestamp) + more) / FPS
    return replace(recording, video_s={"observation.images.front": seconds})


DEFECTS_PUT_IN: dict[str, tuple[Change, str, str]] = {
    "gap": (with_time(leave_gap), "broken", "gap in time"),
    "repeat": (with_time(repeat_time), "broken", "time repeats"),
    "backwards": (with_time(turn_back), "broken", "time repeats"),
    "slow clock": (with_time(slow_down), "broken", "wrong frame rate"),
    "infinite time": (with_time(lose_time), "broken", "not finite"),
    "short": (lambda r: replace(r, declared=r.declared + 1), "broken", "missing frames"),
    "renumbered": (lambda r: replace(r, frame_index=r.frame_index + 1), "broken", "missing frames"),
    "a few pictures": (lambda r: with_pictures(r, -2), "suspect", "short video"),
    "many pictures": (lambda r: with_pictures(r, -20), "broken", "short video"),
    "nan": (put(np.nan), "broken", "not finite"),
    "infinite": (put(np.inf), "broken", "not finite"),
    "huge": (put(1e308), "suspect", "jump"),
    "frozen": (with_values(freeze), "broken", "frozen recording"),
    "dead": (with_values(die), "broken", "dead joint"),
    "early": (with_values(lambda v: shift_commands(v, 10)), "broken", "out of step"),
    "a little early": (with_values(lambda v: shift_commands(v, 4)), "suspect", "out of step"),
    "jump": (with_values(jump), "suspect", "jump"),
    "clipped": (with_values(clip), "suspect", "saturated command"),
    "held": (with_values(hold), "suspect", "idle"),
    "no grasp": (with_values(close_gripper), "suspect", "gripper unused"),
    "no task": (lambda r: replace(r, task="  "), "broken", "no task"),
    "test": (lambda r: replace(r, task="Test."), "suspect", "placeholder task"),
    "letters": (lambda r: replace(r, task="ab"), "suspect", "placeholder task"),
    "digits": (lambda r: replace(r, task="12345"), "suspect", "placeholder task"),
}


@pytest.mark.parametrize("name", DEFECTS_PUT_IN)
def test_a_defect_is_found_at_its_level_and_in_no_other_episode(name: str) -> None:
    change, level, defect = DEFECTS_PUT_IN[name]
    recordings = make_recordings()
    recordings[BAD] = change(recordings[BAD])
    found = inspect(recordings)
    assert (level, defect) in {(f.level, f.defect) for f in of_episode(found, BAD)}
    assert defect in DEFECTS
    assert not [
        f for f in found.findings if f.level == "broken" and f.episode_index not in (BAD, None)
    ]
    (shown,) = [f for f in of_episode(found, BAD) if f.defect == defect][:1]
    assert shown.frames is None or 0 <= shown.frames[0] <= shown.frames[1] < 170


@pytest.mark.parametrize("more", [0, -1, 5, float("nan"), float("inf")])
def test_clean_recordings_have_nothing_but_notes(more: float) -> None:
    """Some recorders give the time of the last frame as the end of a video."""
    found = inspect([with_pictures(recording, more) for recording in make_recordings(20)])
    assert [f for f in found.findings if f.level != "note"] == []
    assert found.broken == {}


def test_noise_and_slow_starts_are_not_frozen() -> None:
    """Encoders of an arm at rest repeat: every episode begins with a second of equal frames."""
    recordings = make_recordings()
    for recording in recordings:
        recording.values[:21] = recording.values[21]
    assert not [f for f in inspect(recordings).findings if f.defect == "frozen recording"]


def test_a_half_second_early_everywhere_is_said_once() -> None:
    recordings = make_recordings()
    for recording in recordings:
        shift_commands(recording.values, 10)
    found = [f for f in inspect(recordings).findings if f.defect == "out of step"]
    assert [f.episode_index for f in found] == [None]
    assert "0.60 s" in found[0].text


def test_commands_that_are_differences_are_not_compared_with_readings() -> None:
    recordings = make_recordings()
    for recording in recordings:
        steps = np.diff(recording.values[:, :6], axis=0, append=recording.values[-1:, :6])
        recording.values[:, :6] = steps
    found = inspect(recordings).findings
    assert not [f for f in found if f.defect in ("out of step", "dead joint", "jump")]


def test_sizes_may_differ_and_a_joint_that_never_moves_is_a_note() -> None:
    signals = Signals(SIGNALS.names[:9], tuple(range(3)), tuple(range(3, 9)), (), ())
    recordings = [replace(r, values=r.values[:, 3:].copy()) for r in make_recordings()]
    for recording in recordings:
        recording.values[:, 4] = 7.0
    found = inspect(recordings, signals).findings
    assert {f.defect for f in found} == {"unused dimension", "coverage"}
    (unused,) = [f for f in found if f.defect == "unused dimension"]
    assert unused.text == "action.roll moves in no episode"


@pytest.mark.parametrize("columns", [0, 6])
def test_recordings_without_numbers_are_checked_for_time(columns: int) -> None:
    names = SIGNALS.names[:columns]
    signals = Signals(names, tuple(range(columns)), (), (), ())
    recordings = [replace(r, values=r.values[:, :columns].copy()) for r in make_recordings()]
    recordings[BAD].timestamp[10] = recordings[BAD].timestamp[9]
    found = inspect(recordings, signals)
    assert [(f.episode_index, f.defect) for f in found.findings if f.level == "broken"] == [
        (BAD, "time repeats")
    ]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_one_short_episode_is_no_error(frames: int) -> None:
    found = inspect([make_recording(0, frames=frames)])
    assert found.broken == {}
    assert {f.defect for f in found.findings} <= {"not compared", "unused dimension"}


def test_no_frames_and_unreadable_episodes_are_broken() -> None:
    recordings = make_recordings(3)
    empty = replace(recordings[1], timestamp=np.empty(0), frame_index=np.empty(0, dtype=np.int64),
                    values=np.empty((0, 12)))  # fmt: skip

    def read():
        return iter([(0, recordings[0]), (1, empty), (2, EpisodeError("file is cut"))])

    found = inspect_recording(read, SIGNALS, fps=FPS)
    assert {e: f[0].defect for e, f in found.broken.items()} == {
        1: "missing frames", 2: "unreadable",
    }  # fmt: skip


def test_episodes_that_are_all_not_finite_end_in_sentences() -> None:
    recordings = make_recordings(9)
    for recording in recordings:
        recording.values[:] = np.nan
    found = inspect(recordings)
    assert len(found.broken) == 9
    assert {f.defect for f in found.findings if f.level == "broken"} == {"not finite"}


def test_outliers_are_judged_within_their_task_and_not_below_eight_episodes() -> None:
    recordings = [*make_recordings(8), *[make_recording(8 + i, task="fold") for i in range(4)]]
    long = make_recording(3, frames=400)
    recordings[3] = long
    recordings[10] = make_recording(10, frames=400, task="fold")
    found = inspect(recordings).findings
    lengths = [f for f in found if f.defect == "odd length"]
    assert [f.episode_index for f in lengths] == [3]
    assert "20.0 s" in lengths[0].text
    (few,) = [f for f in found if f.defect == "not compared"]
    assert "1 tasks have under 8 episodes (4 together)" in few.text


def test_spellings_of_one_task_are_named_with_their_numbers() -> None:
    recordings = make_recordings(10)
    recordings[2] = replace(recordings[2], task="Pick up  the cube.")
    (found,) = [f for f in inspect(recordings).findings if f.defect == "task spelled twice"]
    assert "'pick up the cube' (9), 'Pick up  the cube.' (1)" in found.text


def test_two_characters_can_be_a_task() -> None:
    recordings = [replace(recording, task="\u62ff\u676f") for recording in make_recordings(3)]
    assert not [f for f in inspect(recordings).findings if f.defect == "placeholder task"]


def test_copies_are_found_whole_and_at_the_beginning() -> None:
    recordings = make_recordings(6)
    recordings[4] = replace(recordings[1], episode_index=4)
    longer = np.concatenate([recordings[2].values, recordings[3].values[:40]])
    frames = len(longer)
    recordings[5] = EpisodeRecording(
        5, "pick up the cube", frames, np.arange(frames) / FPS, np.arange(frames), longer
    )
    found = [f for f in inspect(recordings).findings if f.defect == "copy"]
    assert [(f.episode_index, f.text) for f in found] == [
        (4, "equals episode 1"),
        (5, f"begins with the {len(recordings[2].values)} frames of episode 2"),
    ]
    hashes = {r.episode_index: hash_frames(r) for r in recordings}
    assert not [*find_copies(hashes, least=1000)]


def test_own_checks_are_called_with_arrays_and_profile() -> None:
    class Never:
        def find(self, recording, profile):
            assert profile.signals is SIGNALS
            assert recording.values.shape[1] == 12
            return []

    assert isinstance(Never(), Check)
    recordings = make_recordings(2)
    found = inspect_recording(
        lambda: iter([(r.episode_index, r) for r in recordings]),
        SIGNALS,
        fps=FPS,
        checks=[Never()],
    )
    assert found.broken == {}


def test_chunks_longer_than_an_episode() -> None:
    recordings = make_recordings(2)
    profile = measure_profile(recordings, SIGNALS, fps=FPS)
    found = [f for r in recordings for f in ClockCheck(chunk_size=152).find(r, profile)]
    assert [(f.episode_index, f.defect, f.text) for f in found] == [
        (0, "too short", "has 150 frames, fewer than a chunk of 152")
    ]
