"""The label command in many processes: one deals the episodes out, others score, one finishes."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from rich.console import Console

from lerobot_topreward.config import as_json
from lerobot_topreward.console import EpisodeProgress, stop_on_signal
from lerobot_topreward.data.dataset import picture_files
from lerobot_topreward.data.prefetch import decode_threads
from lerobot_topreward.data.success import Success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock, work_folder
from lerobot_topreward.judging.kept_inspection import Inspected
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.finish import LabelResult, finish_shares
from lerobot_topreward.label.job import claim_output
from lerobot_topreward.label.plan import Plan, Work, describe_work, list_work, plan_store
from lerobot_topreward.label.score import begin_run, score_share
from lerobot_topreward.scoring.launch.config import (
    JobConfig,
    RayConfig,
    Share,
    SlurmConfig,
    SpreadConfig,
)
from lerobot_topreward.scoring.launch.deal import deal_out
from lerobot_topreward.scoring.launch.shares import read_records
from lerobot_topreward.vlm.identity import BUILTIN, find_folder

if TYPE_CHECKING:
    from lerobot_topreward.label.steps import ScoreStep

_SHOW_EVERY_S = 1.0


def count_workers(config: LabelConfig) -> int:
    """How many processes of this machine score.

    Raises:
        UserError: more than one, or a cluster, and what starts them is not here.
    """
    count = config.spread.workers or 1
    if count == "auto":
        if config.server.server:  # the processes only decode
            count = max(1, (os.cpu_count() or 1) // 2)
        else:
            count = max(1, len(_visible_gpus(config)))
    if count > 1 or config.spread.launch is not None:
        extra = "ray" if config.spread.launch == "ray" else "scale"
        packages = ("datatrove", "ray") if extra == "ray" else ("datatrove",)
        if any(find_spec(package) is None for package in packages):
            option = "workers" if config.spread.launch is None else "launch"
            raise UserError(
                f"`{option}` needs {' and '.join(packages)}; install with: pip install "
                f"'lerobot-topreward[{extra}]'"
            )
    if config.spread.launch == "slurm":
        if shutil.which("sbatch") is None:
            raise UserError(
                "`launch=slurm` needs Slurm's sbatch, which is not here; run it on a login node"
            )
        if "SLURM_ARRAY_TASK_ID" in os.environ:  # by which datatrove knows its own tasks
            raise UserError("`launch=slurm` submits jobs, so it cannot run in a job array itself")
    return count


def _visible_gpus(config: LabelConfig) -> list[str]:
    if config.vlm.device not in ("auto", "cuda") or config.server.server:
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(i) for i in range(count)]


def score_own_share(plan: Plan, share: Share, *, began: float, console: Console) -> LabelResult:
    """Score one share of all episodes asked for, by itself; others are scored elsewhere.

    Raises:
        UserError: see `score_share`.
    """
    frames = {i: sum(part.length for part in cut) for i, cut in plan.job.segments.items() if cut}
    episodes = _deal(plan, frames, ranks=share.of)[share.rank]
    outcome = score_share(plan, share, episodes, console=console)
    return LabelResult(
        plan.job.output,
        plan_store(plan),
        scored=outcome.answered,
        failed=outcome.failed,
        interrupted=outcome.interrupted,
        seconds=time.monotonic() - began,
    )


def _deal(plan: Plan, costs: Mapping[int, float], *, ranks: int) -> list[list[int]]:
    names = picture_files(plan.job.source, plan.job.camera)
    return deal_out(costs, {episode: names[episode] for episode in costs}, ranks=ranks)


def spread(
    plan: Plan,
    *,
    workers: int,
    success: Success | None,
    broken: Mapping[int, str],
    checked: Inspected | None,
    began: float,
    console: Console,
) -> LabelResult:
    """Score in other processes, each its share, then finish; Slurm does that in a job of its own.

    The output is held while the episodes are dealt out and while labels are made of them. Between,
    those who score share it, so that each of them may end, and others on other machines begin.

    Args:
        plan: what is labeled.
        workers: processes of this machine, where there is no cluster.
        success: known outcomes.
        broken: episodes whose recording is broken, and why.
        checked: the inspection that says so, to be kept; None where there was none.
        began: when the run did, by `time.monotonic`.
        console: told of progress and remarks.

    Raises:
        UserError: a process or the cluster failed, or see `score_share` and `finish`.
    """
    launch = plan.config.spread.read_launch()
    with claim_output(plan.job, overwrite=plan.config.overwrite):
        run = begin_run(plan, broken=broken, fetch=False)
        if checked is not None:
            checked.keep(plan.job.output)
        work = list_work(plan, run.store, prints=run.prints, fetched=False)
        describe_work(plan, run.store, work, console=console)
    shares = _share_out(plan, work, ranks=workers if launch is None else launch.tasks)
    config = _spell_out(plan, ranks=len(shares))
    logs = _find_logs(plan.job.output, config)
    stopped = False
    if shares:
        # loguru would print values of variables beside an error, and the environment with them.
        os.environ["LOGURU_DIAGNOSE"] = "NO"
        from lerobot_topreward.label.steps import FinishStep, ScoreStep

        key = plan.key.digest()
        score = ScoreStep(config, shares, key=key)
        frames = {i: sum(part.length for part in cut) for i, cut in plan.job.segments.items()}
        dealt = [sum(frames[i] for i in share) for share in shares]
        console.print(
            f"processes            {len(shares)}, with {min(dealt):,} to {max(dealt):,} frames each; "
            f"what they print is in {logs}"
        )
        if isinstance(launch, SlurmConfig):
            from lerobot_topreward.scoring.launch.cluster import submit_slurm

            finish = FinishStep(config, key=key, broken=broken)
            jobs = submit_slurm(score, finish, tasks=len(shares), config=launch, logs=logs)
            return LabelResult(plan.job.output, run.store, failed=work.failed, jobs=jobs)
        episodes = len({shard.episode for shard in work.todo})
        with (
            output_lock(plan.job.output, shared=True),
            EpisodeProgress(console, episodes=episodes) as progress,
        ):
            if isinstance(launch, RayConfig):
                _score_on_ray(plan, score, progress, len(shares), config=launch, logs=logs)
            else:
                environments = _environments(plan.config, len(shares))
                stopped = _score_here(plan, score, progress, environments, logs, console)
    return finish_shares(
        plan, success=success, broken=broken, began=began, stopped=stopped, console=console
    )


def _share_out(plan: Plan, work: Work, *, ranks: int) -> list[list[int]]:
    """Deal out what is to be scored; no process has nothing to do, unless it has a gray video."""
    costs: dict[int, float] = {}
    for shard in work.todo:  # another control is another pass, or nearly nothing
        costs[shard.episode] = max(1, sum(part.length for part in shard.segments))
    ranks = min(ranks, max(len(costs), len(work.blanks)))
    return _deal(plan, costs, ranks=ranks) if ranks else []


def _spell_out(plan: Plan, *, ranks: int) -> LabelConfig:
    """Say the options so that they mean the same in any folder, on any machine, and later."""
    config, source = plan.config, plan.job.source
    vlm, server, reward_model = config.vlm, config.server, config.reward_model
    folder = find_folder(vlm.vlm)
    if reward_model.reward_model is not None:
        if plan.identity.folder is not None:
            reward_model = replace(reward_model, reward_path=str(plan.identity.folder.absolute()))
        else:
            commit = plan.identity.revision.partition("+")[0]
            reward_model = replace(reward_model, reward_revision=commit)
    elif folder is None and plan.identity.served is None:
        vlm = replace(vlm, vlm_revision=plan.identity.revision)
    elif folder is not None and vlm.vlm != BUILTIN:
        vlm = replace(vlm, vlm=str(folder.absolute()))
    decode_workers = config.decode_workers
    if decode_workers is None and config.spread.launch is None:  # they share the cores
        decode_workers = max(1, decode_threads() // max(1, ranks))
    if server.server:  # so many requests in flight are meant for all of us
        server = replace(server, concurrency=max(1, server.concurrency // max(1, ranks)))

    def spell(path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    return replace(
        config,
        decode_workers=decode_workers,
        root=spell(config.root),
        revision=config.revision if source.revision is None else source.revision,
        output=None if config.in_place else plan.job.output,
        success_file=spell(config.success_file),
        vlm=vlm,
        server=server,
        reward_model=reward_model,
        spread=SpreadConfig(),
        job=JobConfig(),
    )


def _find_logs(output: Path, config: LabelConfig) -> Path:
    """Locate the folder for logs of these options: datatrove does not notice when they change.

    Raises:
        UserError: a link is in its place.
    """
    text = json.dumps(as_json(config), sort_keys=True)
    folder = work_folder(output) / "logs" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if folder.is_symlink() or folder.parent.is_symlink():
        raise UserError(
            f"{folder} must not be a link, nor {folder.parent}; remove it and run again"
        )
    return folder


def _environments(config: LabelConfig, count: int) -> list[dict[str, str]]:
    """Divide GPUs and threads of this machine among processes."""
    import torch

    gpus = _visible_gpus(config)
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    if not gpus:
        return [threads] * count
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]


def _show(plan: Plan, progress: EpisodeProgress) -> None:
    records = read_records(plan_store(plan).folder)
    progress.show(sum(each.done for each in records), sum(each.frames for each in records))


def _score_here(
    plan: Plan,
    step: "ScoreStep",
    progress: EpisodeProgress,
    environments: Sequence[Mapping[str, str]],
    logs: Path,
    console: Console,
) -> bool:
    """Run a step in processes of this machine, and name those that died.

    Returns:
        Whether the user stopped them.
    """
    from lerobot_topreward.scoring.launch.processes import run_ranks

    with stop_on_signal(console) as stop:

        def watch() -> bool:
            _show(plan, progress)
            return stop.asked

        ranks = run_ranks(step, environments, logs=logs, watch=watch)
    for i, rank in enumerate(ranks):
        code = rank.poll() or 0
        if code == 0 or stop.asked:
            continue
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed with {code}"
        what = f"process {i + 1} of {len(ranks)} {how}; see {rank.printed}"
        console.print(what, style="yellow")
    return stop.asked


def _score_on_ray(
    plan: Plan,
    step: "ScoreStep",
    progress: EpisodeProgress,
    tasks: int,
    *,
    config: RayConfig,
    logs: Path,
) -> None:
    from lerobot_topreward.scoring.launch.cluster import run_ray

    ended = Event()

    def watch() -> None:
        while not ended.wait(_SHOW_EVERY_S):
            _show(plan, progress)

    watcher = Thread(target=watch, daemon=True, name="progress")
    watcher.start()
    try:
        env = {"LOGURU_DIAGNOSE": "NO"}
        run_ray(step, tasks=tasks, config=config, logs=logs, env=env)
    finally:
        ended.set()
        watcher.join()
        _show(plan, progress)
