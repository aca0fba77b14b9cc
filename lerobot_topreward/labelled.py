"""A labelled dataset as it is judged: its raw scores, exactly as the VLM gave them, and where from.

The sidecar is enough. Its log-probabilities are interpolated between the scored prefixes, so at the
last frame of a prefix they are that prefix's own score, and which prefixes were scored follows from
how the labels were made. A dataset from the Hub, or one that was curated, needs no store.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from lerobot.datasets.utils import INFO_PATH
from lerobot.utils.constants import HF_LEROBOT_HOME

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.fingerprints import Fingerprints, read_fingerprints, video_prints
from lerobot_topreward.hub import translate_errors
from lerobot_topreward.records import EpisodeReward, PrefixScores, Segment
from lerobot_topreward.rewards import Debias, Scale, label_rewards
from lerobot_topreward.scoring import images_shown, prefix_lengths, sample_frames
from lerobot_topreward.sidecar import SIDECAR_NAME, Sidecar, read_sidecar
from lerobot_topreward.source import FrameTable, Source, frame_table, open_source, segments
from lerobot_topreward.store import ScoreKey, Store
from lerobot_topreward.transaction import WORK_FOLDER


@dataclass(frozen=True, slots=True)
class LabelledDataset:
    """A dataset, the raw scores of its labelled episodes, and how they were made."""

    source: Source
    frames: FrameTable
    fingerprints: Fingerprints
    labels: Path  # folder that holds the sidecar and, where it was scored here, the store
    scores: tuple[PrefixScores, ...]  # control "none", every segment of every labelled episode
    key: ScoreKey
    provenance: Mapping[str, Any]
    static: tuple[PrefixScores, ...] = ()  # control "static", where labels that need it have it
    written: tuple[EpisodeReward, ...] = ()  # what the sidecar says, of the same episodes

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
        return Store(self.labels / WORK_FOLDER / self.key.digest())

    @property
    def episodes(self) -> list[int]:
        """The labelled episodes, ascending."""
        return sorted({one.segment.episode_index for one in self.scores})

    def rewards(self) -> list[EpisodeReward]:
        """Progress and advantage of the labelled episodes, in their order.

        Normalised per task whatever the labels were, since only then do episodes compare: scaled by
        itself, every episode reaches 1. Debiased labels stay so where the static curves are at hand
        or the sidecar is normalised per task already; else this is the progress of the raw scores.
        """
        still = self.static or None
        if self.debias == "static" and still is None and self.provenance.get("normalize") == "task":
            return list(self.written)
        return label_rewards(
            self.scores, horizon=self.horizon, normalize="task", scale=self.scale, static=still
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
    source, sidecar_path = _find_labels(source, labels)
    table = frame_table(source)
    fingerprints = read_fingerprints(source, table)
    sidecar = read_sidecar(sidecar_path, fingerprint=fingerprints.dataset)
    key = _score_key(sidecar.provenance.get("scoring"), path=sidecar_path)
    _check_provenance(sidecar.provenance, path=sidecar_path)
    dataset = LabelledDataset(
        source=source,
        frames=table,
        fingerprints=fingerprints,
        labels=sidecar_path.parent,
        scores=tuple(_scores(source, table, sidecar, key)),
        key=key,
        provenance=sidecar.provenance,
    )
    if dataset.debias == "none":
        return dataset
    return replace(dataset, static=_static(dataset), written=_written(dataset, sidecar))


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


def _find_labels(source: Source, labels: Path | None) -> tuple[Source, Path]:
    """The dataset to judge and its sidecar; the labelled copy where the source is named."""
    if labels is not None:
        path = labels.expanduser().absolute() / SIDECAR_NAME
        if not path.is_file():
            raise UserError(f"--labels {labels} holds no {SIDECAR_NAME}. {label_command(source)}")
        return source, path
    path = find_sidecar(source)
    if path is not None:
        return source, path
    copy = default_output(source)
    if not (copy / SIDECAR_NAME).is_file():
        raise UserError(
            f"{source.repo_id} is not labelled: neither {source.root} nor {copy} holds "
            f"{SIDECAR_NAME}. {label_command(source)}"
        )
    if (copy / INFO_PATH).is_file():
        source = open_source(repo_id=None, root=copy, revision=None)
    return source, copy / SIDECAR_NAME


def _score_key(scoring: Any, *, path: Path) -> ScoreKey:
    names = {item.name for item in fields(ScoreKey)}
    if not isinstance(scoring, Mapping) or {"max_images", *scoring} != names:
        raise UserError(
            f"{path} does not say how its scores were made as this version does; label again, "
            "which takes seconds where the raw scores are kept"
        )
    return ScoreKey(**scoring)


def _check_provenance(provenance: Mapping[str, Any], *, path: Path) -> None:
    if provenance.get("scale") not in get_args(Scale) or "horizon_frames" not in provenance:
        raise UserError(
            f"{path} does not say how its progress was made as this version does; label again, "
            "which takes seconds where the raw scores are kept"
        )


def _scores(
    source: Source, table: FrameTable, sidecar: Sidecar, key: ScoreKey
) -> list[PrefixScores]:
    episodes = np.unique(sidecar.episode_index)
    cut = segments(source, table, episodes.tolist(), instruction=key.instruction)
    found: list[PrefixScores] = []
    for episode in episodes.tolist():
        parts = cut.get(episode)
        if parts is None or isinstance(parts, EpisodeError):
            continue
        first, last = np.searchsorted(sidecar.episode_index, [episode, episode + 1])
        true, false = sidecar.log_prob_true[first:last], sidecar.log_prob_false[first:last]
        found += [
            _segment_scores(part, true, false, fps=source.meta.fps, key=key) for part in parts
        ]
    return found


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
        scores = dataset.store.read(
            members,
            "static",
            fingerprint=dataset.fingerprints.episodes[episode],
            video=videos.get(episode),
        )
        if scores is None:
            return ()
        found += scores
    return tuple(found)


def _written(dataset: LabelledDataset, sidecar: Sidecar) -> tuple[EpisodeReward, ...]:
    found = []
    for episode in dataset.episodes:
        first, last = np.searchsorted(sidecar.episode_index, [episode, episode + 1])
        found.append(
            EpisodeReward(
                episode_index=episode,
                log_prob_true=sidecar.log_prob_true[first:last],
                log_prob_false=sidecar.log_prob_false[first:last],
                progress=sidecar.progress[first:last],
                advantage=sidecar.advantage[first:last],
            )
        )
    return tuple(found)


def _segment_scores(
    segment: Segment,
    true: Sequence[float] | np.ndarray,
    false: Sequence[float] | np.ndarray,
    *,
    fps: float,
    key: ScoreKey,
) -> PrefixScores:
    indices = sample_frames(
        segment.length,
        fps=fps,
        sample_fps=key.sample_fps,
        final_frame=key.final_frame,
        max_images=key.max_images,
    )
    lengths = prefix_lengths(segment.length, indices, count=key.prefixes)
    rows = segment.start + lengths - 1
    return PrefixScores(
        segment=segment,
        control="none",
        prefix_length=lengths,
        frame_index=segment.start + indices[images_shown(lengths, indices) - 1],
        log_prob_true=np.asarray(true)[rows],
        log_prob_false=np.asarray(false)[rows],
    )
