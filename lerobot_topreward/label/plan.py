"""What a run is to do: the same for every process that has the same options."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from lerobot_topreward.console import shorten
from lerobot_topreward.data.dataset import Source, find_video
from lerobot_topreward.data.selection import explain_camera
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.atomic import WORK_FOLDER
from lerobot_topreward.judging.inspection import find_bad_tasks
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.estimate import print_estimate
from lerobot_topreward.label.formula import describe_costs, others_to_ask
from lerobot_topreward.label.job import Job
from lerobot_topreward.scoring.launch.config import Share
from lerobot_topreward.scoring.run import identify_judge
from lerobot_topreward.storage.blank import list_blanks
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import NO_EPISODE, Shard, Store, list_shards
from lerobot_topreward.vlm.identity import VlmIdentity, resolve_device
from lerobot_topreward.vlm.published import choose_checkpoint

_TASKS = 3  # tasks that are shown before a run


@dataclass(frozen=True, slots=True)
class Plan:
    """What is labeled, by whom, and which scores that takes."""

    config: LabelConfig
    job: Job
    others: Mapping[str, Mapping[str, str]]  # other instructions, by control, see `list_shards`
    identity: VlmIdentity
    key: ScoreKey


def choose_vlm(config: LabelConfig, *, console: Console) -> LabelConfig:
    """Choose the VLM where that was left to us, and check that its device is here.

    Raises:
        UserError: it is not, or no VLM fits.
    """
    if config.spread.launch is not None:
        return config  # it runs on other machines
    resolve_device(config.vlm.device)
    if config.vlm.vlm != "auto":
        return config
    chosen, why = choose_checkpoint(config.vlm)
    console.print(f"vlm                  {why}")
    return replace(config, vlm=chosen)


def make_plan(config: LabelConfig, job: Job) -> Plan:
    """Pin the VLM and what it is asked.

    Raises:
        UserError: there is no such VLM, or no other task to ask about.
    """
    others = others_to_ask(config, job.source)
    vlm = config.vlm
    if config.spread.launch is not None:
        vlm = replace(vlm, device="auto")  # that of the tasks need not be here
    identity = identify_judge(vlm, config.server, reward_model=config.reward_model)
    key = ScoreKey.pin(config.scoring, identity, camera=job.camera)
    return Plan(config, job, others, identity, key)


def find_success(config: LabelConfig, source: Source, *, console: Console) -> Success | None:
    """Find known outcomes; a run that does not depend on them goes on without.

    Raises:
        UserError: they cannot be read, and were asked for.
    """
    try:
        return read_success(source, config.success_file)
    except UserError as error:
        if config.success_file is not None or config.formula == "auto":
            raise
        console.print(f"no outcomes are used: {error}", style="yellow")
    return None


def plan_store(plan: Plan) -> Store:
    """Locate the store of a plan, which may not exist yet."""
    folder = plan.job.output / WORK_FOLDER / plan.key.digest()
    return Store(folder, plan.key, float(plan.job.source.meta.fps))


@dataclass(frozen=True, slots=True)
class Work:
    """What a job still has to do."""

    todo: list[Shard]  # of episodes
    blanks: list[Shard]  # gray videos
    failed: dict[int, str]  # episodes that cannot be scored, and why


def list_work(
    plan: Plan,
    store: Store,
    *,
    prints: Mapping[int, str],
    fetched: bool = True,
    share: Share | None = None,
    episodes: Collection[int] | None = None,
) -> Work:
    """List what the store lacks of what is asked for; writes nothing.

    Args:
        plan: what is to be labeled.
        store: which may not exist yet.
        prints: of the videos that are here, by episode.
        fetched: the videos that are to be scored were fetched; else those of the Hub may be missing.
        share: which of the gray videos; all by default.
        episodes: only these of the plan's.
    """
    config, job = plan.config, plan.job
    cut = {i: job.segments[i] for i in (job.segments if episodes is None else episodes)}
    scored = config.debias_scored
    controls = ["none", *(["static"] if "static" in scored else [])]
    controls += plan.others if "contrast" in scored else []
    wanted = list_shards(
        cut,
        controls,
        fingerprints=job.source.fingerprints.episodes,
        videos=prints,
        asked=plan.others,
    )
    asked = {part.instruction for parts in job.segments.values() for part in parts}
    blanks = list_blanks(job.source, store.key, asked) if "blank" in scored else []
    if share is not None:
        blanks = blanks[share.rank :: share.of]
    todo = [shard for shard in wanted if config.force or store.read(shard) is None]
    failed = {i: "it has no frames" for i, segments in cut.items() if not segments}
    if fetched or job.source.revision is None:
        failed |= _find_unusable(job, todo)
    return Work(
        todo=[shard for shard in todo if shard.episode not in failed],
        blanks=[shard for shard in blanks if config.force or store.read(shard) is None],
        failed=failed,
    )


def _find_unusable(job: Job, todo: Sequence[Shard]) -> dict[int, str]:
    """Find the episodes that have no video, before a VLM is loaded."""
    found = {}
    if job.camera in job.source.meta.video_keys:
        for episode in dict.fromkeys(shard.episode for shard in todo):
            try:
                find_video(job.source, job.camera, episode)
            except EpisodeError as error:
                found[episode] = str(error)
    return found


def describe_start(plan: Plan, *, console: Console) -> None:
    """Say what is about to be labeled, by whom and where to; warn of texts that are no task."""
    config, job, source = plan.config, plan.job, plan.job.source
    total, fps = source.meta.total_episodes, float(source.meta.fps)
    some = "" if len(job.segments) == total else f" of {total}"
    parts = [part for segments in job.segments.values() for part in segments]
    minutes = sum(part.length for part in parts) / fps / 60
    console.print(
        f"dataset              {source.repo_id}: {len(job.segments)}{some} episodes, "
        f"{minutes:.1f} minutes at {fps:g} fps"
    )
    why = explain_camera(source.meta, job.camera, chosen=config.scoring.camera is not None)
    console.print(f"camera               {job.camera}, {why}")
    tasks = [*dict.fromkeys(part.instruction for part in parts)]
    for task in tasks[:_TASKS]:
        console.print(f"task                 {shorten(task, 100)}")
    if len(tasks) > _TASKS:
        console.print(f"                     and {len(tasks) - _TASKS} more tasks")
    for finding in find_bad_tasks(dict(enumerate(tasks))):
        console.print(f"no instruction?      {finding.text}", style="yellow")
    if config.spread.launch is not None:
        place = "on the cluster"
    elif config.server.server:
        place = f"at {', '.join(config.server.server)}"
    else:
        place = f"in {plan.identity.dtype} on {resolve_device(config.vlm.device)}"
    console.print(f"judge                {plan.identity.name} {place}")
    console.print(f"labels go to         {job.output}")


def describe_work(plan: Plan, store: Store, work: Work, *, console: Console) -> None:
    """Say what is still to be scored, and what that costs."""
    if damaged := sorted(store.damaged - {NO_EPISODE}):
        names = ", ".join(map(str, damaged[:5]))
        more = ", ..." if len(damaged) > 5 else ""
        console.print(f"the stored scores of episode {names}{more} are damaged: scored again")
    episodes = len(plan.job.segments)
    describe_costs(work.todo, work.blanks, episodes=episodes, console=console)
    shards = [*work.todo, *work.blanks]
    # Nothing is known of the machines of a cluster.
    if shards and plan.config.spread.launch is None:
        print_estimate(shards, plan.config, plan.job, plan.key, plan.identity, console=console)
