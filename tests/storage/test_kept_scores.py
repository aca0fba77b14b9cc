"""What a run read of its shards is believed as long as they are the same files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from provenance import score_key

from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage import kept_scores
from lerobot_topreward.storage.kept_scores import keep_scores, recall_scores
from lerobot_topreward.storage.rows import CENSORED, SUCCESS
from lerobot_topreward.storage.store import Shard, Store

FPS = 10.0


def make_shard(episode: int, control: str = "none") -> Shard:
    cut = (Segment(episode, 0, 21, "stack"), Segment(episode, 21, 30, "sort"))
    asked = ("sort", "stack") if control == "contrast1" else None
    return Shard(cut, control, f"{episode:064d}", f"video {episode}", asked)


def write(store: Store, shard: Shard, *, more: tuple[str, ...] = (), value: float = -2) -> None:
    from lerobot_topreward.data.schedule import images_shown, prefix_lengths

    scores = []
    for segment in shard.segments:
        shown = store.key.sample(segment.length, fps=FPS)
        lengths = prefix_lengths(segment.length, shown, count=store.key.prefix_count)
        last = segment.start + shown[images_shown(lengths, shown) - 1]
        true = np.linspace(value - shard.episode - 1, value, len(lengths), dtype=np.float32)
        kinds = {"log_prob_success": np.float32, "true_censored": bool, "false_censored": bool}
        own = {name: np.zeros(len(lengths), kinds[name]) for name in more}
        scores.append(PrefixScores(segment, shard.control, lengths, last, true, true / 2, **own))
    store.write(shard, scores)


def open_again(store: Store) -> Store:
    again = Store(store.folder, store.key, FPS)
    recall_scores(again)
    return again


def refuse_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a shard is opened."""

    def read(*_: object) -> None:
        raise AssertionError("a shard was opened")

    monkeypatch.setattr(Store, "_read_file", read)


def require_equal(first: list[PrefixScores] | None, second: list[PrefixScores] | None) -> None:
    assert first is not None
    assert second is not None
    for one, other in zip(first, second, strict=True):
        for name in one.__slots__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)


SHARDS = [make_shard(i, control) for i in range(3) for control in ("none", "static", "contrast1")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "key", score_key(), fps=FPS)
    for shard in SHARDS:
        write(store, shard)
    return store


def keep(store: Store) -> Path:
    assert all(store.read(shard) for shard in SHARDS)
    keep_scores(store, SHARDS)
    return store.folder / "scores.parquet"


@pytest.mark.parametrize(
    "more", [(), (*SUCCESS.names,), (*CENSORED.names,), (*CENSORED.names, *SUCCESS.names)]
)
def test_no_shard_is_opened_again(
    tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "key", score_key(), fps=FPS)
    for shard in SHARDS:
        write(store, shard, more=more)
    keep(store)
    again = open_again(store)
    refuse_files(monkeypatch)
    for shard in SHARDS:
        require_equal(again.read(shard), store.read(shard))


def test_scores_of_several_kinds_are_read_from_their_shards(store: Store) -> None:
    write(store, SHARDS[0], more=tuple(SUCCESS.names))
    assert not keep(store).exists()


def test_what_is_current_is_not_written_again(store: Store) -> None:
    before = keep(store).stat().st_ino, keep(store).stat().st_mtime_ns
    again = open_again(store)
    path = keep(again)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    keep_scores(again, SHARDS[:2])
    assert len(open_again(store).known) == 2


def test_a_changed_shard_is_read(store: Store) -> None:
    keep(store)
    shard = SHARDS[3]
    path = store.folder / shard.name
    before = path.stat()
    write(store, shard, value=-3)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = open_again(store).read(shard)
    assert found is not None
    assert found[0].log_prob_true[-1] == -3


def test_a_shard_that_was_damaged_or_removed_is_not_believed(store: Store) -> None:
    keep(store)
    first, second = (store.folder / shard.name for shard in SHARDS[:2])
    before = first.stat()
    content = bytearray(first.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    first.write_bytes(content)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    second.unlink()
    again = open_again(store)
    assert again.read(SHARDS[0]) is None
    assert again.read(SHARDS[1]) is None
    assert again.read(SHARDS[2]) is not None


def test_another_episode_video_or_question_is_not_answered(store: Store) -> None:
    keep(store)
    again = open_again(store)
    cut = SHARDS[0].segments
    assert again.read(Shard(cut, "none", "f" * 64, "video 0")) is None
    assert again.read(Shard(cut, "none", f"{0:064d}", "video 1")) is None
    assert again.read(Shard(cut, "contrast1", f"{0:064d}", "video 0", ("x", "y"))) is None
    assert again.read(Shard(cut, "none", f"{0:064d}", None)) is not None  # its video is not here


def test_another_version_reads_shards(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store)
    monkeypatch.setattr(kept_scores, "_digest_code", lambda: "of another version")
    assert not open_again(store).known


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"topreward"])
    change(about)
    pq.write_table(table.replace_schema_metadata({"topreward": json.dumps(about)}), path)


def with_column(path: Path, name: str, value: float | None) -> None:
    table = pq.read_table(path)
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    values = [value, *table[name].to_pylist()[1:]]
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "flipped": lambda path: path.write_bytes(
        (b := path.read_bytes())[:60] + bytes([b[60] ^ 255]) + b[61:]
    ),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "no metadata": lambda path: pq.write_table(
        pq.read_table(path).replace_schema_metadata(None), path
    ),
    "fewer rows": lambda path: pq.write_table(pq.read_table(path).slice(1), path),
    "no shards": lambda path: rewrite(path, lambda about: about.pop("shards")),
    "shards in words": lambda path: rewrite(path, lambda about: about.update(shards="none")),
    "no stamp": lambda path: rewrite(path, lambda about: about["shards"][0].pop("stamp")),
    "stamp in words": lambda path: rewrite(
        path, lambda about: [each.update(stamp="now") for each in about["shards"]]
    ),
    "rows in words": lambda path: rewrite(
        path, lambda about: about["shards"][0].update(rows=["3", "4"])
    ),
    "a list for a name": lambda path: rewrite(
        path, lambda about: about["shards"][0].update(control=["none"])
    ),
    "too many rows": lambda path: rewrite(
        path, lambda about: about["shards"][-1].update(rows=[2**70, 1])
    ),
    "positive": lambda path: with_column(path, "log_prob_true", 1.0),
    "nan": lambda path: with_column(path, "log_prob_false", float("nan")),
    "null": lambda path: with_column(path, "frame_index", None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_read_from_the_shards(store: Store, damage: str) -> None:
    DAMAGE[damage](keep(store))
    again = open_again(store)
    fresh = Store(store.folder, store.key, FPS)
    for shard in SHARDS:
        require_equal(again.read(shard), fresh.read(shard))
    keep(fresh)
    assert len(open_again(store).known) == len(SHARDS)
