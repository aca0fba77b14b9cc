"""The Rerun recording that the report can leave beside its page."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from report_pages import CAMERA

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import FrameRewards, Segment
from lerobot_topreward.report.media import Footage
from lerobot_topreward.report.recording import write_recording

RecordDataset = Callable[..., Path]


@pytest.mark.parametrize("video", [True, False])
def test_a_recording_holds_every_frame_of_every_episode(
    record_dataset: RecordDataset, tmp_path: Path, video: bool
) -> None:
    rerun = pytest.importorskip("rerun.experimental")
    root = record_dataset(lengths=(12, 9), cameras=("front",), video=video)
    source = open_source(repo_id=None, root=root, revision=None)
    parts = {episode: [Segment(episode, 0, n, "")] for episode, n in enumerate((12, 9))}
    ramp = np.concatenate([np.linspace(0, 1, n, dtype=np.float32) for n in (12, 9)])
    places = source.frames.index, source.frames.episode_index, source.frames.frame_index
    rewards = FrameRewards(*places, ramp >= 0, ramp, ramp, ramp, ramp, ramp > 0)
    path = tmp_path / "all.rrd"
    write_recording(path, Footage(source, CAMERA, parts), rewards, name="cups", sample_fps=2)
    chunks = rerun.RrdReader(path).store().stream()
    rows: dict[str, int] = defaultdict(int)
    for chunk in chunks:
        rows[chunk.entity_path] += chunk.num_rows
    for episode, frames in enumerate((12, 9)):
        entity = f"/episode_{episode:06d}"
        assert rows[f"{entity}/progress"] == rows[f"{entity}/advantage"] == frames
        assert rows[f"{entity}/camera"] == (frames if video else 4 - episode)
    assert rows["/videos/0"] == video
