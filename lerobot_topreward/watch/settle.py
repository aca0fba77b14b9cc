"""Once a dataset can be read: what was scored while it was recorded moves into label's store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lerobot_topreward.config import as_json
from lerobot_topreward.data.dataset import Source, segments
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.files.atomic import remove
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.scoring.claim import claim_store, note_sizes, write_shown
from lerobot_topreward.scoring.run import Outcome, score_shards
from lerobot_topreward.scoring.scorer import SizedScorer
from lerobot_topreward.scoring.servers import try_servers
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.output import check_output
from lerobot_topreward.storage.store import list_shards, open_store
from lerobot_topreward.storage.waiting import adopt, read_sizes, waiting_store
from lerobot_topreward.watch.config import WatchConfig


@dataclass(frozen=True, slots=True)
class Settled:
    """What the store holds of a dataset that can be read."""

    scores: Mapping[int, Sequence[PrefixScores]]  # of every episode that was scored
    moved: int  # episodes whose scores were taken over
    outcome: Outcome  # of those that were scored now


def settle(
    source: Source,
    config: WatchConfig,
    key: ScoreKey,
    output: Path,
    *,
    load: Callable[[], SizedScorer] | None,
    console: Console,
) -> Settled:
    """Take over what was scored while recording, and score what was not.

    Args:
        source: the dataset.
        config: the command's options, to be noted in a store that is new.
        key: of the scores.
        output: folder of the store; it is held by this process.
        load: gives who is asked; None leaves unscored what is not scored.
        console: told of progress.

    Raises:
        UserError: the output is another dataset's, the disk is full, or see `score_shards`.
    """
    ours = source.fingerprints
    check_output(
        source.root,
        output,
        fingerprint=ours.dataset,
        dataset=source.repo_id,
        recordings=ours.recordings,
        overwrite=True,  # scores are added, and no label is touched
    )
    everything = range(source.meta.total_episodes)
    cut = segments(source, everything, instruction=key.instruction)
    prints = video_prints(source, camera=key.camera, episodes=everything)
    store = open_store(output, key, fps=float(source.meta.fps))
    shown = claim_store(store, source, camera=key.camera, state="watched", config=as_json(config))
    waiting = waiting_store(store)
    if more := read_sizes(waiting) - shown:
        shown |= more
        write_shown(store, shown)
    shards = list_shards(cut, ["none"], fingerprints=ours.episodes, videos=prints)
    moved = adopt(store, shards, source)
    remove(waiting.folder)  # what was not taken over is of no episode
    todo = [shard for shard in shards if store.read(shard) is None]
    outcome = Outcome()
    if todo and load is not None:
        scorer = load()
        try_servers(scorer, source, key, todo, console=console)
        look = note_sizes(scorer, store, shown)
        outcome = score_shards(source, store, todo, scorer, console=console, look=look)
    read = {shard.episode: store.read(shard) for shard in shards}
    scores = {episode: parts for episode, parts in read.items() if parts is not None}
    return Settled(scores, len(moved), outcome)
