"""A labeled dataset as it is judged: its raw scores, exactly as the VLM gave them, and where from.

The sidecar is enough, and so are the columns, which are all that LeRobot's tools keep. Their
log-probabilities are interpolated between the scored prefixes, so at the last frame of a prefix,
where ``scored`` is true, they are that prefix's own score. A dataset from the Hub, or one that was
curated, needs no store. Only there is what a reward model said of success beside its progress.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from lerobot_topreward.console import warn
from lerobot_topreward.data.dataset import Source, open_source, segments
from lerobot_topreward.data.info import INFO_PATH
from lerobot_topreward.data.locate import HF_LEROBOT_HOME
from lerobot_topreward.data.schedule import images_shown
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import NotLabeledError, UserError
from lerobot_topreward.files.atomic import WORK_FOLDER
from lerobot_topreward.records import FrameRewards, PrefixScores, Segment
from lerobot_topreward.rewards import (
    BASELINES,
    Debias,
    Formula,
    Normalize,
    Scale,
    label_rewards,
    make_curves,
)
from lerobot_topreward.storage.blank import read_blanks
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.labels import (
    explain_columns,
    find_sidecar,
    has_columns,
    label_command,
    lay_out,
    read_description,
    read_label_columns,
)
from lerobot_topreward.storage.sidecar import (
    LABEL_AGAIN,
    SIDECAR_NAME,
    dataset_of,
    fingerprint_of,
    read_sidecar,
)
from lerobot_topreward.storage.store import Store, list_shards

_NEEDED = (  # the other columns are made of these
    "topreward.log_prob",
    "topreward.log_prob_false",
    "topreward.labelled",
    "topreward.scored",
)


@dataclass(frozen=True, slots=True)
class LabelledDataset:
    """A dataset, the raw scores of its labeled episodes, and how they were made."""

    source: Source
    labels: Path  # folder that holds the labels and, where it was scored here, the store
    scores: tuple[PrefixScores, ...]  # control "none", every segment of every labeled episode
    key: ScoreKey
    provenance: Mapping[str, Any]
    stored: FrameRewards  # every frame's labels as they were found
    baselines: tuple[PrefixScores, ...] = ()  # what the formula subtracts, where all of it is here

    @property
    def fps(self) -> float:
        """The dataset's clock, Hz."""
        return float(self.source.meta.fps)

    @property
    def formula(self) -> Formula:
        """What progress was made of."""
        return _read_formula(self.provenance)

    @property
    def known_formula(self) -> Formula:
        """The same, without what it subtracts where that is not at hand."""
        formula = self.formula
        return formula if self.baselines or formula.debias == "none" else Formula(formula.scale)

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
        """The labeled episodes, ascending."""
        return sorted({scores.segment.episode_index for scores in self.scores})

    def rewards(self) -> FrameRewards:
        """Progress and advantage of the episodes that have scores, normalized per task.

        That is so whatever the labels were, since only then do episodes compare: scaled by itself,
        every episode reaches 1. Debiased labels stay so where what they subtract is at hand or the
        labels are normalized per task already; else this is the progress of the raw scores.
        """
        if self.known_formula != self.formula and self.provenance["normalize"] == "task":
            labelled = np.isin(self.stored.episode_index, self.episodes)
            return replace(self.stored, labelled=labelled)
        return label_rewards(
            self.scores,
            self.stored.episode_index,
            horizon=self.horizon,
            normalize="task",
            formula=self.known_formula,
            controls=self.baselines,
        )

    def curves(self) -> list[Float[np.ndarray, " _"]]:
        """What progress is made of, one curve for each of the scores; see `make_curves`."""
        return make_curves(self.scores, self.known_formula, self.baselines)


def open_labelled(
    *, repo_id: str | None, root: Path | None, revision: str | None, labels: Path | None = None
) -> LabelledDataset:
    """Open a dataset that ``lerobot-topreward label`` has labeled.

    Args:
        repo_id: name on the Hub, or of a dataset recorded under ``$HF_LEROBOT_HOME``.
        root: a local folder.
        revision: branch, tag or commit on the Hub.
        labels: folder with the labels, when that is neither the dataset itself nor where
            ``label`` writes by default.

    Raises:
        UserError: no such dataset, not labeled, or its labels are another dataset's.
    """
    return read_labelled(open_source(repo_id=repo_id, root=root, revision=revision), labels)


def read_labelled(source: Source, labels: Path | None = None) -> LabelledDataset:
    """Read the labels of a dataset that is open; see `open_labelled`.

    Raises:
        UserError: it is not labeled, or its labels are another dataset's.
    """
    source, sidecar = _find_labels(source, labels)
    fingerprint = source.fingerprints.dataset
    name = source.repo_id
    # The sidecar comes first, as it knows whose it is. Where the dataset was edited after labeling
    # it no longer fits, while the columns went along with every edit.
    if sidecar is not None and labels is None and has_columns(source):
        made_for = fingerprint_of(sidecar)
        if made_for not in (None, fingerprint):
            warn(explain_columns(source, sidecar))
            name, sidecar = dataset_of(sidecar) or name, None
    if sidecar is not None:
        found, provenance = read_sidecar(sidecar, fingerprint=fingerprint)
        key = _read_key(provenance, origin=sidecar)
        stored = lay_out(sidecar, found, source.frames)
    else:
        stored = read_label_columns(source, needed=_NEEDED)
        provenance = {"dataset": name, "debias": "none", **read_description(source)}
        key = _read_key(provenance, origin=source.root / INFO_PATH)
    dataset = LabelledDataset(
        source=source,
        labels=source.root if sidecar is None else sidecar.parent,
        scores=_scores(source, stored, key),
        key=key,
        provenance=provenance,
        stored=stored,
    )
    dataset = replace(dataset, scores=_with_success(dataset))
    if stored.absent & {"progress", "advantage"}:  # LeRobot's tools can remove any column
        again = label_rewards(
            dataset.scores,
            source.frames.episode_index,
            horizon=dataset.horizon,
            normalize=provenance["normalize"],
            formula=Formula(dataset.formula.scale),
        )
        return replace(dataset, stored=again, provenance={**provenance, "debias": "none"})
    return replace(dataset, baselines=_baselines(dataset))


def default_output(source: Source) -> Path:
    """Where ``label`` writes unless told otherwise."""
    if source.revision is None:
        return output_beside(source.root)
    return HF_LEROBOT_HOME / f"{source.repo_id}_topreward"


def output_beside(root: Path) -> Path:
    """Where ``label`` writes unless told otherwise, of a dataset in a local folder."""
    return root.with_name(f"{root.name}_topreward")


def _find_labels(source: Source, labels: Path | None) -> tuple[Source, Path | None]:
    """Find the dataset to judge, which can be the labeled copy of the source, and its sidecar."""
    if labels is not None:
        path = labels.expanduser().absolute() / SIDECAR_NAME
        if not path.is_file():
            raise UserError(f"`labels={labels}` holds no {SIDECAR_NAME}. {label_command(source)}")
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
        raise NotLabeledError(
            f"{source.repo_id} is not labeled: neither {source.root} nor {copy} holds "
            f"{SIDECAR_NAME} or columns topreward.*. {label_command(source)}"
        )
    return source, path


def _read_key(provenance: Mapping[str, Any], *, origin: Path) -> ScoreKey:
    """Read how scores were made from a provenance, which is not trusted.

    Raises:
        UserError: it does not say so, or not as this version does.
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
        or (provenance["scale"] == "prob" and provenance.get("debias", "none") != "none")
        or type(count := provenance.get("contrast", 1)) is not int
        or not 1 <= count <= len(BASELINES["contrast"])
        or not isinstance(horizon, int)
        or horizon < 1
    ):
        return key
    what = "scores were" if key is None else "progress was"
    raise UserError(
        f"{origin} does not say how its {what} made as this version does; {LABEL_AGAIN}"
    )


def _scores(source: Source, stored: FrameRewards, key: ScoreKey) -> tuple[PrefixScores, ...]:
    """Recover the raw scores of the episodes all of whose segments have some."""
    episodes = np.unique(stored.episode_index[stored.labelled]).tolist()
    found: list[PrefixScores] = []
    for episode, parts in segments(source, episodes, instruction=key.instruction).items():
        rewards = stored.episode(episode)
        scores: list[PrefixScores] = []
        for segment in parts:
            ends = segment.start + np.flatnonzero(
                rewards.scored[segment.start : segment.start + segment.length]
            )
            lengths = ends - segment.start + 1
            shown = lengths - 1  # the last frame of a prefix is shown, unless prefixes are counted
            if key.prefix_count is not None:
                sampled = key.sample(segment.length, fps=source.meta.fps)
                shown = sampled[images_shown(lengths, sampled) - 1]
            scores.append(
                PrefixScores(
                    segment=segment,
                    control="none",
                    prefix_length=lengths,
                    frame_index=segment.start + shown,
                    log_prob_true=rewards.log_prob_true[ends],
                    log_prob_false=rewards.log_prob_false[ends],
                )
            )
        # Where little is left of an episode, as after trimming, a segment may have none.
        if all(len(part.prefix_length) for part in scores):
            found += scores
    return tuple(found)


def _with_success(dataset: LabelledDataset) -> tuple[PrefixScores, ...]:
    """Add what a reward model said of success; to none, where the store lacks it for some."""
    if dataset.key.reward_model is None or not dataset.store.folder.is_dir():
        return dataset.scores
    read = _read_control(dataset, "none")
    known = {scores.segment: scores for scores in read or ()}
    found = []
    for scores in dataset.scores:
        own = known.get(scores.segment)
        if own is None or not np.array_equal(own.prefix_length, scores.prefix_length):
            return dataset.scores
        found.append(replace(scores, log_prob_success=own.log_prob_success))
    return tuple(found)


def _read_control(dataset: LabelledDataset, control: str) -> list[PrefixScores] | None:
    """Read the shards of a control; None where the store lacks one of a labeled episode."""
    parts: dict[int, list[Segment]] = defaultdict(list)
    for scores in dataset.scores:
        parts[scores.segment.episode_index].append(scores.segment)
    videos = video_prints(dataset.source, camera=dataset.key.camera, episodes=dataset.episodes)
    fingerprints = dataset.source.fingerprints.episodes
    shards = list_shards(parts, [control], fingerprints=fingerprints, videos=videos)
    read = [dataset.store.read(shard) for shard in shards]
    return [scores for own in read for scores in own or ()] if all(read) else None


def _read_formula(provenance: Mapping[str, Any]) -> Formula:
    return Formula(provenance["scale"], provenance.get("debias", "none"))


def _baselines(dataset: LabelledDataset) -> tuple[PrefixScores, ...]:
    """Read what the formula subtracts from every score; nothing where the store lacks some."""
    debias = dataset.formula.debias
    if debias == "none":
        return ()
    if debias == "blank":
        gray = read_blanks([dataset.store], dataset.source, dataset.scores)
        return tuple(gray) if len(gray) == len(dataset.scores) else ()
    found: list[PrefixScores] = []
    for name in BASELINES[debias][: dataset.provenance.get("contrast")]:
        read = _read_control(dataset, name)
        if read is None:  # there need not be as many other tasks as were asked for
            break
        found += read
    return tuple(found)
