"""Ask the VLM that made a dataset's labels once more: the same checkpoint, in the same way."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lerobot_topreward.config import with_options
from lerobot_topreward.data.dataset import segments
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.transaction import WORK_FOLDER
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.scoring.job import Job, fetch_job_videos, score_key
from lerobot_topreward.storage.reader import LabelledDataset, default_output
from lerobot_topreward.storage.store import Store, check_lineage, open_store
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig, VlmIdentity, identify


def same_vlm(dataset: LabelledDataset, given: VlmConfig | None) -> VlmConfig:
    """The options that load the VLM of the labels again.

    Args:
        dataset: its labels say which VLM it was, and how it was loaded.
        given: where it lies and on which device it runs; whatever is left at its default is as it
            was for the labels.

    Raises:
        UserError: an option contradicts the labels, or the labels name a folder only.
    """
    key, default = dataset.key, VlmConfig()
    given = given or default
    for name in ("dtype", "quantize"):
        value, made_with = getattr(given, name), getattr(key, name)
        if value not in (getattr(default, name), made_with):
            raise UserError(_differs(name, made_with, value))
    vlm = key.vlm if given.vlm == default.vlm else given.vlm
    if given.vlm == default.vlm and vlm != BUILTIN and "/" not in vlm and not Path(vlm).is_dir():
        raise UserError(
            f"these labels were made with a checkpoint in a folder named '{vlm}', which is not "
            f"here; say where it lies: --vlm FOLDER"
        )
    made_with = {"dtype": key.dtype, "quantize": key.quantize}
    revision = given.vlm_revision or key.vlm_revision
    return with_options(
        VlmConfig, {**asdict(given), **made_with, "vlm": vlm, "vlm_revision": revision}
    )


def scoring_job(
    dataset: LabelledDataset, *, episodes: Sequence[int], vlm: VlmConfig, output: Path
) -> Job:
    """Set up another pass over labelled episodes that scores them as the labels were.

    Args:
        dataset: what is scored, and how it was.
        episodes: which.
        vlm: from `same_vlm`.
        output: folder of the labels' store or of another one, see `output_of`.

    Raises:
        UserError: the dataset lacks the camera that was scored.
    """
    key = dataset.key
    cameras = dataset.source.meta.camera_keys
    if key.camera not in cameras:
        raise UserError(
            f"these labels were made with camera={key.camera}, which the dataset no longer has; it "
            f"has: {', '.join(cameras)}. Label it again"
        )
    config = LabelConfig(
        root=dataset.source.root,
        camera=key.camera,
        instruction=key.instruction,
        vlm=vlm,
        sample_fps=key.sample_fps,
        prefixes="every" if key.prefixes is None else key.prefixes,
        final_frame=key.final_frame,
        max_images=key.max_images,
        max_pixels=key.max_pixels,
        engine="per-prefix" if key.engine == "per-prefix" else "one-pass",
    )
    job = Job(
        config=config,
        source=dataset.source,
        camera=key.camera,
        frames=dataset.source.frames,
        segments=segments(dataset.source, episodes, instruction=key.instruction),
        fingerprints=dataset.source.fingerprints,
        output=output,
    )
    return fetch_job_videos(job)


def identify_same(dataset: LabelledDataset, job: Job) -> VlmIdentity:
    """Pin the VLM of a job, and check that its scores compare with the labels'.

    Raises:
        UserError: it cannot be found, or something that changes a score differs: says what.
    """
    identity = identify(job.config.vlm)
    now, then = asdict(score_key(job, identity)), asdict(dataset.key)
    for name, value in now.items():
        if value != then[name]:
            raise UserError(_differs(name, then[name], value))
    return identity


def _differs(name: str, made_with: object, value: object) -> str:
    if name == "prompt":
        return "these labels were made with another version's prompt; label the dataset again"
    rule = f"these labels were made with {name}={made_with}"
    if name == "vlm_revision":
        return (
            f"{rule}; --vlm holds {value}, another checkpoint of this name: give that of the labels"
        )
    option = f"--{name.replace('_', '-')}"
    return f"{rule}; {option} {value} would not compare with them: give {option} {made_with}"


def output_of(dataset: LabelledDataset, output: Path | None) -> Path:
    """The folder in whose store more scores go: the labels' own, where that can be written to.

    A snapshot in the Hub's cache is no place for them.

    Args:
        dataset: what is scored.
        output: where else; as ``label`` would choose if not given.
    """
    in_cache = dataset.source.revision is not None and dataset.labels == dataset.source.root
    if not in_cache and os.access(dataset.labels, os.W_OK | os.X_OK):
        return dataset.labels
    if output is not None:
        return output.expanduser().absolute()
    return default_output(dataset.source)


def stores_of(dataset: LabelledDataset, output: Path) -> list[Store]:
    """Where scores of the labels' key may be: the labels' own store, then that of the output."""
    digest = dataset.key.digest()
    folders = dict.fromkeys([dataset.labels, output])
    return [Store(folder / WORK_FOLDER / digest, dataset.key, dataset.fps) for folder in folders]


def writable_store(dataset: LabelledDataset, output: Path) -> Store:
    """The store of the labels' key in an output folder.

    Raises:
        UserError: the folder belongs to another dataset.
    """
    if output == dataset.labels:
        return dataset.store
    check_lineage(
        output,
        dataset=dataset.source.repo_id,
        fingerprint=dataset.source.fingerprints.dataset,
        recordings=dataset.source.fingerprints.recordings,
    )
    return open_store(output, dataset.key, fps=dataset.fps)
