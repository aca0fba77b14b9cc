"""Ask judges about a sample, one after another, each into the store that label would use."""

import gc
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from lerobot_topreward.compare.comparison import JudgeResult
from lerobot_topreward.compare.config import CompareConfig
from lerobot_topreward.config import as_json
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.judges import summarize_judge
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.scoring.censoring import Censoring
from lerobot_topreward.scoring.claim import claim_store, note_sizes
from lerobot_topreward.scoring.run import Outcome, identify_judge, load_scorer, score_shards
from lerobot_topreward.scoring.servers import try_servers
from lerobot_topreward.storage.key import ScoreKey, ScoringConfig
from lerobot_topreward.storage.store import Shard, Store, list_shards
from lerobot_topreward.vlm.published import choose_checkpoint

CONTROLS = ("none", "static", "reversed")


@dataclass(frozen=True, slots=True)
class Sample:
    """Some episodes of a dataset."""

    source: Source
    camera: str  # feature key
    segments: Mapping[int, Sequence[Segment]]  # of each episode
    success: Mapping[int, bool]  # by episode, as far as it is known


def identify_result(
    result: JudgeResult, config: CompareConfig, *, camera: str, console: Console
) -> JudgeResult:
    """Pin a judge without loading it, or say why it cannot be asked."""
    judge = result.judge
    try:
        if judge.vlm.vlm == "auto":
            chosen, why = choose_checkpoint(judge.vlm)
            judge = replace(judge, vlm=chosen)
            console.print(f"{result.letter}  auto: {why}")
        identity = identify_judge(judge.vlm, judge.server, reward_model=judge.reward_model)
    except UserError as error:
        console.print(f"{result.letter}  {judge.name} is left out: {error}", style="red")
        return replace(result, reason=str(error))
    scoring: ScoringConfig = config.scoring
    if judge.reward_model is not None:  # is shown videos in its own way
        scoring = replace(scoring, max_pixels=None, engine="one-pass")
    key = ScoreKey.pin(scoring, identity, camera=camera)
    return replace(result, judge=judge, identity=identity, key=key)


def ask_judge(
    result: JudgeResult, config: CompareConfig, sample: Sample, store: Store, *, console: Console
) -> JudgeResult:
    """Score what a store lacks of a sample, and sum up what it holds then.

    A judge that cannot be loaded or reached fails alone: its result says why.

    Raises:
        KeyboardInterrupt: the user stopped it; whatever was scored is kept.
    """
    result = replace(result, folder=store.folder)
    try:
        shown = claim_store(
            store, sample.source, camera=sample.camera, state="compared", config=as_json(config)
        )
        prints = video_prints(sample.source, camera=sample.camera, episodes=list(sample.segments))
        shards = list_shards(
            sample.segments,
            CONTROLS,
            fingerprints=sample.source.fingerprints.episodes,
            videos=prints,
        )
        todo = [shard for shard in shards if store.read(shard) is None]
        if todo:
            console.print(f"{result.letter}  {result.judge.name}: {len(todo)} videos to score")
            result = _score(result, sample, store, todo, shown, config, console)
            free_memory()
        found = {
            name: [
                scores
                for shard in shards
                if shard.control == name
                for scores in store.read(shard) or ()
            ]
            for name in CONTROLS
        }
        return _summarize(result, store, found, sample)
    except UserError as error:
        free_memory()
        console.print(f"{result.letter}  {result.judge.name} failed: {error}", style="red")
        return replace(result, reason=str(error))


def _score(
    result: JudgeResult,
    sample: Sample,
    store: Store,
    todo: Sequence[Shard],
    shown: set[str],
    config: CompareConfig,
    console: Console,
) -> JudgeResult:
    """Load a judge, ask it, and let it go.

    Raises:
        UserError: it cannot be loaded or reached.
        KeyboardInterrupt: the user stopped it.
    """
    try:
        scorer = load_scorer(
            result.judge.vlm,
            store.key,
            identity=result.identity,
            server=result.judge.server,
            reward_model=result.judge.reward_model,
        )
    except UserError:
        raise
    except Exception as error:  # weights are a stranger's, and so is the code that reads them
        what = " ".join(str(error).split())
        raise UserError(f"it cannot be loaded: {type(error).__name__}: {what:.300}") from None
    try_servers(scorer, sample.source, store.key, todo, console=console)

    look = note_sizes(scorer, store, shown)
    began = time.monotonic()
    outcome: Outcome = score_shards(sample.source, store, todo, scorer, console=console, look=look)
    seconds = time.monotonic() - began
    if outcome.interrupted:
        raise KeyboardInterrupt
    scored = sum(shard.episode not in outcome.failed for shard in todo)
    return replace(
        result,
        failed=outcome.failed,
        scored=scored,
        seconds=seconds / scored if scored else float("nan"),
    )


def _summarize(
    result: JudgeResult,
    store: Store,
    found: Mapping[str, Sequence[PrefixScores]],
    sample: Sample,
) -> JudgeResult:
    real = found["none"]
    if not real:
        why = next(iter(result.failed.values()))
        return replace(result, reason=f"no episode could be scored: {why}")
    censoring = Censoring()
    censoring.add(real)
    censoring.refuse_most()
    summary = summarize_judge(
        real,
        {name: found[name] for name in CONTROLS if name != "none"},
        success=sample.success,
        episode_index=sample.source.frames.episode_index,
        fps=store.fps,
        dtype=store.key.precision,
    )
    return replace(result, scores=real, summary=summary)


def free_memory() -> None:
    """Give back the memory of a model that is no longer used: the next one needs it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
