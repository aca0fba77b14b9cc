"""Before servers, or reward models, are asked: how often, and whether servers answer as they must."""

from collections.abc import Sequence

from rich.console import Console

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.schedule import images_shown, prefix_lengths
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.blank import blank_clip
from lerobot_topreward.scoring.scorer import Scorer
from lerobot_topreward.storage.blank import image_size
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import NO_EPISODE, Shard


def print_requests(
    source: Source, key: ScoreKey, shards: Sequence[Shard], *, console: Console
) -> None:
    """Say how many requests scoring some shards takes, of servers or of a reward model."""
    counts = {part: _count(part, key, fps=source.meta.fps) for s in shards for part in s.segments}
    requests = sum(counts[part] for shard in shards for part in shard.segments)
    if key.reward_model is not None:
        console.print(
            f"reward model         {key.reward_model}, {key.vlm}; prefixes: {requests:,}. How long "
            "one takes is not known before it is asked"
        )
        return
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


def try_servers(
    scorer: Scorer, source: Source, key: ScoreKey, shards: Sequence[Shard], *, console: Console
) -> None:
    """Test the servers of a scorer with the longest video to come; other scorers need no test.

    Args:
        scorer: who is asked.
        source: the dataset.
        key: of the scores.
        shards: what is to be scored.
        console: told of servers that are left out.

    Raises:
        UserError: a server does not answer as it must, or none is left.
    """
    if key.server is None or not shards:
        return
    parts = [part for shard in shards for part in shard.segments]
    longest = max(parts, key=lambda part: len(key.sample(part.length, fps=source.meta.fps)))
    size = image_size(source, key.camera)
    try_clip(scorer, blank_clip(longest, key, fps=source.meta.fps, size=size), console=console)


def try_clip(scorer: Scorer, clip: Clip, *, console: Console) -> None:
    """Test the servers of a scorer with a video; other scorers need no test.

    Raises:
        UserError: a server does not answer as it must, or none is left.
    """
    from lerobot_topreward.vlm.server.scorer import ServerScorer

    if isinstance(scorer, ServerScorer):
        for line in scorer.try_out(clip):
            console.print(line, style="yellow")


def _count(segment: Segment, key: ScoreKey, *, fps: float) -> int:
    """How many requests a segment takes: one for each number of images that is shown."""
    shown = key.sample(segment.length, fps=fps)
    count = None if segment.episode_index == NO_EPISODE else key.prefix_count
    lengths = prefix_lengths(segment.length, shown, count=count)
    return len(set(images_shown(lengths, shown).tolist()))
