"""Score gray videos: one pass of the VLM for every instruction of a dataset, see `storage.blank`."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from lerobot_topreward.console import stop_on_signal
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, PrefixScores, Segment
from lerobot_topreward.scoring.scorer import Scorer
from lerobot_topreward.storage.blank import image_size
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import Shard, Store

GRAY = 128  # of 255, the middle of what an image can be


def blank_clip(segment: Segment, key: ScoreKey, *, fps: float, size: tuple[int, int]) -> Clip:
    """Show gray at the times of a segment; `size` is height and width, pixels."""
    indices = key.sample(segment.length, fps=fps)
    return Clip(
        segment=segment,
        fps=fps,
        frames=np.full((1, *size, 3), GRAY, dtype=np.uint8),
        shown=np.zeros(len(indices), dtype=np.int64),
        frame_indices=indices,
    )


def score_blanks(
    source: Source, store: Store, shards: Sequence[Shard], scorer: Scorer, *, console: Console
) -> bool:
    """Score the gray videos that a store lacks, each written as soon as it is done.

    Returns:
        Whether all were scored; not if the user stopped it.

    Raises:
        UserError: one cannot be scored, or the disk is full; those before it are kept.
    """
    size = image_size(source, store.key.camera)
    with stop_on_signal(console) as stop:
        for i, shard in enumerate(shards):
            if stop.asked:
                return False
            (segment,) = shard.segments
            clip = blank_clip(segment, store.key, fps=store.fps, size=size)
            images = np.arange(1, len(clip.shown) + 1)
            console.print(f"gray video {i + 1} of {len(shards)}: {len(images)} images, one pass")
            try:
                answers = scorer.score(clip, images.tolist(), [segment.instruction])
            except EpisodeError as error:
                raise UserError(
                    f"the gray video of `debias=blank` cannot be scored: {error}"
                ) from None
            scores = PrefixScores(
                segment=segment,
                control="blank",
                prefix_length=clip.frame_indices + 1,
                frame_index=clip.frame_indices,
                log_prob_true=answers.true[0].astype(np.float32),
                log_prob_false=answers.false[0].astype(np.float32),
                true_censored=None if answers.true_censored is None else answers.true_censored[0],
                false_censored=None
                if answers.false_censored is None
                else answers.false_censored[0],
                log_prob_success=None if answers.success is None else answers.success[0],
            )
            store.write(shard, [scores])
    return True
