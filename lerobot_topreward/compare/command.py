"""The compare command: several judges score one sample, and the evidence says which one to use."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase

from rich.console import Console

from lerobot_topreward.compare.asking import Sample, ask_judge, identify_result
from lerobot_topreward.compare.comparison import Comparison, JudgeResult, to_json
from lerobot_topreward.compare.config import CompareConfig, Judge
from lerobot_topreward.compare.table import print_comparison
from lerobot_topreward.console import make_console, print_json, write_command
from lerobot_topreward.data.dataset import fetch_videos, open_source, segments
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.judging.choice import Candidate, choose_judge
from lerobot_topreward.judging.judges import curve_agreement
from lerobot_topreward.scoring.control_scores import spread_episodes
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.storage.output import check_output
from lerobot_topreward.storage.reader import default_output
from lerobot_topreward.storage.store import open_store
from lerobot_topreward.vlm.identity import resolve_device


def compare(config: CompareConfig, *, console: Console) -> int:
    """Compare judges and print what was found; returns the exit code.

    Raises:
        UserError: see `compare_judges`.
    """
    progress = make_console(stderr=True) if config.json else console  # is not part of the JSON
    found = compare_judges(config, console=progress)
    if config.json:
        print_json(console, to_json(found))
    else:
        print_comparison(found, console)
    return 1 if found.failed else 0


def compare_judges(config: CompareConfig, *, console: Console | None = None) -> Comparison:
    """Compare judges on a sample of a dataset, as `lerobot-topreward compare` does.

    Args:
        config: the command's options; `json` is not used.
        console: where the progress of scoring is shown; nowhere by default.

    Raises:
        UserError: no such dataset, or no judge can be asked. One that fails beside others does not
            raise: its result says why.
        KeyboardInterrupt: the user stopped it; whatever was scored is kept.
    """
    console = console or Console(quiet=True)
    judges = config.read_judges()
    resolve_device(config.device)
    sample, output = _draw_sample(config, console)
    # All that needs no model, of every judge, before the first model is loaded.
    results = [
        identify_result(JudgeResult(letter, judge), config, camera=sample.camera, console=console)
        for letter, judge in zip(ascii_uppercase, judges, strict=False)
    ]
    _refuse_twins(results)
    if all(result.reason is not None for result in results):
        raise UserError("no judge can be asked; why not is said above")
    fps = float(sample.source.meta.fps)
    with output_lock(output):
        fetch_videos(sample.source, sample.camera, list(sample.segments))
        results = [
            result
            if result.key is None
            else ask_judge(
                result, config, sample, open_store(output, result.key, fps=fps), console=console
            )
            for result in results
        ]
    return _sum_up(config, sample, results)


def _draw_sample(config: CompareConfig, console: Console) -> tuple[Sample, Path]:
    """Open a dataset and draw the sample of it; find out where its scores go."""
    source = open_source(repo_id=config.repo_id, root=config.root, revision=config.revision)
    camera = resolve_camera(source.meta, config.scoring.camera)
    known: Success | None = None
    try:
        known = read_success(source, config.success_file)
    except UserError as error:
        if config.success_file is not None:
            raise
        console.print(f"no outcomes are used: {error}", style="yellow")
    success = {} if known is None else known.by_episode
    everything = range(source.meta.total_episodes)
    cut = segments(source, everything, instruction=config.scoring.instruction)
    texts = {
        episode: [part.instruction for part in parts] for episode, parts in cut.items() if parts
    }
    if not texts:
        raise UserError(f"{source.repo_id} has no frames, so there is nothing to score")
    chosen = spread_episodes(texts, config.sample, success=success)
    output = default_output(source)
    if config.output is not None:
        output = config.output.expanduser().absolute()
        if output.exists() and output.samefile(source.root):
            raise UserError(
                f"`output={config.output}` is the dataset itself; leave it out, and scores go to "
                f"{default_output(source)}"
            )
    check_output(
        source.root,
        output,
        fingerprint=source.fingerprints.dataset,
        dataset=source.repo_id,
        recordings=source.fingerprints.recordings,
        overwrite=True,  # scores are added, and no label is touched
    )
    sample = Sample(source, camera, {episode: cut[episode] for episode in chosen}, success)
    return sample, output


def _refuse_twins(results: Sequence[JudgeResult]) -> None:
    """Refuse two names of one judge, whose scores would be the same file."""
    for result, other in combinations(results, 2):
        if result.key is not None and result.key == other.key:
            raise UserError(
                f"`judges`: {result.judge.name} and {other.judge.name} are the same judge; leave out one"
            )


def _sum_up(config: CompareConfig, sample: Sample, results: Sequence[JudgeResult]) -> Comparison:
    """Compare what the judges said, and choose."""
    compared = [result for result in results if result.summary is not None]
    candidates = [
        Candidate(result.letter, result.summary, result.seconds)
        for result in compared
        if result.summary is not None
    ]
    success = {
        episode: sample.success[episode] for episode in sample.segments if episode in sample.success
    }
    advice = choose_judge(candidates, success) if candidates else None
    advised = next(
        (result for result in results if advice and result.letter in advice.names[:1]), None
    )
    return Comparison(
        dataset=sample.source.repo_id,
        total=sample.source.meta.total_episodes,
        episodes=list(sample.segments),
        success=success,
        camera=sample.camera,
        schedule=config.scoring.schedule,
        results=results,
        agreement={
            (result.letter, other.letter): curve_agreement(result.scores, other.scores)
            for result, other in combinations(compared, 2)
        },
        advice=advice,
        label=None if advised is None else describe_label(config, advised.judge),
    )


def describe_label(config: CompareConfig, judge: Judge) -> str:
    """Spell the command that labels the dataset with a judge and finds the scores of the sample."""
    options = {
        name: getattr(config, name)
        for name in ("repo_id", "root", "revision", "success_file", "output")
    } | judge.options
    asked = {item.name: getattr(config.scoring, item.name) for item in fields(ScoringConfig)}
    usual = {item.name: item.default for item in fields(ScoringConfig)}
    if judge.server is not None:
        place = ("dtype", "server_video", "server_key_env", "concurrency")
    elif judge.reward_model is not None:  # is shown videos in its own way
        place = ("device",)
        del asked["max_pixels"], asked["engine"]
    else:
        place = ("dtype", "device", "device_map")
    for name in place:
        asked[name], usual[name] = getattr(config, name), getattr(CompareConfig, name)
    options |= {name: value for name, value in asked.items() if value != usual[name]}
    return write_command("label", **options)
