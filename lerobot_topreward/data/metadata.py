"""What ``meta/`` says of a dataset: LeRobot's own record of it, without what takes seconds to import."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A dataset's description, its tasks and its table of episodes."""

    root: Path  # the folder with ``meta/``
    repo_id: str
    fps: float  # the dataset's clock, Hz; an int where info.json has one
    features: Mapping[str, dict[str, Any]]
    total_episodes: int
    total_frames: int
    data_path: str
    video_path: str | None
    tasks: Mapping[int, str]  # by ``task_index``
    episodes: pa.Table  # one row each, by index, without statistics

    @classmethod
    def of(cls, opened: "LeRobotDatasetMetadata") -> "Metadata":
        """Take over what LeRobot has loaded."""
        assert opened.episodes is not None  # LeRobot leaves it out only when there are none
        episodes: Any = opened.episodes.with_format("arrow")[:]  # a pyarrow.Table
        numbers = {} if opened.tasks is None else opened.tasks["task_index"]
        return cls(
            root=opened.root,
            repo_id=opened.repo_id,
            fps=opened.fps,
            features=opened.features,
            total_episodes=opened.total_episodes,
            total_frames=opened.total_frames,
            data_path=opened.data_path,
            video_path=opened.video_path,
            tasks={int(i): text for text, i in numbers.items() if isinstance(text, str)},
            episodes=episodes,
        )

    @property
    def camera_keys(self) -> list[str]:
        """The features that are pictures, in videos or in ``data/``."""
        return [key for key, item in self.features.items() if item["dtype"] in ("video", "image")]

    @property
    def video_keys(self) -> list[str]:
        """The cameras whose pictures are in videos."""
        return [key for key, item in self.features.items() if item["dtype"] == "video"]

    @property
    def depth_keys(self) -> list[str]:
        """The cameras that show distances, by the marks that LeRobot sets and has set."""
        found = []
        for key, item in self.features.items():
            info, older = item.get("info") or {}, item.get("video_info") or {}
            marks = (
                info.get("is_depth_map"),
                info.get("video.is_depth_map"),
                older.get("video.is_depth_map"),
            )
            if any(marks):
                found.append(key)
        return found

    def name_files(self, camera: str | None) -> list[str]:
        """Name the file in ``data/``, or the video of a camera, of every episode."""
        kind = "data" if camera is None else f"videos/{camera}"
        template = str(self.data_path if camera is None else self.video_path)
        places = (self.episodes[f"{kind}/{part}_index"].to_pylist() for part in ("chunk", "file"))
        return [
            template.format(video_key=camera, chunk_index=chunk, file_index=file)
            for chunk, file in zip(*places, strict=True)
        ]
