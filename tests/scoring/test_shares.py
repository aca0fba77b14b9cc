"""The records of shares: what other processes read of them, whoever wrote them."""

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from lerobot_topreward.errors import UserError
from lerobot_topreward.scoring.launch import shares
from lerobot_topreward.scoring.launch.config import Share
from lerobot_topreward.scoring.launch.shares import (
    ShareProgress,
    claim_share,
    read_record,
    read_records,
    remove_records,
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    with claim_share(tmp_path, Share(1, 3)) as record:
        with ShareProgress(Console(quiet=True), episodes=2, record=record) as progress:
            progress.episode_done(20)
            progress.episode_done(11)
        record.shown.add("96x64 of 96x64")
        record.failed[12] = "it has no video"
        record.scored, record.interrupted, record.error = 1, True, "the disk is full"
        record.write()
    assert read_records(tmp_path) == [record]
    assert (record.done, record.frames) == (2, 31)
    remove_records(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sizes_of_earlier_scores_are_kept_and_nothing_else(tmp_path: Path) -> None:
    with claim_share(tmp_path, Share(0, 2)) as record:
        record.shown.add("96x64 of 96x64")
        record.failed[1] = "no video"
        record.write()
    with claim_share(tmp_path, Share(0, 2)) as record:
        assert record.shown == {"96x64 of 96x64"}
        assert record.failed == {}


def test_a_share_is_scored_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_WAIT_S", 0)
    with FileLock(tmp_path / "share_1_of_2.lock"):
        with pytest.raises(UserError, match="another process scores share 1 of 2"):
            claim_share(tmp_path, Share(0, 2)).__enter__()
        with claim_share(tmp_path, Share(1, 2)):
            pass
        with pytest.raises(UserError, match="share 1 of 3 cannot be scored now"):
            claim_share(tmp_path, Share(0, 3)).__enter__()


@pytest.mark.parametrize(
    "strange",
    [
        {"done": -1, "frames": True, "scored": "7", "interrupted": 1},
        {"shown": "96x64", "failed": ["no"], "error": 7},
        {"shown": [1, None, {}], "failed": {"-1": "a", "x": "b", "9" * 5000: "c", "²": "d"}},
        {},
    ],
)
def test_strange_values_are_left_out(tmp_path: Path, strange: dict[str, Any]) -> None:
    path = tmp_path / "share_1_of_1.json"
    path.write_text(json.dumps(strange))
    record = read_record(path)
    assert (record.done, record.frames, record.scored, record.interrupted) == (0, 0, 0, False)
    assert (record.shown, record.failed, record.error) == (set(), {}, None)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\0"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "share_1_of_1.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"share_1_of_1\.json"):
        read_records(tmp_path)


def test_a_folder_in_the_place_of_a_record_goes_and_a_link_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "share_1_of_2.json").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (tmp_path / "share_2_of_2.json").symlink_to(outside)
    with claim_share(tmp_path, Share(1, 2)) as record:
        record.write()
    assert outside.read_text() == "{}"
    remove_records(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "share_1_of_1.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot be locked"):
        claim_share(tmp_path, Share(0, 1)).__enter__()
    assert not (tmp_path / "elsewhere").exists()
