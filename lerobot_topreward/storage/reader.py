"""A labelled dataset as it is judged: its raw scores, exactly as the VLM gave them, and where from.

The sidecar is enough, and so are the columns, which are all that LeRobot's tools keep. Their
log-probabilities are interpolated between the scored prefixes, so at the last frame of a prefix,
where ``scored`` is true, they are that prefix's own score. A dataset from the Hub, or one that was
curated, needs no store.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from lerobot.datasets.utils import INFO_PATH
from lerobot.utils.constants import HF_LEROBOT_HOME

from lerobot_topreward.console import warn
from lerobot_topreward.data.dataset import FrameTable, Source, frame_table, open_source, segments
from lerobot_topreward.data.fingerprints import Fingerprints, read_fingerprints, video_prints
from lerobot_topreward.data.schedule import images_shown, sample_frames
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.transaction import WORK_FOLDER
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.records import EpisodeReward, FrameRewards, PrefixScores, Segment
from lerobot_topreward.rewards import Debias, Normalize, Scale, assemble, label_rewards
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.label_columns import (
    columns_instead,
    described,
    has_columns,
    read_columns,
    spread,
)
from lerobot_topreward.storage.sidecar import (
    LABEL_AGAIN,
    SIDECAR_NAME,
    dataset_of,
    fingerprint_of,
    read_sidecar,
)
from lerobot_topreward.storage.store import Shard, Store

_NEEDED = (  # the other columns are made of these
    "topreward.log_prob",
    "topreward.log_prob_false",
    "topreward.labelled",
    "topreward.scored",
)


@dataclass(frozen=True, slots=True)
class LabelledDataset:
    """A dataset, the raw scores of its labelled episodes, and how they were made."""

    source: Source
    frames: FrameTable
    fingerprints: Fingerprints
    labels: Path  # folder that holds the labels and, where it was scored here, the store
    scores: tuple[PrefixScores, ...]  # control "none", every segment of every labelled episode
    key: ScoreKey
    provenance: Mapping[str, Any]
    stored: FrameRewards  # every frame's labels as they were found
    static: tuple[PrefixScores, ...] = ()  # control "static", where labels that need it have it

    @property
    def fps(self) -> float:
        """The dataset's clock, Hz."""
        return float(self.source.meta.fps)

    @property
    def fingerprint(self) -> str:
        """Of the dataset."""
        return self.fingerprints.dataset

    @property
    def scale(self) -> Scale:
        """What progress was made of."""
        return self.provenance["scale"]

    @property
    def debias(self) -> Debias:
        """What was subtracted before progress was made."""
        return self.provenance.get("debias", "none")

    @property
    def horizon(self) -> int:
        """The advantage's span, frames."""
        return int(self.provenance["horizon_frames"])

    @property
    def store(self) -> Store:
        """Where the shards of these scores are, or would be; it may not exist."""
        return Store(self.labels / WORK_FOLDER / self.key.digest(), self.key, self.fps)

    @property
    def episodes(self) -> list[int]:
        """The labelled episodes, ascending."""
        return sorted({one.segment.episode_index for one in self.scores})

    def rewards(self) -> list[EpisodeReward]:
        """Progress and advantage of the labelled episodes, in their order.

        Normalised per task whatever the labels were, since only then do episodes compare: scaled by
        itself, every episode reaches 1. Debiased labels stay so where the static curves are at hand
        or the labels are normalised per task already; else this is the progress of the raw scores.
        """
        still = self.static or None
        if self.debias == "static" and still is None and self.provenance.get("normalize") == "task":
            return [self._stored_reward(episode) for episode in self.episodes]
        return label_rewards(
            self.scores, horizon=self.horizon, normalize="task", scale=self.scale, static=still
        )

    def _stored_reward(self, episode: int) -> EpisodeReward:
        rows, stored = self.frames.rows(episode), self.stored
        return EpisodeReward(
            episode_index=episode,
            log_prob_true=stored.log_prob_true[rows],
            log_prob_false=stored.log_prob_false[rows],
            progress=stored.progress[rows],
            advantage=stored.advantage[rows],
            scored=stored.scored[rows],
        )


def open_labelled(
    *, repo_id: str | None, root: Path | None, revision: str | None, labels: Path | None = None
) -> LabelledDataset:
    """Open a dataset that ``lerobot-topreward label`` has labelled.

    Args:
        repo_id: name on the Hub, or of a dataset recorded under ``$HF_LEROBOT_HOME``.
        root: a local folder.
        revision: branch, tag or commit on the Hub.
        labels: folder with the labels, when that is neither the dataset itself nor where
            ``label`` writes by default.

    Raises:
        UserError: no such dataset, not labelled, or its labels are another dataset's.
    """
    source = open_source(repo_id=repo_id, root=root, revision=revision)
    source, sidecar = _find_labels(source, labels)
    table = frame_table(source)
    fingerprints = read_fingerprints(source, table)
    if sidecar is not None and labels is None and has_columns(source):
        made_for = fingerprint_of(sidecar)
        if made_for is not None and made_for != fingerprints.dataset:
            warn(columns_instead(source, sidecar))
            return _of_columns(source, table, fingerprints, name=dataset_of(sidecar))
    if sidecar is None:
        return _of_columns(source, table, fingerprints, name=None)
    found = read_sidecar(sidecar, fingerprint=fingerprints.dataset)
    key = _score_key(found.provenance, origin=sidecar)
    stored = spread(sidecar, found, table)
    return _with_static(
        LabelledDataset(
            source=source,
            frames=table,
            fingerprints=fingerprints,
            labels=sidecar.parent,
            scores=_scores(source, table, stored, key),
            key=key,
            provenance=found.provenance,
            stored=stored,
        )
    )


def _of_columns(
    source: Source, table: FrameTable, fingerprints: Fingerprints, *, name: str | None
) -> LabelledDataset:
    """Open a dataset of which only the columns say anything; those made of others may lack."""
    columns = read_columns(source, table, needed=_NEEDED)
    provenance = {"debias": "none", **described(source)}
    key = _score_key(provenance, origin=source.root / INFO_PATH)
    lacking = {"progress", "advantage"} - columns.keys()
    nothing = dict.fromkeys(lacking, np.zeros(len(table.index), dtype=np.float32))
    frames = (table.index, table.episode_index, table.frame_index)
    stored = FrameRewards(*frames, **columns, **nothing)
    dataset = LabelledDataset(
        source=source,
        frames=table,
        fingerprints=fingerprints,
        labels=source.root,
        scores=_scores(source, table, stored, key),
        key=key,
        provenance={"dataset": name or source.repo_id, **provenance},
        stored=stored,
    )
    if not lacking:
        return _with_static(dataset)
    again = label_rewards(
        dataset.scores,
        horizon=dataset.horizon,
        normalize=provenance["normalize"],
        scale=dataset.scale,
    )
    provenance = {**dataset.provenance, "debias": "none"}
    return replace(dataset, stored=assemble(*frames, again), provenance=provenance)


def find_sidecar(source: Source, *, option: str = "--repo-id") -> Path | None:
    """Locate the sidecar of a dataset, fetching it where the dataset comes from the Hub.

    Raises:
        UserError: the Hub refuses.
    """
    path = source.root / SIDECAR_NAME
    if path.is_file() or source.revision is None:
        return path if path.is_file() else None
    with translate_errors(repo_id=source.repo_id, revision=source.revision, option=option):
        try:
            return Path(
                hf_hub_download(
                    source.repo_id,
                    SIDECAR_NAME,
                    repo_type="dataset",
                    revision=source.revision,
                    cache_dir=source.root.parents[2],  # CACHE/datasets--OWNER--NAME/snapshots/X
                )
            )
        except EntryNotFoundError:
            return None  # the Hub has none, or cannot be reached


def default_output(source: Source) -> Path:
    """Where ``label`` writes unless told otherwise."""
    if source.revision is None:
        return source.root.with_name(f"{source.root.name}_topreward")
    return HF_LEROBOT_HOME / f"{source.repo_id}_topreward"


def label_command(source: Source) -> str:
    """Say how the dataset is labelled."""
    what = f"--root {source.root}" if source.revision is None else f"--repo-id {source.repo_id}"
    return f"Label it: lerobot-topreward label {what}"


def _find_labels(source: Source, labels: Path | None) -> tuple[Source, Path | None]:
    """The dataset to judge, the labelled copy where the source is named, and the sidecar if any."""
    if labels is not None:
        path = labels.expanduser().absolute() / SIDECAR_NAME
        if not path.is_file():
            raise UserError(f"--labels {labels} holds no {SIDECAR_NAME}. {label_command(source)}")
        return source, path
    path = find_sidecar(source)
    if path is not None or has_columns(source):
        return source, path
    copy = default_output(source)
    path = copy / SIDECAR_NAME if (copy / SIDECAR_NAME).is_file() else None
    if (copy / INFO_PATH).is_file():
        labelled = open_source(repo_id=None, root=copy, revision=None)
        if path is not None or has_columns(labelled):
            return labelled, path
    if path is None:
        raise UserError(
            f"{source.repo_id} is not labelled: neither {source.root} nor {copy} holds "
            f"{SIDECAR_NAME} or columns topreward.*. {label_command(source)}"
        )
    return source, path


def _score_key(provenance: Mapping[str, Any], *, origin: Path) -> ScoreKey:
    """Read how labels were made; whoever wrote that is a stranger.

    Raises:
        UserError: it is not said, or not as this version does.
    """
    horizon = provenance.get("horizon_frames")
    try:
        key = ScoreKey.from_json(provenance.get("scoring"))
    except ValueError:
        key = None
    if key is not None and not (
        provenance.get("scale") not in get_args(Scale)
        or provenance.get("normalize") not in get_args(Normalize)
        or provenance.get("debias", "none") not in get_args(Debias)
        or not isinstance(horizon, int)
        or horizon < 1
    ):
        return key
    what = "scores were" if key is None else "progress was"
    raise UserError(
        f"{origin} does not say how its {what} made as this version does; {LABEL_AGAIN}"
    )


def _scores(
    source: Source, table: FrameTable, stored: FrameRewards, key: ScoreKey
) -> tuple[PrefixScores, ...]:
    """The raw scores of the episodes all of whose segments have some."""
    episodes = np.unique(table.episode_index[stored.labelled]).tolist()
    cut = segments(source, table, episodes, instruction=key.instruction)
    found: list[PrefixScores] = []
    for episode, parts in cut.items():
        if isinstance(parts, EpisodeError):
            continue
        start = table.rows(episode).start
        scores = [
            _segment_scores(part, start + part.start, stored, fps=source.meta.fps, key=key)
            for part in parts
        ]
        # Where little is left of an episode, as after trimming, a segment may have none.
        if all(len(one.prefix_length) for one in scores):
            found += scores
    return tuple(found)


def _segment_scores(
    segment: Segment, first: int, stored: FrameRewards, *, fps: float, key: ScoreKey
) -> PrefixScores:
    rows = first + np.flatnonzero(stored.scored[first : first + segment.length])
    lengths = rows - first + 1
    shown = lengths - 1
    if key.prefix_count is not None:  # frames that were shown do not end every prefix
        sampled = sample_frames(
            segment.length,
            fps=fps,
            sample_fps=key.sample_fps,
            final_frame=key.final_frame,
            max_images=key.max_images,
        )
        shown = sampled[images_shown(lengths, sampled) - 1]
    return PrefixScores(
        segment=segment,
        control="none",
        prefix_length=lengths,
        frame_index=segment.start + shown,
        log_prob_true=stored.log_prob_true[rows],
        log_prob_false=stored.log_prob_false[rows],
    )


def _with_static(dataset: LabelledDataset) -> LabelledDataset:
    return dataset if dataset.debias == "none" else replace(dataset, static=_static(dataset))


def _static(dataset: LabelledDataset) -> tuple[PrefixScores, ...]:
    """The static curves of every score, or none where the store lacks one."""
    videos = video_prints(
        dataset.source, dataset.frames, camera=dataset.key.camera, episodes=dataset.episodes
    )
    parts: dict[int, list[Segment]] = defaultdict(list)
    for one in dataset.scores:
        parts[one.segment.episode_index].append(one.segment)
    found: list[PrefixScores] = []
    for episode, members in parts.items():
        fingerprint = dataset.fingerprints.episodes[episode]
        scores = dataset.store.read(
            Shard(tuple(members), "static", fingerprint, videos.get(episode))
        )
        if scores is None:
            return ()
        found += scores
    return tuple(found)
