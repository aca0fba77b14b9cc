"""The label command: dataset -> clips -> log-probs -> store -> rewards -> sidecar and columns."""

import time
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console

from lerobot_topreward.console import INTERRUPTED
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.kept_inspection import inspect_source
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.finish import LabelResult, finish, print_labels
from lerobot_topreward.label.job import claim_output, failure_lines, open_job
from lerobot_topreward.label.next_reward import check_next_reward
from lerobot_topreward.label.plan import (
    Plan,
    choose_vlm,
    describe_start,
    describe_work,
    find_success,
    list_work,
    make_plan,
    plan_store,
)
from lerobot_topreward.label.remote import label_on_jobs
from lerobot_topreward.label.score import begin_run, score_rest
from lerobot_topreward.label.spread import count_workers, score_own_share, spread
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import check_push

_LISTED = 5  # broken episodes that are named


def label(config: LabelConfig, *, console: Console) -> int:
    """Label a dataset and print what was done; returns the exit code.

    Raises:
        UserError: see `label_dataset`.
    """
    if config.job.is_remote:
        return label_on_jobs(config, console=console)
    result = label_dataset(config, console=console)
    if config.dry_run:
        for line in failure_lines(result.failed):
            console.print(line, style="yellow")
        console.print("a dry run: nothing was scored or written")
        return 0
    if result.interrupted:
        kept = result.labelled if config.spread.share is None else result.scored
        console.print(
            f"stopped: {kept} episodes are scored and kept; run the same command again to go on"
        )
        return INTERRUPTED
    if result.jobs:
        console.print(f"submitted            Slurm jobs {' and '.join(result.jobs)}")
        console.print("the second one writes the labels when all of the first have ended well")
        return 0
    if config.spread.share is not None:
        console.print(f"share                {config.spread.share}")
        console.print(f"episodes scored now  {result.scored}")
        console.print("when all shares are scored, run without `share` to write the labels")
        return _say_failed(result, console)
    print_labels(result, write=config.write, console=console)
    return _say_failed(result, console)


def _say_failed(result: LabelResult, console: Console) -> int:
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
    if config.job.is_remote:
        raise UserError(f"`job.target={config.job.target}` is for the command line; leave it out")
    workers = count_workers(config)
    config = choose_vlm(config, console=console)
    job = open_job(config)
    if config.next_reward:
        check_next_reward(job.source.meta.features)
    success = find_success(config, job.source, console=console)
    if config.push.push_to_hub:
        check_push(job.destination, ours=lineage_of(job.source))
    share = config.spread.read_share()
    skip_check = config.skip_check or share is not None
    checked = None
    if not skip_check:
        checked = inspect_source(job.source, labels=job.output, episodes=list(job.segments))
    broken = {} if checked is None else checked.inspection.describe_broken()
    _say_broken(broken, console)
    plan = make_plan(config, job)
    if share is None:
        describe_start(plan, console=console)
    if config.dry_run:
        return _describe_run(plan, console)
    if share is not None:
        return score_own_share(plan, share, began=began, console=console)
    if workers > 1 or config.spread.launch is not None:
        return spread(
            plan,
            workers=workers,
            success=success,
            broken=broken,
            checked=checked,
            began=began,
            console=console,
        )
    with claim_output(job, overwrite=config.overwrite):
        run = begin_run(plan, broken=broken, fetch=True)
        if checked is not None:
            checked.keep(job.output)
        work = list_work(plan, run.store, prints=run.prints)
        describe_work(plan, run.store, work, console=console)
        score_rest(plan, run, work, console=console)
        result = finish(plan, run, success=success, began=began, console=console)
    return replace(result, seconds=time.monotonic() - began)


def _describe_run(plan: Plan, console: Console) -> LabelResult:
    """Say what a run would do; writes nothing."""
    job, source = plan.job, plan.job.source
    store = plan_store(plan)
    episodes = range(source.meta.total_episodes)
    prints = video_prints(source, camera=job.camera, episodes=episodes)
    work = list_work(plan, store, prints=prints, fetched=False)
    describe_work(plan, store, work, console=console)
    return LabelResult(job.output, store, failed=work.failed)


def _say_broken(broken: Mapping[int, str], console: Console) -> None:
    """Say which recordings are broken, as `lerobot-topreward check` does."""
    for episode, reason in [*broken.items()][:_LISTED]:
        console.print(f"episode {episode} is broken: {reason}", style="yellow")
    if broken:
        more = f"and {len(broken) - _LISTED} more are broken. " if len(broken) > _LISTED else ""
        console.print(
            f"{more}Broken episodes are labeled all the same; curate drops them, and "
            "lerobot-topreward check says more (`skip_check` leaves this out)",
            style="yellow",
        )
