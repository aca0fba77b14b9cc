"""The section of a dataset card that says what the reward columns are and how far to trust them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from lerobot_topreward import __version__
from lerobot_topreward.rewards import Debias, Scale
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.vlm.prompts import question
from lerobot_topreward.vlm.published import describe_bias

if TYPE_CHECKING:
    from lerobot.datasets.utils import DatasetInfo

START = "<!-- lerobot-topreward:start -->"
END = "<!-- lerobot-topreward:end -->"
_TAGS = ["LeRobot", "topreward"]
_TAG_BLOCK = "tags:\n- LeRobot\n- topreward\n"
# What the dataset viewer shows; without it the sidecar at the root would be taken for the data.
_CONFIGS = "configs:\n- config_name: default\n  data_files: data/*/*.parquet\n"
_LISTED = 500  # episodes that were left out
_FRONT_MATTER = re.compile(
    r"\A\s*---[ \t]*\r?\n(?P<block>.*?^)---[ \t]*\r?$", re.DOTALL | re.MULTILINE
)
_TAG_LINES = re.compile(r"^tags:[ \t]*\r?\n(?:(?P<indent>[ \t]*)-[^\n]*\n)+", re.MULTILINE)
_TAG_INLINE = re.compile(r"^tags:[ \t]*\[[^\]\n]*[^\],\s](?=\s*\])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Curation:
    """Which episodes of a labeled dataset were left out, and why."""

    episodes: int  # there were
    rules: str  # in words
    dropped: Sequence[tuple[int, str]]  # episode as it was numbered, reasons
    trimmed: int  # episodes whose ends were cut


@dataclass(frozen=True, slots=True)
class CardFacts:
    """How the labels of a dataset were made: what its card says about them."""

    provenance: Mapping[str, Any]  # as the sidecar holds it
    fps: float  # Hz
    failed: int = 0  # episodes
    curation: Curation | None = None

    @property
    def key(self) -> ScoreKey:
        """How the raw scores were made."""
        return ScoreKey.from_json(self.provenance["scoring"])

    def summarize(self, source: str) -> str:
        """Describe the dataset that was made from `source` in a line, for the commit."""
        labeled, total = (self.provenance[f"episodes_{what}"] for what in ("labelled", "total"))
        made = f"labeled by {self.key.judge} with lerobot-topreward {__version__}"
        if self.curation is None:
            return f"{labeled} of {total} episodes of {source} {made}"
        return f"{total} of {self.curation.episodes} episodes of {source}, {made}"


_SECTION = """\
{start}
## TOPReward: how far along is the robot?

{asked} Episodes labeled: {labelled} of {total}{failed}.

{curation}| Column | Meaning |
|---|---|
| `topreward.log_prob` | {true}, in nats, <= 0, interpolated between scored moments |
| `topreward.log_prob_false` | the same of {false} |
| `topreward.progress` | {what} scaled to 0..1, {scaled} |
| `topreward.advantage` | progress gained over the next {horizon} frames ({seconds:.2g} s), -1..1 |
| `topreward.labelled` | whether the frame has a reward at all; where not, the others are 0 |
| `topreward.scored` | whether a scored moment is just here: there the log-probabilities are raw |

`topreward_progress.parquet` holds the same values, one row per frame, in the form that LeRobot's
reward-aligned behavior cloning (RA-BC) reads.

```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("{repo_id}", revision="{branch}")
dataset[0]["topreward.progress"]
```

| Made with | |
|---|---|
| Model | {vlm}{kind}, revision `{vlm_revision}`{served} |
| Camera | `{camera}` |
| Frames | {schedule} |
| Source | `{source}` |
| Software | `lerobot-topreward` {version} |

{prompt}**Limits.** The reward is a model's opinion, not a measurement.

- {caution}
- Some models answer *True* more readily the longer a video lasts, whatever it shows: compare with a
  static control (the first frame repeated) before trusting a rising curve.{bias}

```bibtex
@article{{topreward2026,
  title = {{TOPReward: Token Probabilities as Hidden Zero-Shot Rewards for Robotics}},
  journal = {{arXiv preprint arXiv:2602.19313}},
  year = {{2026}}
}}
```
{end}"""


_ASKED = """\
A frozen video language model was asked, at moments all through each episode, whether the video so
far completes the task. The log-probability of its answer *True* is the reward
([TOPReward](https://arxiv.org/abs/2602.19313))."""
_REWARD_MODEL_ASKED = """\
LeRobot's reward model `{0}` was asked, at moments all through each episode, how far the task is
done. Its answer p, 0..1, is kept as log p."""
_PROMPT = """\
The prompt, after the video:

~~~text
{0}
~~~

"""
_SCALES: dict[Scale, str] = {
    "log-prob": "the same",
    "log-odds": "the same less that of *False*",
    "prob": "the probability itself",
}
_DEBIASED: dict[Debias, str] = {
    "none": "",
    "static": ", less that of the first frame repeated as often (time alone),",
    "blank": ", less that of as many gray images (time alone),",
    "contrast": ", less the mean of other tasks asked of the same video,",
}


def card_section(facts: CardFacts, *, source: str, repo_id: str, branch: str) -> str:
    """Describe the labels in Markdown, between two markers that later runs look for.

    `source` is the dataset that was labeled; `branch` of `repo_id` is where the labels are read.
    """
    key, made = facts.key, facts.provenance
    what = _SCALES[made["scale"]] + _DEBIASED[made.get("debias", "none")]
    asked, prompt = _ASKED, _PROMPT.format(question("{instruction}"))
    if key.reward_model is not None:
        asked, prompt = _REWARD_MODEL_ASKED.format(key.reward_model), ""
    if made["normalize"] == "task":
        scaled = "over all episodes of a task"
        caution = (
            "Progress is scaled over the episodes of a task: it depends on which were labeled."
        )
    else:
        scaled = "within each episode"
        caution = (
            "Progress is scaled within each episode, so an episode that failed reaches 1 too:\n"
            "  compare episodes by `topreward.log_prob`."
        )
    on_hub = key.vlm.count("/") == 1
    return _SECTION.format(
        start=START,
        end=END,
        labelled=made["episodes_labelled"],
        total=made["episodes_total"],
        failed=f" ({facts.failed} failed)" if facts.failed else "",
        curation="" if facts.curation is None else _describe_curation(facts.curation, of=source),
        what=what,
        scaled=scaled,
        horizon=made["horizon_frames"],
        seconds=made["horizon_frames"] / facts.fps,
        repo_id=repo_id,
        branch=branch,
        vlm=f"[{key.vlm}](https://huggingface.co/{key.vlm})" if on_hub else f"`{key.vlm}`",
        kind="" if key.reward_model is None else f" (`{key.reward_model}`)",
        vlm_revision=key.vlm_revision,
        served="" if key.server is None else f", on `{key.server}` ({key.server_video})",
        camera=key.camera,
        schedule=key.schedule,
        source=source,
        version=__version__,
        asked=asked,
        true="log-probability of *True*" if key.reward_model is None else "log p",
        false="*False*" if key.reward_model is None else "1 - p",
        prompt=prompt,
        caution=caution,
        bias=f" Of this one, {bias}." if (bias := describe_bias(key.vlm)) else "",
    )


def _describe_curation(curation: Curation, *, of: str) -> str:
    trimmed = f" The idle ends of {curation.trimmed} were cut." if curation.trimmed else ""
    rows = [f"| {episode} | {why.replace('|', '\\|')} |" for episode, why in curation.dropped]
    more = len(rows) - _LISTED
    return "\n".join(
        [
            f"**Curated.** {curation.episodes - len(rows)} of the {curation.episodes} episodes of "
            f"`{of}` are here, numbered anew; `lerobot-topreward curate` left out {len(rows)} "
            f"({curation.rules}).{trimmed}",
            "",
            "<details><summary>Episodes left out, by their old numbers</summary>",
            "",
            "| Episode | Why |",
            "|---|---|",
            *rows[:_LISTED],
            *([f"| and {more} more | |"] if more > 0 else []),
            "",
            "</details>",
            "",
            "",
        ]
    )


def merge_card(existing: str | None, section: str, *, info: "DatasetInfo", repo_id: str) -> str:
    """Put the section into a dataset card, leaving the rest of the card as it is.

    Where no card exists, LeRobot's own card is made from `info` and `repo_id`.
    """
    if existing is None:
        from lerobot.datasets.utils import create_lerobot_dataset_card  # takes seconds

        card = create_lerobot_dataset_card(tags=_TAGS[1:], dataset_info=info, repo_id=repo_id)
        return _with_section(str(card), section)
    return _with_section(_with_metadata(existing), section)


def _with_section(text: str, section: str) -> str:
    pattern = re.compile(rf"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: section, text, count=1)
    # A marker without its partner would swallow what stands between it and a later one.
    text = text.replace(START, "").replace(END, "")
    return f"{text.rstrip()}\n\n{section}\n"


def _with_metadata(text: str) -> str:
    # Edited as text: reading and writing YAML again would turn `language: no` into `false` and
    # lose comments. Invalid front matter stays as it is: the Hub says what is wrong.
    front = _FRONT_MATTER.match(text)
    if front is None:
        return f"---\n{_TAG_BLOCK}{_CONFIGS}---\n\n{text.lstrip()}"
    block = front["block"]
    before = _parse(block)
    if before is None:
        return text
    for edited in (_with_tags(block, before), block):
        if "configs" not in before:
            edited += _CONFIGS
        after = _parse(edited)
        if after is not None and all(
            after.get(key) == before[key] for key in before.keys() - {"tags"}
        ):
            return text[: front.start("block")] + edited + text[front.end("block") :]
    return text


def _parse(block: str) -> dict[str, Any] | None:
    try:
        loaded = yaml.safe_load(block)
    except yaml.YAMLError:
        return None
    return loaded if isinstance(loaded, dict) else None


def _with_tags(block: str, loaded: dict[str, Any]) -> str:
    if not loaded.get("tags"):
        return re.sub(r"^tags:[^\n]*\n", "", block, flags=re.MULTILINE) + _TAG_BLOCK
    present = {str(tag).lower() for tag in loaded["tags"]}
    missing = [tag for tag in _TAGS if tag.lower() not in present]
    if not missing:
        return block
    if (listed := _TAG_LINES.search(block)) is not None:
        added = "".join(f"{listed['indent']}- {tag}\n" for tag in missing)
        return block[: listed.end()] + added + block[listed.end() :]
    if (inline := _TAG_INLINE.search(block)) is not None:
        return block[: inline.end()] + ", " + ", ".join(missing) + block[inline.end() :]
    return block
