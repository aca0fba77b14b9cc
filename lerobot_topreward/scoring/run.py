"""Run a scorer over episodes, one after another, each into its shards as soon as it is done."""

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from rich.console import Console

from lerobot_topreward.console import EpisodeProgress, stop_on_signal
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.prefetch import decode_threads, work_ahead
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, PrefixScores, Segment
from lerobot_topreward.scoring.censoring import Censoring
from lerobot_topreward.scoring.scorer import (
    ConcurrentScorer,
    FittingScorer,
    Scorer,
    SizedScorer,
    frames_wanted,
    score_clip,
)
from lerobot_topreward.storage.key import ScoreKey, ScoringConfig
from lerobot_topreward.storage.store import Shard, Store
from lerobot_topreward.vlm.identity import VlmConfig, VlmIdentity, identify
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@dataclass(slots=True)
class Outcome:
    """What became of the episodes of a run, beside their answers."""

    answered: int = 0  # episodes
    failed: dict[int, str] = field(default_factory=dict)  # episode -> reason
    interrupted: bool = False  # by the user, with episodes left


def identify_judge(
    vlm: VlmConfig,
    server: ServerConfig | None = None,
    *,
    reward_model: RewardModelConfig | None = None,
) -> VlmIdentity:
    """Pin a checkpoint without loading it: of a VLM, here or on servers, or of a reward model.

    Raises:
        UserError: see `identify`, `identify_served` and `identify_reward_model`.
    """
    if reward_model is not None and reward_model.reward_model is not None:
        from lerobot_topreward.vlm.reward_model.identity import identify_reward_model

        return identify_reward_model(reward_model, vlm)
    if server is None or not server.server:
        return identify(vlm)
    from lerobot_topreward.vlm.server.probe import identify_served

    return identify_served(vlm, server)


def load_scorer(
    vlm: VlmConfig | None = None,
    scoring: ScoringConfig | None = None,
    *,
    identity: VlmIdentity | None = None,
    chunk_tokens: int | None = None,
    server: ServerConfig | None = None,
    reward_model: RewardModelConfig | None = None,
) -> SizedScorer:
    """Load a VLM or a reward model that scores video prefixes, or reach servers that run one.

    Args:
        vlm: which checkpoint, and how it is loaded; by default Qwen3-VL-8B-Instruct.
        scoring: its `engine` and `max_pixels` are used.
        identity: of the checkpoint, where it is known already.
        chunk_tokens: tokens per forward pass, > 0; by default what memory allows.
        server: which servers are asked in place of a VLM in this process.
        reward_model: which of LeRobot's reward models is asked in place of a VLM.

    Raises:
        UserError: there is no such checkpoint, device or server, or it does not fit into memory.
    """
    # transformers is imported here, so that a re-run without scoring is quick.
    from lerobot_topreward.vlm.loading import load_vlm
    from lerobot_topreward.vlm.one_pass import OnePassScorer
    from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

    vlm, scoring = vlm or VlmConfig(), scoring or ScoringConfig()
    if reward_model is not None and reward_model.reward_model is not None:
        from lerobot_topreward.vlm.reward_model.loading import load_reward_model

        return load_reward_model(reward_model, vlm, identity=identity, chunk_tokens=chunk_tokens)
    identity = identity or identify_judge(vlm, server)
    if server is not None and server.server:
        from lerobot_topreward.vlm.server.scorer import ServerScorer

        return ServerScorer(server, identity, max_pixels=scoring.max_pixels)
    loaded = load_vlm(vlm, identity)
    if scoring.engine == "per-prefix":
        return PerPrefixScorer(loaded, max_pixels=scoring.max_pixels)
    return OnePassScorer(loaded, chunk_tokens=chunk_tokens, max_pixels=scoring.max_pixels)


def answer_episodes[T](
    source: Source,
    key: ScoreKey,
    episodes: Mapping[int, Sequence[Segment]],
    answer: Callable[[Clip], T],
    outcome: Outcome,
    *,
    console: Console,
    scorer: Scorer | None = None,
    progress: EpisodeProgress | None = None,
    decode_workers: int | None = None,
) -> Generator[tuple[int, list[T]]]:
    """Show every clip of some episodes, one at a time; the next ones are decoded meanwhile.

    The first Ctrl-C lets the episode at hand finish, the second stops at once. An `EpisodeError` of
    `answer` fails its episode. The outcome is told of every episode, and whether the user stopped.
    So many threads decode, and as many clips wait, by default see `decode_threads`.
    A `SelectiveScorer` gets the frames that it wants. With a `ConcurrentScorer`, the next clips are
    also answered meanwhile, each in its own thread; the scorer is closed in the end. Progress is
    shown on the console, unless it is counted elsewhere.

    Yields:
        Each episode that did not fail, with the answers for its segments.
    """

    def read(segment: Segment) -> Clip:
        return read_clip(
            source,
            camera=key.camera,
            segment=segment,
            sample_fps=key.sample_fps,
            final_frame=key.final_frame,
            max_images=key.max_images,
            also=frames_wanted(scorer, key, segment.length, fps=source.meta.fps),
            fit=scorer.fit if isinstance(scorer, FittingScorer) else None,
        )

    def read_and_answer(segment: Segment) -> T:
        return answer(read(segment))

    answers: list[T] = []
    parts = [part for parts in episodes.values() for part in parts]
    found: Generator[tuple[Segment, Any]] = work_ahead(
        read, parts, ahead=decode_workers or decode_threads()
    )
    concurrent = isinstance(scorer, ConcurrentScorer)
    if concurrent:
        ahead = scorer.clips_at_once
        found = work_ahead(read_and_answer, parts, ahead=ahead, give_up=scorer.close)
    with (
        closing(found),
        progress or EpisodeProgress(console, episodes=len(episodes)) as progress,
        stop_on_signal(console) as stop,
    ):
        for segment, result in found:
            episode, segments = segment.episode_index, episodes[segment.episode_index]
            if segment == segments[0]:
                answers = []
            if episode not in outcome.failed:
                try:
                    if isinstance(result, EpisodeError):
                        raise result
                    answers.append(result if concurrent else answer(result))
                except EpisodeError as error:
                    outcome.failed[episode] = str(error)
            if segment != segments[-1]:
                continue
            if episode not in outcome.failed:
                yield episode, answers
                outcome.answered += 1
            progress.episode_done(sum(part.length for part in segments))
            # A run with nothing left to do is not interrupted.
            if stop.asked and progress.done < len(episodes):
                outcome.interrupted = True
                return


def score_shards(
    source: Source,
    store: Store,
    shards: Sequence[Shard],
    scorer: Scorer,
    *,
    console: Console,
    look: Callable[[Clip], None] | None = None,
    progress: EpisodeProgress | None = None,
    decode_workers: int | None = None,
) -> Outcome:
    """Score what a store lacks; all shards of an episode are written when the episode is done.

    The videos of these episodes are here; `look` is shown every clip before it is scored. Progress
    is shown on the console, unless it is counted elsewhere; for `decode_workers` see
    `answer_episodes`.

    Raises:
        UserError: the disk is full, or most scores are only bounds; every shard so far is kept.
    """
    todo: dict[int, list[Shard]] = defaultdict(list)
    for shard in shards:
        todo[shard.episode].append(shard)

    looking = Lock()

    def answer(clip: Clip) -> list[PrefixScores]:
        if look is not None:
            with looking:
                look(clip)
        wanted = todo[clip.segment.episode_index]
        asked = {
            shard.control: shard.questions[shard.segments.index(clip.segment)]
            for shard in wanted
            if shard.questions is not None
        }
        controls = [shard.control for shard in wanted]
        return score_clip(clip, scorer, controls, store.key.prefix_count, asked=asked)

    outcome, censoring = Outcome(), Censoring()
    episodes = {episode: wanted[0].segments for episode, wanted in todo.items()}
    with closing(
        answer_episodes(
            source,
            store.key,
            episodes,
            answer,
            outcome,
            console=console,
            scorer=scorer,
            progress=progress,
            decode_workers=decode_workers,
        )
    ) as answered:
        for episode, segments in answered:
            # One list of controls per segment becomes one list of segments per control.
            for shard, scores in zip(todo[episode], zip(*segments, strict=True), strict=True):
                store.write(shard, scores)
                censoring.add(scores)
            censoring.refuse_early()
    return outcome
