"""The curated dataset: LeRobot's own deletion, and what it leaves behind carried over."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import EPISODES_DIR

from lerobot_topreward.curate.idle import Span
from lerobot_topreward.curate.output import count_bytes, replace_folder
from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.curate.record import curated_provenance, curation_record
from lerobot_topreward.curate.trim import rewrite_in_place, trim_dataset
from lerobot_topreward.data.dataset import (
    Source,
    episode_rows,
    fetch_videos,
    open_source,
    require_files,
)
from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import write_file
from lerobot_topreward.files.copying import DATASET_PARTS, copy_file, dataset_files
from lerobot_topreward.publish.changes import CARD, CURATION_FILE
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, write_sidecar


def write_curated(plan: Plan, output: Path) -> None:
    """Make the dataset that is left, with its labels; all of it or nothing.

    Args:
        plan: what is kept, and which part of each episode.
        output: from `prepare_output`; what an earlier curation left there is replaced.

    Raises:
        UserError: it cannot be written, or LeRobot cannot cut its videos.
    """
    fetch_videos(plan.dataset.source)
    require_videos(plan)
    with replace_folder(output, needed=count_bytes(plan.dataset)) as folder:
        _keep_episodes(plan, folder, name=f"local/{output.name}")
        if plan.spans:
            new = {old: index for index, old in enumerate(plan.kept)}
            trim_dataset(folder, {new[old]: span for old, span in plan.spans.items()})
        made = open_source(repo_id=f"local/{output.name}", root=folder, revision=None)
        fingerprint = made.fingerprints.dataset
        write_sidecar(
            folder / SIDECAR_NAME,
            _select_rewards(plan, made.frames),
            fingerprint=fingerprint,
            provenance=curated_provenance(plan),
        )
        record = {**curation_record(plan), "fingerprint": fingerprint}
        write_file(folder / CURATION_FILE, json.dumps(record, indent=1))


def require_videos(plan: Plan) -> None:
    """Check that all files of the kept episodes are here.

    Raises:
        UserError: one is missing.
    """
    require_files(
        plan.dataset.source, plan.kept, advice="use --episodes-file, which needs no videos"
    )


def _keep_episodes(plan: Plan, folder: Path, *, name: str) -> None:
    source = plan.dataset.source
    if plan.dropped:
        dropped = [verdict.episode_index for verdict in plan.dropped]
        # Of the others LeRobot would miss the frames, if they have none.
        whole = LeRobotDataset(source.repo_id, root=source.root, episodes=plan.kept)
        whole.meta.episodes = _with_ends(whole.meta)
        try:
            delete_episodes(whole, dropped, output_dir=folder, repo_id=name)
        except AssertionError as error:  # LeRobot's own check of the videos
            raise UserError(
                f"the videos of {source.repo_id} cannot be cut: {error}. Use --episodes-file, "
                "which needs no new dataset"
            ) from error
        _carry_columns(source, folder, plan.kept)
    else:
        folder.mkdir()
        for path in dataset_files(source.root, parts=DATASET_PARTS):
            copy_file(source.root / path, folder / path)
    if (source.root / CARD).is_file():
        copy_file(source.root / CARD, folder / CARD)


def _with_ends(meta: LeRobotDatasetMetadata) -> Dataset:
    """The table of episodes with the ends that LeRobot's deletion asks for.

    LeRobot decodes without ``to_timestamp``, which some recorders set to the time of the last frame
    instead of the end of it; its deletion refuses those.
    """
    episodes = episode_rows(meta)
    for key in meta.video_keys:
        name = f"videos/{key}/to_timestamp"
        starts = np.array(episodes[f"videos/{key}/from_timestamp"])
        ends = starts + np.array(episodes["length"]) / meta.fps
        if name in episodes.column_names:
            episodes = episodes.remove_columns(name)
        episodes = episodes.add_column(name, ends.tolist())  # pyright: ignore[reportCallIssue]
    return episodes


def _carry_columns(source: Source, folder: Path, kept: list[int]) -> None:
    """Keep what others have noted in ``meta/episodes``, as of success: LeRobot leaves it out."""
    noted: Any = episode_rows(source.meta).with_format("arrow")[:]  # a pyarrow.Table

    def extend(table: pa.Table) -> pa.Table:
        rows = [kept[new] for new in table["episode_index"].to_pylist()]
        for name in noted.column_names:
            if name not in table.column_names and not name.startswith("meta/"):
                table = table.append_column(noted.schema.field(name), noted[name].take(rows))
        return table

    for path in sorted((folder / EPISODES_DIR).glob("*/*.parquet")):
        rewrite_in_place(path, extend)


def _select_rewards(plan: Plan, made: FrameTable) -> FrameRewards:
    """The labels of the frames that are left, in their new order."""
    dataset = plan.dataset
    rows = []
    for episode in plan.kept:
        whole = dataset.source.frames.rows(episode)
        span = plan.spans.get(episode, Span(0, whole.stop - whole.start))
        rows.append(np.arange(whole.start + span.start, whole.start + span.stop))
    return replace(
        dataset.stored.take(np.concatenate(rows)),
        index=made.index,
        episode_index=made.episode_index,
        frame_index=made.frame_index,
    )
