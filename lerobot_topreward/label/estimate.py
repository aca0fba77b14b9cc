"""What a run will cost, said before its VLM is loaded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.schedule import images_shown, prefix_lengths
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.job import Job
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.servers import print_requests
from lerobot_topreward.storage.blank import image_size
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import NO_EPISODE, Shard
from lerobot_topreward.vlm.identity import VlmConfig, VlmIdentity, resolve_device
from lerobot_topreward.vlm.published import available_bytes, describe_bias

_LONG = 60  # s: of a run that takes less it is said only in a dry run
_VIDEOS = ("static", "reversed", "blank")  # controls that show a video of their own


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the episodes and gray videos that are still to be scored."""

    videos: int  # episodes and gray videos
    prefixes: int  # that are scored, each under every control
    tokens: int  # that go through the language model
    first: float  # s, of the first episode
    seconds: float  # of all
    weights: int  # bytes; 0 where that cannot be known without a network
    beside: int  # bytes of keys and values
    free: int  # bytes

    def describe(self) -> list[str]:
        """Say it in two lines."""
        weights = f"{self.weights / 1e9:.1f} GB of weights" if self.weights else "the weights"
        return [
            f"estimate             {self.videos} videos, {self.prefixes:,} prefixes, "
            f"{self.tokens:,} tokens; about {_spell(self.first)} for the first episode, "
            f"{_spell(self.seconds)} in all",
            f"memory               {weights} and "
            f"{self.beside / 1e9:.1f} GB beside them, of {self.free / 1e9:.1f} GB free",
        ]


def estimate_run(
    shards: Sequence[Shard],
    *,
    source: Source,
    key: ScoreKey,
    vlm: VlmConfig,
    identity: VlmIdentity,
) -> Estimate:
    """Estimate what scoring some shards takes with a checkpoint on this machine.

    Tokens are counted; seconds are the operations that they take, at the speed of a large matrix
    product here, less what Qwen3-VL did not reach of it where that was measured.

    Args:
        shards: at least one, of episodes and gray videos.
        source: the dataset.
        key: how it is scored.
        vlm: the checkpoint and the device.
        identity: of the checkpoint.

    Raises:
        UserError: the checkpoint's processor cannot be read, or metadata lack the images' shape.
    """
    # transformers is imported here, so that a run without scoring is quick.
    from lerobot_topreward.vlm.cost import NOTHING, load_cost_model, operations_per_second
    from lerobot_topreward.vlm.images import resolution
    from lerobot_topreward.vlm.loading import needed_bytes, stored_bytes

    model = load_cost_model(identity)
    height, width = image_size(source, key.camera)
    picture = np.broadcast_to(np.uint8(0), (1, height, width, 3))
    videos: dict[object, list[Shard]] = defaultdict(list)
    for shard in shards:
        videos[shard.name if shard.episode == NO_EPISODE else shard.episode].append(shard)
    total, first, prefixes = NOTHING, None, 0
    for together in videos.values():
        cost = NOTHING
        for segment in together[0].segments:
            shown = key.sample(segment.length, fps=float(source.meta.fps))
            clip = Clip(segment, 1.0, picture, np.zeros_like(shown), shown)
            try:
                size = resolution(model.processor.video_processor, clip, max_pixels=key.max_pixels)
            except EpisodeError:
                continue  # it will fail with a reason
            count = None if segment.episode_index == NO_EPISODE else key.prefix_count
            asked = images_shown(prefix_lengths(segment.length, shown, count=count), shown)
            prefixes += len(asked) * len(together)
            own = [shard for shard in together if shard.control in _VIDEOS]
            passes = [[shard] for shard in own]
            if same := [shard for shard in together if shard.control not in _VIDEOS]:
                passes.append(same)
            for each in passes:
                cost += model.measure_pass(
                    size=size,
                    prefixes=np.unique(asked).tolist(),
                    instructions=[_question(shard, segment) for shard in each],
                    one_by_one=key.engine == "per-prefix",
                )
        total += cost
        if first is None and together[0].episode != NO_EPISODE:
            first = cost
    speed = operations_per_second(vlm.device, identity.dtype)
    weights = needed_bytes(identity, stored=stored_bytes(identity), stored_dtype=model.stored_dtype)
    return Estimate(
        videos=len(videos),
        prefixes=prefixes,
        tokens=total.tokens,
        first=(first or total).operations / speed,
        seconds=total.operations / speed,
        weights=weights,
        beside=total.cache,
        free=available_bytes(vlm, resolve_device(vlm.device)),
    )


def print_estimate(
    shards: Sequence[Shard],
    config: LabelConfig,
    job: Job,
    key: ScoreKey,
    identity: VlmIdentity,
    *,
    console: Console,
) -> None:
    """Say what is known of the VLM's length bias, and what scoring costs.

    Raises:
        UserError: a dry run cannot say it; another run goes on without.
    """
    if bias := describe_bias(identity.name):
        console.print(f"length bias          {bias}")
    if key.server is not None or key.reward_model is not None:
        print_requests(job.source, key, shards, console=console)
        return
    try:
        found = estimate_run(shards, source=job.source, key=key, vlm=config.vlm, identity=identity)
    except UserError:
        if config.dry_run:
            raise
        return  # what is wrong will be said where it matters
    if config.dry_run or found.seconds >= _LONG:
        for line in found.describe():
            console.print(line)
    if found.seconds >= _LONG and resolve_device(config.vlm.device).type == "cpu":
        console.print(
            "no GPU               lerobot-topreward check and curate need none; `config=laptop` takes "
            "less; `server` and `job.target` compute elsewhere",
            style="dim",
        )


def _question(shard: Shard, segment: Segment) -> str:
    if shard.questions is None:
        return segment.instruction
    return shard.questions[shard.segments.index(segment)]


def _spell(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
