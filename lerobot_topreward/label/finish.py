"""The second stage of the label command: what the store holds becomes labels, a judgment and a push."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.console import print_next, spell_options, write_command
from lerobot_topreward.data.dataset import fetch_videos, segments
from lerobot_topreward.data.success import Success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import replace_file, require_space
from lerobot_topreward.judging.judgment import Judgment, judge_labels, print_judgment
from lerobot_topreward.label.formula import choose_formula, leave_out_undebiased
from lerobot_topreward.label.job import claim_output
from lerobot_topreward.label.next_reward import make_next_rewards
from lerobot_topreward.label.plan import Plan, list_work, plan_store
from lerobot_topreward.label.score import Run, begin_run
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.publish.push import PushResult, push
from lerobot_topreward.records import FrameRewards, PrefixScores
from lerobot_topreward.rewards import BASELINES, Formula, label_rewards
from lerobot_topreward.scoring.censoring import Censoring
from lerobot_topreward.scoring.control_scores import read_controls
from lerobot_topreward.scoring.launch.shares import read_records
from lerobot_topreward.scoring.run import Outcome
from lerobot_topreward.storage.blank import read_blanks
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.kept_scores import keep_scores
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.sidecar import ROW_BYTES, SIDECAR_NAME, write_sidecar
from lerobot_topreward.storage.store import Shard, Store, list_shards, shard_name

_WAIT_S = 60.0  # for a process that was told to end, to end


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run did."""

    output: Path
    store: Store
    scores: Sequence[PrefixScores] = ()  # of every episode with rewards, control "none"
    static_scores: Sequence[PrefixScores] = ()  # of the control "static", where it was scored
    episodes: int = 0  # of the dataset, labeled or not
    scored: int = 0  # episodes that went through the VLM in this run
    failed: Mapping[int, str] = field(default_factory=dict)  # episode -> reason
    seconds: float = 0.0
    interrupted: bool = False
    judgment: Judgment | None = None  # of the reward, where there is one
    pushed: PushResult | None = None
    broken: Mapping[int, str] = field(default_factory=dict)  # episode -> what its recording says
    jobs: Sequence[str] = ()  # of a cluster that goes on by itself

    @property
    def labelled(self) -> int:
        """Episodes with rewards, those of earlier runs included."""
        return len({score.segment.episode_index for score in self.scores})


def finish(
    plan: Plan,
    run: Run,
    *,
    success: Success | None,
    began: float,
    console: Console,
) -> LabelResult:
    """Make labels of all scores in the store; the output is held by this process.

    Args:
        plan: what is labeled.
        run: over its store. Of one that was interrupted nothing is written but how it went.
        success: known outcomes.
        began: when the run did, by `time.monotonic`.
        console: told of remarks.

    Raises:
        UserError: most scores are only bounds, the output cannot be written or the Hub refuses.
    """
    config, job, store = plan.config, plan.job, run.store
    source, interrupted = job.source, run.outcome.interrupted
    total = source.meta.total_episodes

    # Read everything, what earlier runs scored of other episodes included.
    read: list[Shard] = []

    names = {*os.listdir(store.folder)}

    def read_all(control: str) -> list[PrefixScores]:
        there = [i for i in range(total) if shard_name(i, control) in names]
        others = [i for i in there if i not in job.segments]
        more = segments(source, others, instruction=plan.key.instruction)
        cut = {i: more[i] if i in more else job.segments[i] for i in there}
        prints = source.fingerprints.episodes
        shards = list_shards(
            cut, [control], fingerprints=prints, videos=run.prints, asked=plan.others
        )
        read.extend(shards)
        return [score for shard in shards for score in store.read(shard) or []]

    scores, static = read_all("none"), read_all("static")
    contrasts = [score for name in plan.others for score in read_all(name)]
    baselines = [*static, *contrasts, *read_blanks([store], source, scores)]
    keep_scores(store, read)

    censoring = Censoring()
    censoring.add(scores)
    for line in censoring.describe():
        console.print(line, style="yellow")
    censoring.refuse_most()

    # Make rewards of it, and bring them to the Hub.
    provenance = rewards = None
    formula, why = config.made_of, None
    if scores and not interrupted:
        if config.formula == "auto":
            truth = {} if success is None else success.by_episode
            evidence = [*baselines, *read_all("reversed")]
            formula, why = choose_formula(scores, evidence, truth, console=console)
        scores = leave_out_undebiased(scores, formula, baselines, console=console)
    if scores and not interrupted:
        provenance, rewards = _write_rewards(
            plan,
            scores,
            baselines,
            formula=formula,
            why=why,
            shown=sorted(run.shown),
            console=console,
        )
    result = LabelResult(
        output=job.output,
        store=store,
        scores=scores,
        static_scores=static,
        episodes=total,
        scored=run.outcome.answered,
        failed=run.failed,
        seconds=time.monotonic() - began,
        interrupted=interrupted,
        broken=run.broken,
    )
    if rewards is not None and provenance is not None:
        own = [each for each in baselines if each.control in BASELINES[formula.debias]]
        labels = LabelledDataset(
            source=source,
            labels=job.output,
            scores=tuple(scores),
            key=plan.key,
            provenance=provenance,
            stored=rewards,
            baselines=tuple(own),
        )
        judgment = judge_labels(labels, controls=read_controls(labels), success=success)
        result = replace(result, judgment=judgment)
    run.write(
        "interrupted" if interrupted else "complete",
        labelled=result.labelled,
        seconds=round(time.monotonic() - began, 3),
    )
    if config.push.push_to_hub and provenance is not None:
        facts = CardFacts(provenance, fps=float(source.meta.fps), failed=len(run.failed))
        result = replace(result, pushed=push(job.output, job.destination, facts=facts))
    return result


def print_labels(result: LabelResult, *, write: str, console: Console) -> None:
    """Say what was labeled, where it is and how far it can be believed."""
    console.print(f"episodes labelled    {result.labelled}")
    console.print(f"of these scored now  {result.scored}")
    console.print(f"failed               {len(result.failed)}")
    console.print(f"seconds              {result.seconds:.1f}")
    if result.labelled:
        what = "sidecar" if write == "sidecar" else "dataset"
        console.print(f"{what:<20} {result.output}")
    else:
        console.print("no episode has a reward, so no dataset was written")
    console.print(f"raw scores           {result.store.folder}")
    if result.pushed is not None:
        state = "unchanged" if result.pushed.unchanged else f"{result.pushed.uploaded} files"
        console.print(f"pushed               {result.pushed.url} ({state})")
    if result.judgment is not None:
        print_judgment(result.judgment, console)
    if result.labelled and write != "sidecar":
        print_next(console, "look at every episode", write_command("report", root=result.output))
        if result.judgment is None or result.judgment.usable:
            rest = "drop" if result.labelled < result.episodes else None
            keep = write_command("curate", root=result.output, unlabelled=rest)
            print_next(console, "choose which ones to keep", keep)


def finish_shares(
    plan: Plan,
    *,
    success: Success | None,
    broken: Mapping[int, str],
    began: float,
    stopped: bool = False,
    console: Console,
) -> LabelResult:
    """Make labels of what other processes scored, each its share, when all of them have ended.

    Args:
        plan: what is labeled.
        success: known outcomes.
        broken: episodes whose recording is broken, and why.
        began: when the run did, by `time.monotonic`.
        stopped: the user stopped them; so may each of them have been.
        console: told of remarks.

    Raises:
        UserError: one of them failed or ended early, or see `finish`.
    """
    job = plan.job
    with claim_output(job, overwrite=plan.config.overwrite, wait_s=_WAIT_S):
        records = read_records(plan_store(plan).folder)
        interrupted = stopped or any(record.interrupted for record in records)
        run = begin_run(plan, broken=broken, fetch=not interrupted)
        run.outcome = Outcome(
            answered=sum(record.scored for record in records), interrupted=interrupted
        )
        for record in records:
            run.failed.update(record.failed)
        if errors := [record.error for record in records if record.error is not None]:
            raise UserError(errors[0])
        if not interrupted:
            _require_scores(plan, run)
        return finish(plan, run, success=success, began=began, console=console)


def _require_scores(plan: Plan, run: Run) -> None:
    """Check that all is scored that was to be, but for episodes that failed.

    Raises:
        UserError: some of those who scored ended early.
    """
    scored = replace(plan, config=replace(plan.config, force=False))
    left = list_work(scored, run.store, prints=run.prints)
    run.failed.update(left.failed)
    episodes = {shard.episode for shard in left.todo} - run.failed.keys()
    if episodes or left.blanks:
        raise UserError(
            f"{len(episodes)} episodes and {len(left.blanks)} gray videos are not scored yet; what "
            "is scored is kept. Run the same command again to go on"
        )


def _write_rewards(
    plan: Plan,
    scores: Sequence[PrefixScores],
    controls: Sequence[PrefixScores],
    *,
    formula: Formula,
    why: str | None,
    shown: Sequence[str],
    console: Console,
) -> tuple[dict[str, Any], FrameRewards]:
    """Turn scores into the rewards of every frame; write the sidecar, the columns or both.

    Args:
        plan: where from, and where to.
        scores: of every episode that gets rewards, control "none".
        controls: what the formula subtracts.
        formula: what progress is made of.
        why: it was chosen, where nobody said so.
        shown: sizes of images, in words.
        console: where remarks are shown.

    Returns:
        How the rewards were made, as it is stored with them, and the rewards.

    Raises:
        UserError: the output cannot be written; the raw scores are kept.
    """
    config, job = plan.config, plan.job
    source = job.source
    rewards = label_rewards(
        scores,
        source.frames.episode_index,
        horizon=job.horizon,
        normalize=config.normalize,
        formula=formula,
        controls=controls,
    )
    provenance: dict[str, Any] = {
        "version": __version__,
        "dataset": source.repo_id,
        "revision": source.revision,
        "scoring": plan.key.to_json(),
        "normalize": config.normalize,
        "scale": formula.scale,
        "debias": formula.debias,
        "horizon_frames": job.horizon,
        "shown": list(shown),
        "episodes_labelled": len({score.segment.episode_index for score in scores}),
        "episodes_total": source.meta.total_episodes,
    }
    if formula.debias == "contrast":
        provenance["contrast"] = config.contrast
    if why is not None:
        provenance["formula"] = {"option": config.formula, "why": spell_options(why)}
    fingerprint = source.fingerprints.dataset
    if config.write == "sidecar":
        path = job.output / SIDECAR_NAME
        needed = ROW_BYTES * len(rewards.index)
        with require_space(job.output, needed=needed), replace_file(path) as draft:
            write_sidecar(draft, rewards, fingerprint=fingerprint, provenance=provenance)
        return provenance, rewards
    # What is pushed to the source itself needs no videos: they are on the Hub already.
    to_source = config.push.push_to_hub and job.destination.repo_id == source.repo_id
    if config.other_cameras and not to_source:
        fetch_videos(source)
    write_columns(
        source.root,
        rewards,
        job.output,
        fingerprint=fingerprint,
        provenance=provenance,
        recordings=source.fingerprints.recordings,
        sidecar=config.write == "both",
        link_videos=config.link_videos,
        overwrite=config.overwrite,
        next_rewards=make_next_rewards(rewards, scores) if config.next_reward else None,
        console=console,
    )
    return provenance, rewards
