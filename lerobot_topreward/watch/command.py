"""The watch command: what a recorder saves is scored at once, and label scores nothing twice."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from lerobot_topreward.console import (
    StopRequest,
    name_episodes,
    print_next,
    stop_on_signal,
    write_command,
)
from lerobot_topreward.data.info import Info
from lerobot_topreward.data.locate import HF_LEROBOT_HOME
from lerobot_topreward.data.selection import choose_camera
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, output_lock
from lerobot_topreward.files.transaction import MANIFEST
from lerobot_topreward.judging.line import Line
from lerobot_topreward.scoring.run import identify_judge, load_scorer
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.output import check_apart, check_writable, foreign_files
from lerobot_topreward.storage.reader import output_beside
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.storage.store import open_store
from lerobot_topreward.storage.waiting import waiting_store
from lerobot_topreward.vlm.identity import VlmIdentity, resolve_device
from lerobot_topreward.vlm.published import choose_checkpoint
from lerobot_topreward.watch.config import WatchConfig
from lerobot_topreward.watch.follow import Clock, Follower
from lerobot_topreward.watch.notes import open_marks
from lerobot_topreward.watch.recording import Videos, color_cameras, read_totals
from lerobot_topreward.watch.reference import draw_lines


def watch(config: WatchConfig, *, console: Console) -> int:
    """Watch a recording and print which episodes to record again; returns the exit code.

    Raises:
        UserError: see `watch_dataset`.
    """
    found = watch_dataset(config, console=console)
    if found is None:
        console.print("nothing was recorded")
        return 0
    _print_summary(config, found, console)
    return 1 if found.failed else 0


def watch_dataset(
    config: WatchConfig, *, console: Console | None = None, clock: Clock | None = None
) -> Follower | None:
    """Watch a recording, as `lerobot-topreward watch` does.

    Args:
        config: the command's options.
        console: where verdicts are shown, one line per episode; nowhere by default.
        clock: tells the time and waits.

    Returns:
        What was found of every episode; None where the user stopped before there was a dataset.

    Raises:
        UserError: something that the user can fix; whatever was scored is kept.
    """
    console, clock = console or Console(quiet=True), clock or Clock()
    root, output = _locate(config)
    _check_output(root, output)
    resolve_device(config.vlm.device)
    if config.vlm.vlm == "auto":
        chosen, why = choose_checkpoint(config.vlm)
        console.print(f"vlm                  {why}")
        config = replace(config, vlm=chosen)
    identity = identify_judge(config.vlm, config.server, reward_model=config.reward_model)
    with output_lock(output), stop_on_signal(console) as stop:
        info = _wait_for(root, config, stop, clock, console)
        if info is None:
            return None
        follower = _prepare(config, root, output, identity, info, clock, console)
        if not stop.asked:
            follower.follow(stop)
    return follower


def _locate(config: WatchConfig) -> tuple[Path, Path]:
    """Say where the dataset is being recorded, and where its scores go.

    Raises:
        UserError: the options do not say it.
    """
    if config.root is not None:
        root = config.root.expanduser().absolute()
    elif config.repo_id is not None:
        root = HF_LEROBOT_HOME / config.repo_id
    else:
        raise UserError("which dataset? Give `root=FOLDER` or `repo_id=OWNER/NAME`")
    if config.output is None:
        return root, output_beside(root)
    return root, config.output.expanduser().absolute()


def _check_output(root: Path, output: Path) -> None:
    """Refuse an output that is surely not ours; whose labels it holds is asked when that is known.

    Raises:
        UserError: says what is in the way.
    """
    name = f"output folder {output}"
    check_apart(output.resolve(), root.resolve(), name=name)
    if output.is_dir():
        stores = any((output / WORK_FOLDER).glob("*/run.json"))
        names = {entry.name for entry in output.iterdir()} - {WORK_FOLDER}
        ours = any((output / file).exists() for file in (MANIFEST, SIDECAR_NAME))
        if names and not stores and not ours:
            advice = "labeling did not write. Choose another `output`"
            raise foreign_files(names, name=name, advice=advice)
    check_writable(output, name=name)


def _wait_for(
    root: Path, config: WatchConfig, stop: StopRequest, clock: Clock, console: Console
) -> Info | None:
    """Wait for the recorder to begin."""
    said = None
    while not stop.asked:
        try:
            return read_totals(root)
        except UserError as error:
            if str(error) != said:
                said = str(error)
                console.print(f"waiting for the recorder: {error}", style="yellow")
        clock.sleep(config.interval)
    return None


def _prepare(
    config: WatchConfig,
    root: Path,
    output: Path,
    identity: VlmIdentity,
    info: Info,
    clock: Clock,
    console: Console,
) -> Follower:
    """Check what can be known of the dataset, say what will be done, and load who is asked."""
    camera = choose_camera(color_cameras(info), config.scoring.camera)
    key = ScoreKey.pin(config.scoring, identity, camera=camera)
    lines = draw_lines(config, key, console=console)
    store = open_store(output, key, fps=info.fps)
    waiting = waiting_store(store)
    place = config.server.urls[0] if config.server.server else resolve_device(config.vlm.device)
    console.print(f"watching             {root}: {info.total_episodes} episodes so far")
    console.print(f"camera               {camera}")
    console.print(f"judge                {key.judge} in {key.dtype} at {place}")
    for line in dict.fromkeys([*lines.by_task.values(), lines.otherwise]):
        if isinstance(line, Line):
            zone = f"bad below {line.low:.2f}, good from {line.high:.2f} nats"
            console.print(f"good                 {zone}, of {line.origin}")
        elif not lines.by_task:
            console.print(f"every episode        cannot tell: {line}", style="yellow")
    console.print(f"scores go to         {output}")
    follower = Follower(
        config=config,
        root=root,
        output=output,
        key=key,
        fps=info.fps,
        lines=lines,
        marks=open_marks(waiting.folder / "marks.json"),
        videos=Videos(root, camera),
        waiting=waiting,
        load=partial(
            load_scorer,
            config.vlm,
            key,
            identity=identity,
            chunk_tokens=config.chunk_tokens,
            server=config.server,
            reward_model=config.reward_model,
        ),
        console=console,
        clock=clock,
    )
    assert follower.scorer is not None  # loaded now, so that the first verdict takes seconds
    return follower


def _print_summary(config: WatchConfig, found: Follower, console: Console) -> None:
    """Print the list to record again, and the next command."""
    bad, good, unsure = (
        sorted(i for i, opinion in found.opinions.items() if opinion.word == word)
        for word in ("bad", "good", "cannot tell")
    )
    console.print(
        f"watched              {found.total} episodes: {len(good)} good, {len(bad)} bad, "
        f"{len(unsure) + len(found.later)} cannot tell, {len(found.failed)} failed"
    )
    for reason, episodes in found.reasons().items():
        console.print(f"not judged           {episodes}: {reason}", style="yellow")
    if bad:
        console.print(f"to record again      {name_episodes(bad)}", style="bold")
        for episode in bad:
            console.print(f"  episode {episode:<10} {found.opinions[episode].reason}")
        rest = ",".join(str(i) for i in range(found.total) if i not in bad)
        console.print(f"train without them   `dataset.episodes=[{rest}]`")
        console.print(
            f"record as many       lerobot-record as before with `dataset.num_episodes={len(bad)}` "
            "and `resume=true`"
        )
    if found.settled is None:
        console.print(
            "the recorder has not closed its files; the scores wait, and label or another watch "
            "takes them over"
        )
    purpose = "label it; what was scored here is not scored again"
    print_next(console, purpose, describe_label(config))


def describe_label(config: WatchConfig) -> str:
    """Spell the command that labels the dataset with the same judge."""
    options: dict[str, object] = {"output": config.output, "chunk_tokens": config.chunk_tokens}
    for part in (config.vlm, config.server, config.reward_model, config.scoring):
        for item in fields(part):
            value = getattr(part, item.name)
            if value != item.default:
                options[item.name] = value
    return write_command("label", of=config, **options)
