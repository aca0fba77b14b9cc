"""The label command: dataset -> clips -> log-probs -> store -> rewards -> sidecar and columns."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.config import as_json
from lerobot_topreward.console import INTERRUPTED, spell_options
from lerobot_topreward.data.dataset import Source, fetch_videos, segments
from lerobot_topreward.data.success import read_success
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, remove
from lerobot_topreward.judging.findings import inspect_folder
from lerobot_topreward.judging.judgment import Judgment, judge_labels, print_judgment
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.estimate import print_estimate
from lerobot_topreward.label.formula import (
    choose_formula,
    describe_costs,
    leave_out_undebiased,
    others_to_ask,
)
from lerobot_topreward.label.job import (
    claim_output,
    failure_lines,
    list_work,
    open_job,
    write_rewards,
)
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import PushResult, check_push, push
from lerobot_topreward.records import Clip, PrefixScores
from lerobot_topreward.rewards import BASELINES
from lerobot_topreward.scoring.blank import score_blanks
from lerobot_topreward.scoring.censoring import Censoring
from lerobot_topreward.scoring.control_scores import read_controls
from lerobot_topreward.scoring.run import Outcome, identify_judge, load_scorer, score_shards
from lerobot_topreward.scoring.scorer import SizedScorer
from lerobot_topreward.scoring.servers import try_servers
from lerobot_topreward.storage.blank import read_blanks
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.output import describe_lineage
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import (
    NO_EPISODE,
    Store,
    list_shards,
    open_store,
    read_run,
    write_run,
)
from lerobot_topreward.vlm.identity import resolve_device
from lerobot_topreward.vlm.published import choose_checkpoint

_LISTED = 5  # broken episodes that are named


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run did."""

    output: Path
    store: Store
    scores: Sequence[PrefixScores]  # of every episode with rewards, control "none"
    static_scores: Sequence[PrefixScores]  # of the control "static", where it was scored
    scored: int  # episodes that went through the VLM in this run
    failed: Mapping[int, str]  # episode -> reason
    seconds: float = 0.0
    interrupted: bool = False
    judgment: Judgment | None = None  # of the reward, where there is one
    pushed: PushResult | None = None
    broken: Mapping[int, str] = field(default_factory=dict)  # episode -> what its recording says

    @property
    def labelled(self) -> int:
        """Episodes with rewards, those of earlier runs included."""
        return len({score.segment.episode_index for score in self.scores})


def label(config: LabelConfig, *, console: Console) -> int:
    """Label a dataset and print what was done; returns the exit code.

    Raises:
        UserError: see `label_dataset`.
    """
    result = label_dataset(config, console=console)
    if config.dry_run:
        for line in failure_lines(result.failed):
            console.print(line, style="yellow")
        console.print("a dry run: nothing was scored or written")
        return 0
    if result.interrupted:
        console.print(
            f"stopped: {result.labelled} episodes are scored and kept; "
            "run the same command again to go on"
        )
        return INTERRUPTED
    console.print(f"episodes labelled    {result.labelled}")
    console.print(f"of these scored now  {result.scored}")
    console.print(f"failed               {len(result.failed)}")
    console.print(f"seconds              {result.seconds:.1f}")
    if result.labelled:
        what = "sidecar" if config.write == "sidecar" else "dataset"
        console.print(f"{what:<20} {result.output}")
    else:
        console.print("no episode has a reward, so no dataset was written")
    console.print(f"raw scores           {result.store.folder}")
    if result.pushed is not None:
        state = "unchanged" if result.pushed.unchanged else f"{result.pushed.uploaded} files"
        console.print(f"pushed               {result.pushed.url} ({state})")
    if result.judgment is not None:
        print_judgment(result.judgment, console)
    for line in failure_lines(result.failed):
        console.print(line, style="yellow")
    return 1 if result.failed else 0


def label_dataset(config: LabelConfig, *, console: Console | None = None) -> LabelResult:
    """Label a dataset, as `lerobot-topreward label` does.

    Args:
        config: the command's options.
        console: where progress and remarks are shown; nowhere by default.

    Raises:
        UserError: something that the user can fix; whatever was scored is kept.
    """
    began = time.monotonic()
    console = console or Console(quiet=True)
    resolve_device(config.vlm.device)
    if config.vlm.vlm == "auto":
        chosen, why = choose_checkpoint(config.vlm)
        config = replace(config, vlm=chosen)
        console.print(f"vlm                  {why}")
    job = open_job(config)
    source = job.source
    others = others_to_ask(config, source)
    success = None
    try:
        success = read_success(source, config.success_file)
    except UserError as error:
        if config.success_file is not None or config.formula == "auto":
            raise
        console.print(f"no outcomes are used: {error}", style="yellow")
    fps, total = float(source.meta.fps), source.meta.total_episodes
    if config.push.push_to_hub:
        check_push(job.destination, ours=lineage_of(source))
    broken = {} if config.skip_check else _find_broken(source, list(job.segments), console)
    identity = identify_judge(config.vlm, config.server, reward_model=config.reward_model)
    key = ScoreKey.pin(config.scoring, identity, camera=job.camera)
    if config.dry_run:
        store = Store(job.output / WORK_FOLDER / key.digest(), key, fps)
        prints = video_prints(source, camera=job.camera, episodes=range(total))
        work = list_work(config, job, store, others=others, prints=prints, fetched=False)
        describe_costs(work.todo, work.blanks, episodes=len(job.segments), console=console)
        if shards := [*work.todo, *work.blanks]:
            print_estimate(shards, config, job, key, identity, console=console)
        return LabelResult(job.output, store, (), (), scored=0, failed=work.failed)
    with claim_output(job, overwrite=config.overwrite):
        fetch_videos(source, job.camera, list(job.segments))
        prints = video_prints(source, camera=job.camera, episodes=range(total))
        known = {"fingerprints": source.fingerprints.episodes, "videos": prints}
        store = open_store(job.output, key, fps=fps)
        run_file = store.folder / "run.json"
        before = read_run(run_file) if run_file.is_file() else None
        if before is not None and before.get("fingerprint") != source.fingerprints.dataset:
            store.renumber(source.fingerprints.episodes, prints)

        # A task that has gone is no longer asked about.
        if others:
            for name in BASELINES["contrast"][len(others) : config.contrast]:
                for path in store.folder.glob(f"episode_*.{name}.parquet"):
                    remove(path)

        # List what is wanted and see what the store has.
        work = list_work(config, job, store, others=others, prints=prints)
        todo, blanks, failed = work.todo, work.blanks, work.failed
        if damaged := sorted(store.damaged - {NO_EPISODE}):
            names = ", ".join(map(str, damaged[:5]))
            more = ", ..." if len(damaged) > 5 else ""
            console.print(f"the stored scores of episode {names}{more} are damaged: scored again")
        describe_costs(todo, blanks, episodes=len(job.segments), console=console)

        # Score the rest.
        sizes = (before or {}).get("shown")
        shown = {s for s in sizes if isinstance(s, str)} if isinstance(sizes, list) else set()
        record = _describe_run(config, source)

        def write_state(state: str, **more: Any) -> None:
            failures = {str(episode): spell_options(reason) for episode, reason in failed.items()}
            run = {**record, "state": state, "shown": sorted(shown), "failed": failures}
            run["broken"] = {str(episode): reason for episode, reason in broken.items()}
            write_run(store.folder, key, {**run, "labelled": None, "seconds": None, **more})

        write_state("running")
        outcome = Outcome()
        if todo or blanks:
            print_estimate([*todo, *blanks], config, job, key, identity, console=console)
            scorer = load_scorer(
                config.vlm,
                key,
                identity=identity,
                chunk_tokens=config.chunk_tokens,
                server=config.server,
                reward_model=config.reward_model,
            )
            try_servers(scorer, source, key, [*blanks, *todo], console=console)
            outcome.interrupted = not score_blanks(source, store, blanks, scorer, console=console)
            if todo and not outcome.interrupted:
                look = _report_sizes(scorer, shown, lambda: write_state("running"), console)
                outcome = score_shards(source, store, todo, scorer, console=console, look=look)
                failed |= outcome.failed

        # Read everything back, what earlier runs scored of other episodes included.
        def read_all(control: str) -> list[PrefixScores]:
            there = [i for i in range(total) if store.path(i, control).exists()]
            cut = segments(source, there, instruction=key.instruction)
            shards = list_shards(cut, [control], asked=others, **known)
            return [score for shard in shards for score in store.read(shard) or []]

        scores, static = read_all("none"), read_all("static")
        contrasts = [score for name in others for score in read_all(name)]
        baselines = [*static, *contrasts, *read_blanks([store], source, scores)]

        censoring = Censoring()
        censoring.add(scores)
        for line in censoring.describe():
            console.print(line, style="yellow")
        censoring.refuse_most()

        # Make rewards of it, and bring them to the Hub.
        provenance = rewards = None
        formula, why = config.made_of, None
        if scores and not outcome.interrupted:
            if config.formula == "auto":
                truth = {} if success is None else success.by_episode
                evidence = [*baselines, *read_all("reversed")]
                formula, why = choose_formula(scores, evidence, truth, console=console)
            scores = leave_out_undebiased(scores, formula, baselines, console=console)
        if scores and not outcome.interrupted:
            provenance, rewards = write_rewards(
                config,
                job,
                key,
                scores,
                baselines,
                formula=formula,
                why=why,
                shown=sorted(shown),
                console=console,
            )
        result = LabelResult(
            output=job.output,
            store=store,
            scores=scores,
            static_scores=static,
            scored=outcome.answered,
            failed=failed,
            seconds=time.monotonic() - began,
            interrupted=outcome.interrupted,
            broken=broken,
        )
        if rewards is not None and provenance is not None:
            labels = LabelledDataset(
                source=source,
                labels=job.output,
                scores=tuple(scores),
                key=key,
                provenance=provenance,
                stored=rewards,
                baselines=tuple(
                    each for each in baselines if each.control in BASELINES[formula.debias]
                ),
            )
            judgment = judge_labels(labels, controls=read_controls(labels), success=success)
            result = replace(result, judgment=judgment)
        write_state(
            "interrupted" if outcome.interrupted else "complete",
            labelled=result.labelled,
            seconds=round(result.seconds, 3),
        )
        if config.push.push_to_hub and provenance is not None:
            facts = CardFacts(provenance, fps=fps, failed=len(failed))
            pushed = push(job.output, job.destination, facts=facts)
            result = replace(result, pushed=pushed)
    return replace(result, seconds=time.monotonic() - began)


def _find_broken(source: Source, episodes: Sequence[int], console: Console) -> dict[int, str]:
    """Say which recordings are broken, as `lerobot-topreward check` does."""
    inspection = inspect_folder(source.root, repo_id=source.repo_id, episodes=episodes)
    broken = inspection.describe_broken()
    for episode, reason in [*broken.items()][:_LISTED]:
        console.print(f"episode {episode} is broken: {reason}", style="yellow")
    if broken:
        more = f"and {len(broken) - _LISTED} more are broken. " if len(broken) > _LISTED else ""
        console.print(
            f"{more}Broken episodes are labeled all the same; curate drops them, and "
            "lerobot-topreward check says more (`skip_check` leaves this out)",
            style="yellow",
        )
    return broken


def _describe_run(config: LabelConfig, source: Source) -> dict[str, Any]:
    fingerprints = source.fingerprints
    options = as_json(config)
    scoring, push_options = options.pop("scoring"), options.pop("push")
    return {
        **describe_lineage(source.repo_id, fingerprints.dataset, fingerprints.recordings),
        "revision": source.revision,
        "version": __version__,
        "python": sys.version.split()[0],
        "config": {**options, **scoring, **push_options},
    }


def _report_sizes(
    scorer: SizedScorer, shown: set[str], write_state: Callable[[], None], console: Console
) -> Callable[[Clip], None]:
    """Make a function that prints and stores, once each, the sizes at which images are shown."""
    warned = False

    def look(clip: Clip) -> None:
        nonlocal warned
        (height, width), (of_height, of_width) = scorer.shown_size(clip), clip.frames.shape[1:3]
        size = f"{width}x{height} of {of_width}x{of_height}"
        if size not in shown:
            shown.add(size)
            write_state()  # before any score that it belongs to
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
