"""The first stage of the label command: what the store lacks is scored, all of it or a share."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.config import as_json
from lerobot_topreward.console import EpisodeProgress, spell_options
from lerobot_topreward.data.dataset import Source, fetch_videos
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock, remove
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.job import claim_output
from lerobot_topreward.label.plan import Plan, Work, list_work, plan_store
from lerobot_topreward.records import Clip
from lerobot_topreward.rewards import BASELINES
from lerobot_topreward.scoring.blank import score_blanks
from lerobot_topreward.scoring.launch.config import Share
from lerobot_topreward.scoring.launch.shares import (
    ShareProgress,
    claim_share,
    read_records,
    remove_records,
)
from lerobot_topreward.scoring.run import Outcome, load_scorer, score_shards
from lerobot_topreward.scoring.scorer import SizedScorer
from lerobot_topreward.scoring.servers import try_servers
from lerobot_topreward.storage.kept_scores import recall_scores
from lerobot_topreward.storage.output import describe_lineage
from lerobot_topreward.storage.store import Store, list_shards, open_store, read_run, write_run
from lerobot_topreward.storage.waiting import adopt, read_sizes, waiting_store

_WAIT_S = 60.0  # for a process that only prepares a store


@dataclass(slots=True)
class Run:
    """A run over the store of a plan, and what ``run.json`` tells of it."""

    store: Store
    prints: Mapping[int, str]  # of the videos that are here, by episode
    about: Mapping[str, Any]  # the dataset, the versions and the options
    shown: set[str]  # sizes of images, in words, of all scores in the store
    broken: Mapping[int, str]  # episodes whose recording is broken, and why
    failed: dict[int, str] = field(default_factory=dict)  # episode -> reason
    outcome: Outcome = field(default_factory=Outcome)

    def write(self, state: str, **more: Any) -> None:
        """Write ``run.json``."""
        failed = {str(episode): spell_options(reason) for episode, reason in self.failed.items()}
        run = {**self.about, "state": state, "shown": sorted(self.shown), "failed": failed}
        run["broken"] = {str(episode): reason for episode, reason in self.broken.items()}
        write_run(
            self.store.folder, self.store.key, {**run, "labelled": None, "seconds": None, **more}
        )


def begin_run(plan: Plan, *, broken: Mapping[int, str], fetch: bool) -> Run:
    """Open the store and bring it up to date with the dataset; the output is held by this process.

    What shares of earlier runs told is taken over: none is being scored now. So is what was scored
    while the dataset was being recorded.

    Args:
        plan: what is labeled.
        broken: episodes whose recording is broken, and why.
        fetch: fetch from the Hub the videos that were or are to be scored.

    Raises:
        UserError: the Hub refuses, or what is stored is damaged.
    """
    source, output = plan.job.source, plan.job.output
    if fetch:
        fetch_videos(source, plan.job.camera, list(plan.job.segments))
    episodes = range(source.meta.total_episodes)
    prints = video_prints(source, camera=plan.job.camera, episodes=episodes)
    store = open_store(output, plan.key, fps=float(source.meta.fps))
    before = _read_before(store)
    if before is not None and before.get("fingerprint") != source.fingerprints.dataset:
        store.renumber(source.fingerprints.episodes, prints)
    recall_scores(store)
    # A task that has gone is no longer asked about.
    if plan.others:
        for name in BASELINES["contrast"][len(plan.others) : plan.config.contrast]:
            for path in store.folder.glob(f"episode_*.{name}.parquet"):
                remove(path)
    sizes = (before or {}).get("shown")
    shown = {size for size in sizes if isinstance(size, str)} if isinstance(sizes, list) else set()
    shares = read_records(store.folder)
    shown = shown.union(*(share.shown for share in shares), read_sizes(waiting_store(store)))
    run = Run(store, prints, _describe_run(plan.config, source), shown, broken)
    run.write("running")
    remove_records(store.folder)
    fingerprints = source.fingerprints.episodes
    shards = list_shards(plan.job.segments, ["none"], fingerprints=fingerprints, videos=prints)
    adopt(store, shards, source)
    return run


def _read_before(store: Store) -> dict[str, Any] | None:
    path = store.folder / "run.json"
    return read_run(path) if path.is_file() else None


def _describe_run(config: LabelConfig, source: Source) -> dict[str, Any]:
    fingerprints = source.fingerprints
    options = as_json(config)
    del options["job"]  # on which machine decides nothing
    scoring, push_options, spread = (options.pop(name) for name in ("scoring", "push", "spread"))
    return {
        **describe_lineage(source.repo_id, fingerprints.dataset, fingerprints.recordings),
        "revision": source.revision,
        "version": __version__,
        "python": sys.version.split()[0],
        "config": {**options, **scoring, **push_options, **spread},
    }


def score_rest(plan: Plan, run: Run, work: Work, *, console: Console) -> None:
    """Score all that is still to be scored, in this process, which holds the output.

    Raises:
        UserError: see `score`.
    """
    run.failed.update(work.failed)
    run.outcome = score(
        plan,
        run.store,
        work,
        shown=run.shown,
        note=lambda: run.write("running"),
        console=console,
    )
    run.failed.update(run.outcome.failed)


def score(
    plan: Plan,
    store: Store,
    work: Work,
    *,
    shown: set[str],
    note: Callable[[], None],
    console: Console,
    progress: EpisodeProgress | None = None,
) -> Outcome:
    """Score what is still to be scored, each episode into its shards as soon as it is done.

    Args:
        plan: what is labeled.
        store: where the scores go.
        work: what is to be scored; its videos are here.
        shown: sizes of images so far; others are added.
        note: called when a size was added, before any score that it belongs to.
        console: told of progress and remarks.
        progress: counts the episodes, in place of the console.

    Raises:
        UserError: see `load_scorer` and `score_shards`; every shard so far is kept.
    """
    outcome, config = Outcome(), plan.config
    if not work.todo and not work.blanks:
        return outcome
    scorer = load_scorer(
        config.vlm,
        plan.key,
        identity=plan.identity,
        chunk_tokens=config.chunk_tokens,
        server=config.server,
        reward_model=config.reward_model,
    )
    source = plan.job.source
    try_servers(scorer, source, plan.key, [*work.blanks, *work.todo], console=console)
    outcome.interrupted = not score_blanks(source, store, work.blanks, scorer, console=console)
    if work.todo and not outcome.interrupted:
        look = _report_sizes(scorer, shown, note, console)
        outcome = score_shards(
            source,
            store,
            work.todo,
            scorer,
            console=console,
            look=look,
            progress=progress,
            decode_workers=config.decode_workers,
        )
    return outcome


def score_share(plan: Plan, share: Share, episodes: Sequence[int], *, console: Console) -> Outcome:
    """Score a share of the episodes, beside other processes that score others into the same store.

    Args:
        plan: what is labeled.
        share: which of the processes this is.
        episodes: its episodes.
        console: told of remarks.

    Raises:
        UserError: another process scores this share, or see `score`; every shard so far is kept.
    """
    source, output = plan.job.source, plan.job.output
    before = _read_before(plan_store(plan))
    if before is None or before.get("fingerprint") != source.fingerprints.dataset:
        with claim_output(plan.job, overwrite=plan.config.overwrite, wait_s=_WAIT_S):
            begin_run(plan, broken={}, fetch=False)
    store = open_store(output, plan.key, fps=float(source.meta.fps))
    with (
        output_lock(output, shared=True, wait_s=_WAIT_S),
        claim_share(store.folder, share) as record,
    ):
        try:
            fetch_videos(source, plan.job.camera, episodes)
            prints = video_prints(source, camera=plan.job.camera, episodes=episodes)
            work = list_work(plan, store, prints=prints, share=share, episodes=episodes)
            episodes_left = len({shard.episode for shard in work.todo})
            outcome = score(
                plan,
                store,
                work,
                shown=record.shown,
                note=record.write,
                console=console,
                progress=ShareProgress(console, episodes=episodes_left, record=record),
            )
        except UserError as error:
            record.error = str(error)
            record.write()
            raise
        outcome.failed |= work.failed
        record.failed, record.scored = outcome.failed, outcome.answered
        record.interrupted = outcome.interrupted
        record.write()
    return outcome


def _report_sizes(
    scorer: SizedScorer, shown: set[str], note: Callable[[], None], console: Console
) -> Callable[[Clip], None]:
    """Make a function that prints and stores, once each, the sizes at which images are shown."""
    warned = False

    def look(clip: Clip) -> None:
        nonlocal warned
        (height, width), (of_height, of_width) = scorer.shown_size(clip), clip.size
        size = f"{width}x{height} of {of_width}x{of_height}"
        if size not in shown:
            shown.add(size)
            note()  # before any score that it belongs to
            console.print(f"images are shown at {size}")
        shrunk = height < of_height and (2 * height < of_height or min(height, width) < 128)
        if shrunk and not warned:
            warned = True
            console.print(
                f"small images: {len(clip.shown)} of episode {clip.segment.episode_index} share one "
                f"budget and are shown at {size}; `sample_fps` or `max_images` shows fewer, larger",
                style="yellow",
            )

    return look
