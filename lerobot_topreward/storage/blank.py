"""The gray video that `Formula` "blank" subtracts: which ones a dataset needs, and how they are read.

What a video's length alone earns hardly depends on the episode, so one video serves them all: gray
images of the dataset's own size, at the times of its longest segment of an instruction, asked about
that instruction after every image. A prefix that shows k images takes what the gray video scores
after k. That is exact but for three things:

- The final image of an episode stands at its own time, in the gray video at the next sampled one.
- With ``max_images``, long segments are thinned, so the k-th image of a short one is earlier.
- Where the images of a long video have to share a budget, they are shown smaller than those of a
  short one; the gray video's size is that of the longest.

It is a shard like any other, ``blank_<digest>.parquet``; the digest is of instruction, image size
and length, so that a longer episode, another size or another text asks for a file of its own.
"""

from collections.abc import Collection, Sequence
from typing import Any

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.frames import find_runs
from lerobot_topreward.data.schedule import images_shown
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import NO_EPISODE, Shard, Store

_MOST_PIXELS = 10**8  # of an image: metadata that ask for more are wrong


def list_blanks(source: Source, key: ScoreKey, instructions: Collection[str]) -> list[Shard]:
    """List the gray videos that a dataset needs for some of its instructions.

    Raises:
        UserError: see `image_size`.
    """
    height, width = image_size(source, key.camera)
    tasks = source.meta.tasks
    longest = dict.fromkeys(sorted(instructions), 0)
    for episode in range(source.meta.total_episodes):
        task_index = source.frames.task_index[source.frames.rows(episode)]
        runs = [(n, tasks.get(task, "")) for _, n, task in find_runs(task_index)]
        if key.instruction is not None:
            runs = [(len(task_index), key.instruction)]
        for length, text in runs:
            if text in longest:
                longest[text] = max(longest[text], length)
    return [
        Shard((Segment(NO_EPISODE, 0, length, text),), "blank", f"gray {width}x{height}", None)
        for text, length in longest.items()
        if length
    ]


def image_size(source: Source, camera: str) -> tuple[int, int]:
    """Height and width of a camera's images, by the dataset's metadata.

    Raises:
        UserError: they do not say it, or something impossible.
    """
    shape: Any = source.meta.features.get(camera, {}).get("shape", ())
    if len(shape) == 3:
        first = shape[0] <= 4 < shape[2]  # channels first
        height, width = (int(size) for size in (shape[1:] if first else shape[:2]))
        if 0 < height * width <= _MOST_PIXELS:
            return height, width
    raise UserError(
        f"the shape of {camera} in meta/info.json must be its images' height, width and channels; "
        f"got {list(shape)}"
    )


def read_blanks(
    stores: Sequence[Store], source: Source, scores: Sequence[PrefixScores]
) -> list[PrefixScores]:
    """Read what as many gray images score as each prefix shows, as scores of the same segments.

    Segments of an instruction whose gray video was not scored are left out.

    Args:
        stores: of one key; the first that has a gray video is read.
        source: the dataset.
        scores: of its segments, control "none".
    """
    key = stores[0].key
    if not any(any(store.folder.glob("blank_*.parquet")) for store in stores):
        return []  # most datasets: nothing more has to be looked at
    known: dict[str, PrefixScores] = {}
    for shard in list_blanks(source, key, {part.segment.instruction for part in scores}):
        for store in stores:
            if (read := store.read(shard)) is not None:
                known[shard.segments[0].instruction] = read[0]
                break
    found = []
    for part in scores:
        segment, gray = part.segment, known.get(part.segment.instruction)
        if gray is None:
            continue
        sampled = key.sample(segment.length, fps=stores[0].fps)
        rows = images_shown(part.prefix_length, sampled) - 1
        found.append(
            PrefixScores(
                segment=segment,
                control="blank",
                prefix_length=part.prefix_length,
                frame_index=part.frame_index,
                log_prob_true=gray.log_prob_true[rows],
                log_prob_false=gray.log_prob_false[rows],
            )
        )
    return found
