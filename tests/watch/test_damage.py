"""A recording that is being written, or was tampered with, and what a stranger left of a watch."""

import shutil
from pathlib import Path

import pytest
from recorder import Recorder, script
from watching import Watching


def test_what_is_half_written_is_read_later(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    info = watching.root / "meta/info.json"
    video = watching.root / "videos/observation.images.front/chunk-000/file-000.mp4"
    kept: dict[Path, bytes] = {}

    def cut(path: Path, share: float) -> None:
        kept[path] = path.read_bytes()
        path.write_bytes(kept[path][: int(share * len(kept[path]))])

    def restore() -> None:
        for path, content in kept.items():
            path.write_bytes(content)
        kept.clear()

    def save_and_cut(path: Path, share: float) -> None:
        recorder.save(12)
        cut(path, share)

    found = watching.run(
        script(
            lambda: save_and_cut(info, 0.5),
            lambda: None,
            restore,
            lambda: save_and_cut(video, 0.9),
            lambda: None,
            restore,
        )
    )
    assert "waiting: " in watching.said
    assert sorted(found.opinions) == [0, 1]
    assert found.failed == {}


def test_a_dataset_that_goes_is_waited_for(watching: Watching) -> None:
    recorders = [Recorder(watching.root)]

    def begin_again() -> None:
        recorders.append(Recorder(watching.root))

    found = watching.run(
        script(
            lambda: recorders[0].save(12),
            lambda: shutil.rmtree(watching.root),
            lambda: None,
            begin_again,
            lambda: recorders[1].save(9, seed=1),
        )
    )
    assert "waiting: " in watching.said
    assert sorted(found.opinions) == [0]
    assert found.total == 1


@pytest.mark.parametrize("damage", ["marks", "link", "shard", "other"])
def test_what_a_stranger_left_is_not_believed(
    watching: Watching, tmp_path: Path, asked: list[int], damage: str
) -> None:
    recorder = Recorder(watching.root)
    watching.run(script(lambda: recorder.save(12), lambda: recorder.save(9, seed=1)))
    (marks,) = watching.output.glob("topreward/*/watch/marks.json")
    shard = marks.with_name("episode_000001.parquet")
    if damage == "marks":
        for text in ("{", "[]", '{"format": 1, "marks": {"0": [0, 0], "1": [-5, 1]}}', "[" * 10**5):
            marks.write_text(text)
            watching.run(script(lambda: None))
        marks.write_text('{"format": 1, "marks": {"1": [10, 1], "x": 1}}')
    elif damage == "link":
        shard.unlink()
        shard.symlink_to(tmp_path)
    elif damage == "shard":
        shard.write_bytes(b"PAR1" * 100)
    else:
        shutil.copy(marks.with_name("episode_000000.parquet"), shard)
    found = watching.run(script(lambda: None, recorder.close))
    assert sorted(found.opinions) == [0, 1]
    assert asked == ([0, 1] if damage == "marks" else [0, 1, 1])
