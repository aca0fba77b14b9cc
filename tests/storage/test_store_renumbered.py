"""Shards whose episodes have other numbers now."""

from pathlib import Path

import numpy as np
import pytest
from provenance import score_key

from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage.store import Shard, Store

FINGERPRINTS = ("a" * 64, "b" * 64, "c" * 64)


def segment(episode: int) -> Segment:
    return Segment(episode, 0, 4, "stack")


def write(store: Store, episode: int, *, fingerprint: str, control: str = "none") -> None:
    value = float(ord(fingerprint[0]))
    score = PrefixScores(
        segment=segment(episode),
        control=control,
        prefix_length=np.array([1, 4]),
        frame_index=np.array([0, 3]),
        log_prob_true=np.full(2, -value, dtype=np.float32),
        log_prob_false=np.full(2, -1, dtype=np.float32),
    )
    shard = Shard((segment(episode),), control, fingerprint, f"video {fingerprint[0]}")
    store.write(shard, [score])


def read(store: Store, episode: int, fingerprint: str, control: str = "none") -> float | None:
    found = store.read(Shard((segment(episode),), control, fingerprint, video=None))
    return None if found is None else float(found[0].log_prob_true[0])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "key", score_key(), fps=10)
    for episode, fingerprint in enumerate(FINGERPRINTS):
        write(store, episode, fingerprint=fingerprint)
    return store


@pytest.mark.parametrize("order", ["bca", "cab", "ba", "c", "aab", "xcb"])
def test_each_recording_keeps_its_score(store: Store, order: str) -> None:
    now = [letter * 64 for letter in order]
    write(store, 1, fingerprint=FINGERPRINTS[1], control="static")
    store.renumber(now, {})
    for episode, fingerprint in enumerate(now):
        expected = None if fingerprint[0] == "x" else -float(ord(fingerprint[0]))
        assert read(store, episode, fingerprint) == expected
        still = read(store, episode, fingerprint, "static")
        assert still == (expected if fingerprint[0] == "b" else None)
    names = sorted(path.name for path in store.folder.iterdir())
    store.renumber(now, {})
    assert sorted(path.name for path in store.folder.iterdir()) == names


def test_a_run_that_died_in_between_loses_nothing(store: Store) -> None:
    for episode in range(3):  # copied to numbers that nobody has, and then no more
        store.path(episode, "none").rename(store.path(7 + episode, "none"))
    store.renumber(FINGERPRINTS, {})
    assert [read(store, e, fingerprint) for e, fingerprint in enumerate(FINGERPRINTS)] == [
        -97,
        -98,
        -99,
    ]


def test_another_video_is_not_taken_for_it(store: Store) -> None:
    store.renumber(FINGERPRINTS[::-1], {0: "video c", 2: "another"})
    assert read(store, 0, FINGERPRINTS[2]) == -99
    assert read(store, 2, FINGERPRINTS[0]) is None


def test_damaged_shards_are_left_out(store: Store) -> None:
    store.path(2, "none").write_bytes(b"PAR1")
    (store.folder / "episode_mine.parquet").write_text("a note")
    store.renumber(FINGERPRINTS[::-1], {})
    assert read(store, 0, FINGERPRINTS[2]) is None
    assert read(store, 2, FINGERPRINTS[0]) == -97
