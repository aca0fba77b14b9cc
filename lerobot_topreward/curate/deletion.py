"""LeRobot's own deletion of episodes, made to cost no more per episode than it must."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from lerobot.datasets import dataset_tools
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_EPISODES_PATH, EPISODES_DIR

from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.curate.trim import rewrite_in_place
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.errors import UserError

_READS_STATISTICS = "_load_episode_with_stats"  # LeRobot's own function


def delete_dropped(plan: Plan, folder: Path, *, name: str) -> None:
    """Make a dataset called `name` of the episodes that are kept, in a folder that is not there.

    Raises:
        UserError: LeRobot cannot cut the videos.
    """
    source = plan.source
    # Of the others LeRobot would miss the frames, if they have none.
    whole = LeRobotDataset(source.repo_id, root=source.root, episodes=plan.kept)
    whole.meta.episodes = _plain_rows(whole.meta)  # pyright: ignore[reportAttributeAccessIssue]
    dropped = [verdict.episode_index for verdict in plan.dropped]
    try:
        with _read_statistics_once(whole.meta.features):
            delete_episodes(whole, dropped, output_dir=folder, repo_id=name)
    except AssertionError as error:  # LeRobot's own check of the videos
        raise UserError(
            f"the videos of {source.repo_id} cannot be cut: {error}. Use `episodes_file`, which "
            "needs no new dataset"
        ) from error
    _carry_columns(source, folder, plan.kept)


def _plain_rows(meta: LeRobotDatasetMetadata) -> list[dict[str, Any]]:
    """The table of episodes without statistics, with the ends that LeRobot's deletion asks for.

    LeRobot decodes without ``to_timestamp``, which some recorders set to the time of the last frame
    instead of the end of it; its deletion refuses those. It also looks up every row twice for each
    video file, which takes a millisecond in a `datasets.Dataset` and no time in a list.
    """
    episodes = meta.episodes
    assert episodes is not None  # LeRobot leaves it out only when there are none
    names = [name for name in episodes.column_names if not name.startswith("stats/")]
    columns = {name: episodes[name][:] for name in names}
    for key in meta.video_keys:
        starts = np.array(columns[f"videos/{key}/from_timestamp"])
        ends = starts + np.array(columns["length"]) / meta.fps
        columns[f"videos/{key}/to_timestamp"] = ends.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@contextmanager
def _read_statistics_once(features: Container[str]) -> Iterator[None]:
    """Keep LeRobot from reading a whole file of ``meta/episodes`` for every episode that it keeps.

    Its `remove_feature` leaves the statistics of what it removed behind, at whose shape its deletion
    stops where that was a camera: only those of `features` are read.
    """
    original = getattr(dataset_tools, _READS_STATISTICS, None)

    @cache
    def read(path: Path) -> pd.DataFrame:
        table = pd.read_parquet(path).set_index("episode_index", drop=False)
        statistics = [name for name in table.columns if name.startswith("stats/")]
        return table.drop(columns=[x for x in statistics if x.split("/")[1] not in features])

    def load(dataset: LeRobotDataset, episode: int) -> dict[str, Any]:
        assert dataset.meta.episodes is not None
        row: Any = dataset.meta.episodes[episode]
        chunk, file = row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]
        name = DEFAULT_EPISODES_PATH.format(chunk_index=chunk, file_index=file)
        return read(dataset.root / name).loc[episode].to_dict()

    if original is None:  # another LeRobot, which may be as quick as this
        yield
        return
    setattr(dataset_tools, _READS_STATISTICS, load)
    try:
        yield
    finally:
        setattr(dataset_tools, _READS_STATISTICS, original)


def _carry_columns(source: Source, folder: Path, kept: list[int]) -> None:
    """Keep what others have noted in ``meta/episodes``, as of success: LeRobot leaves it out."""
    noted = source.meta.episodes

    def extend(table: pa.Table) -> pa.Table:
        rows = [kept[new] for new in table["episode_index"].to_pylist()]
        for name in noted.column_names:
            if name not in table.column_names and not name.startswith("meta/"):
                table = table.append_column(noted.schema.field(name), noted[name].take(rows))
        return table

    for path in sorted((folder / EPISODES_DIR).glob("*/*.parquet")):
        rewrite_in_place(path, extend)
