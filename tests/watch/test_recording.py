"""What the files of a recorder that is not done say, without a VLM."""

import json
from pathlib import Path

import pytest
from recorder import CAMERA, FPS, TASK, Recorder

from lerobot_topreward.errors import UserError
from lerobot_topreward.watch.notes import Marks, open_marks
from lerobot_topreward.watch.recording import (
    BEGINNING,
    Mark,
    NotYetError,
    Span,
    Videos,
    is_closed,
    read_task,
    read_totals,
)


def test_episodes_are_found_before_the_files_are_closed(tmp_path: Path) -> None:
    root = tmp_path / "recorded"
    recorder, marks = Recorder(root), open_marks(tmp_path / "notes/marks.json")
    assert read_totals(root).total_episodes == 0
    for i, length in enumerate((7, 5)):
        recorder.save(length, seed=i)
        info = read_totals(root)
        assert marks.add(i + 1, Mark(info.total_frames, info.total_tasks))
        assert not is_closed(root)
    span, before, after = marks.span_of(1)
    assert (span, before, after) == (Span(7, 5), Mark(7, 1), Mark(12, 1))
    assert read_task(root, before, after, given=None) == TASK
    videos = Videos(root, CAMERA)
    place = videos.locate(read_totals(root), span)
    assert place.start == 7 / FPS
    content = place.path.read_bytes()
    place.path.write_bytes(content[:100])  # while it is being copied
    with pytest.raises(NotYetError, match="the videos hold 0 frames, and the dataset 12"):
        videos.locate(read_totals(root), span)
    recorder.close()
    assert is_closed(root)
    assert open_marks(marks.path).by_episodes == marks.by_episodes


def test_totals_that_cannot_be_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "recorded"
    Recorder(root).close()
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for totals in ((10**9, 10**9), (3, 2)):
        changed = {"total_episodes": totals[0], "total_frames": totals[1]}
        path.write_text(json.dumps(info | changed))
        with pytest.raises(UserError, match="promises"):
            read_totals(root)


def test_another_dataset_is_noticed(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks.json", {0: BEGINNING})
    assert marks.add(0, BEGINNING)
    assert marks.add(2, Mark(20, 1))
    assert marks.add(2, Mark(20, 1))
    with pytest.raises(NotYetError, match="not seen"):
        marks.span_of(1)
    assert marks.add(3, Mark(25, 1))
    assert not marks.add(3, Mark(26, 1))  # other frames
    assert not marks.add(1, Mark(9, 1))  # fewer episodes
    assert not marks.add(5, Mark(11, 1))  # episodes without frames
    assert marks.by_episodes == {0: BEGINNING, 5: Mark(11, 1)}
    marks.forget()
    assert open_marks(marks.path).by_episodes == {0: BEGINNING}


def test_the_task_is_the_one_that_was_added(tmp_path: Path) -> None:
    root = tmp_path / "recorded"
    recorder = Recorder(root)
    recorder.save(3)
    recorder.save(3, "open the drawer")
    one, two = Mark(3, 1), Mark(6, 2)
    assert read_task(root, BEGINNING, one, given=None) == TASK
    assert read_task(root, one, two, given=TASK) == "open the drawer"
    assert read_task(root, two, two, given=TASK) == TASK
    for before, given, said in ((two, None, "one of 2 tasks"), (two, "x", "no task 'x'")):
        with pytest.raises(NotYetError, match=said):
            read_task(root, before, two, given=given)
    with pytest.raises(NotYetError, match="several tasks"):
        read_task(root, BEGINNING, two, given=None)
    (root / "meta/tasks.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotYetError, match="cannot be read"):
        read_task(root, one, two, given=None)
