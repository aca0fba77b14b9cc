"""What progress is made of: which controls that takes, what they cost, and which formula is chosen."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.judging.formulas import compare_formulas, list_formulas
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import BASELINES, Formula, find_baselines
from lerobot_topreward.scoring.other_instructions import choose_contrast
from lerobot_topreward.storage.store import Shard


def others_to_ask(config: LabelConfig, source: Source) -> Mapping[str, Mapping[str, str]]:
    """Choose what "contrast" asks of every instruction, whichever episodes are labeled now.

    Raises:
        UserError: see `choose_contrast`.
    """
    if "contrast" not in config.debias_scored and config.formula != "auto":
        return {}
    own = config.scoring.instruction
    texts = source.meta.tasks.values() if own is None else [own]
    return choose_contrast(texts, count=config.contrast)


def describe_costs(
    shards: Sequence[Shard], blanks: Sequence[Shard], *, episodes: int, console: Console
) -> None:
    """Say what the controls of a formula cost that are still to be scored."""
    contrast = {shard.control for shard in shards if shard.control in BASELINES["contrast"]}
    again = {shard.episode for shard in shards if shard.control in contrast}
    again -= {shard.episode for shard in shards if shard.control == "none"}
    if contrast:
        more = f"; {len(again)} episodes are shown again for it" if again else ""
        console.print(
            f"contrast             other instructions asked of each video, in the same pass: "
            f"{len(contrast)}{more}"
        )
    if blanks:
        console.print(
            "blank                gray videos to be scored, a pass of the VLM each, one per "
            f"instruction: {len(blanks)} (the static control takes one per episode: {episodes})"
        )


def choose_formula(
    scores: Sequence[PrefixScores],
    controls: Sequence[PrefixScores],
    success: Mapping[int, bool],
    *,
    console: Console,
) -> tuple[Formula, str]:
    """Choose the formula that the evidence favors, of those that can be made of every episode.

    Returns:
        The formula, and why.
    """
    formulas = list_formulas(scores, controls, of_all=True)
    found = compare_formulas(scores, controls, success=success, formulas=formulas)
    console.print(f"formula              {found.favored.name}: {found.sentence}")
    return found.favored, found.sentence


def leave_out_undebiased(
    scores: Sequence[PrefixScores],
    formula: Formula,
    controls: Sequence[PrefixScores],
    *,
    console: Console,
) -> list[PrefixScores]:
    """Keep the scores of the episodes that can be debiased; prints how many cannot."""
    if formula.debias == "none":
        return list(scores)
    found = find_baselines(scores, formula, controls)
    whole = max(map(len, found), default=0) or 1  # of as many other instructions each
    lacking = {
        score.segment.episode_index
        for score, own in zip(scores, found, strict=True)
        if len(own) < whole
    }
    if lacking:
        console.print(
            f"left without rewards: {len(lacking)} of the episodes that earlier runs scored, which "
            f"have no {formula.debias} control; run again without `episodes` to score it"
        )
    return [score for score in scores if score.segment.episode_index not in lacking]
