"""Before servers are asked about episodes: what that costs, and whether they answer as they must."""

from collections.abc import Sequence

from rich.console import Console

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.schedule import images_shown, prefix_lengths, sample_frames
from lerobot_topreward.records import Segment
from lerobot_topreward.scoring.blank import blank_clip
from lerobot_topreward.scoring.scorer import Scorer
from lerobot_topreward.storage.blank import image_size
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import Shard


def try_servers(
    scorer: Scorer, source: Source, key: ScoreKey, shards: Sequence[Shard], *, console: Console
) -> None:
    """Test the servers of a scorer with the longest video to come; other scorers need no test.

    Args:
        scorer: who is asked.
        source: the dataset.
        key: of the scores.
        shards: what is to be scored.
        console: told of servers that are left out, and of the number of requests.

    Raises:
        UserError: a server does not answer as it must, or none is left.
    """
    if key.server is None or not shards:
        return
    from lerobot_topreward.vlm.server.scorer import ServerScorer

    if not isinstance(scorer, ServerScorer):
        return
    counts = {part: _count(part, key, fps=source.meta.fps) for s in shards for part in s.segments}
    requests = sum(counts[part][1] for shard in shards for part in shard.segments)
    console.print(
        f"server               {key.server}, {key.server_model}, mode {key.server_video}; "
        f"requests: {requests}"
    )
    if key.prefix_count is None and requests > 15 * len(shards):
        console.print(
            "a server is asked once per image and control; `prefixes=15`, as in the paper, asks for "
            "fewer",
            style="yellow",
        )
    longest = max(counts, key=lambda part: counts[part][0])
    size = image_size(source, key.camera)
    clip = blank_clip(longest, key, fps=source.meta.fps, size=size)
    for line in scorer.try_out(clip):
        console.print(line, style="yellow")


def _count(segment: Segment, key: ScoreKey, *, fps: float) -> tuple[int, int]:
    """How many images a segment shows, and how many requests it takes."""
    shown = sample_frames(
        segment.length,
        fps=fps,
        sample_fps=key.sample_fps,
        final_frame=key.final_frame,
        max_images=key.max_images,
    )
    lengths = prefix_lengths(segment.length, shown, count=key.prefix_count)
    return len(shown), len(set(images_shown(lengths, shown).tolist()))
