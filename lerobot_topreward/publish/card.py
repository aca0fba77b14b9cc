"""The section of a dataset card that says what the reward columns are and how far to trust them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from lerobot.datasets.utils import DatasetInfo, create_lerobot_dataset_card

from lerobot_topreward import __version__
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.vlm.prompts import question

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
    """How the labels of a dataset were made: everything that its card says about them."""

    source_repo_id: str
    source_revision: str | None  # commit on the Hub; None when it was a local folder
    vlm: str
    vlm_revision: str | None
    prompt: str
    camera: str
    schedule: str  # which frames and prefixes, in words
    normalize: str  # "episode" or "task"
    scale: str  # "log-prob" or "prob"
    horizon: int  # frames, >= 1
    fps: float  # Hz
    version: str  # of this package
    labelled: int  # episodes
    failed: int  # episodes
    total: int  # episodes
    curation: Curation | None = None
    debias: str = "none"  # or "static": the static control's curve was subtracted

    @classmethod
    def of(
        cls, key: ScoreKey, provenance: Mapping[str, Any], *, fps: float, **others: Any
    ) -> "CardFacts":
        """Gather the facts from how scores and rewards were made, as the sidecar says it.

        `others` are fields that the provenance does not have, or not as they are now.
        """
        facts = {
            "source_repo_id": provenance.get("dataset"),
            "source_revision": provenance.get("revision"),
            "vlm": key.vlm,
            "vlm_revision": key.vlm_revision,
            "prompt": question("{instruction}"),
            "camera": key.camera,
            "schedule": key.schedule,
            "normalize": provenance.get("normalize", "episode"),
            "scale": provenance.get("scale"),
            "debias": provenance.get("debias", "none"),
            "horizon": provenance.get("horizon_frames"),
            "fps": fps,
            "version": __version__,
            "labelled": provenance.get("episodes_labelled"),
            "failed": 0,
            "total": provenance.get("episodes_total"),
        }
        return cls(**facts | others)

    @property
    def source(self) -> str:
        """Name the dataset that was labeled, with its commit where it has one."""
        commit = "" if self.source_revision is None else f"@{self.source_revision[:12]}"
        return f"{self.source_repo_id}{commit}"

    @property
    def summary(self) -> str:
        """Describe the dataset in a line, for the commit."""
        made = f"labeled by {self.vlm} with lerobot-topreward {self.version}"
        if self.curation is None:
            return f"{self.labelled} of {self.total} episodes of {self.source} {made}"
        return f"{self.total} of {self.curation.episodes} episodes of {self.source}, {made}"


_SECTION = """\
{start}
## TOPReward: how far along is the robot?

A frozen video language model was asked, at moments all through each episode, whether the video so
far completes the task. The log-probability of its answer *True* is the reward
([TOPReward](https://arxiv.org/abs/2602.19313)). Episodes labeled: {labelled} of {total}{failed}.

{curation}| Column | Meaning |
|---|---|
| `topreward.log_prob` | log-probability of *True*, in nats, <= 0, interpolated between scored moments |
| `topreward.log_prob_false` | the same of *False* |
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
| Model | {vlm}, revision `{vlm_revision}` |
| Camera | `{camera}` |
| Frames | {schedule} |
| Source | `{source}` |
| Software | `lerobot-topreward` {version} |

The prompt, after the video:

~~~text
{prompt}
~~~

**Limits.** The reward is a model's opinion, not a measurement.

- {caution}
- Some models answer *True* more readily the longer a video lasts, whatever it shows: compare with a
  static control (the first frame repeated) before trusting a rising curve.

```bibtex
@article{{topreward2026,
  title = {{TOPReward: Token Probabilities as Hidden Zero-Shot Rewards for Robotics}},
  journal = {{arXiv preprint arXiv:2602.19313}},
  year = {{2026}}
}}
```
{end}"""


def card_section(facts: CardFacts, *, repo_id: str, branch: str) -> str:
    """Describe the labels in Markdown, between two markers that later runs look for.

    `branch` of `repo_id` is where the labels are read.
    """
    if facts.debias == "static":
        what = "the same, less that of the first frame repeated as often (time alone),"
    else:
        what = "the same" if facts.scale == "log-prob" else "the probability itself"
    if facts.normalize == "task":
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
    on_hub = facts.vlm.count("/") == 1
    return _SECTION.format(
        start=START,
        end=END,
        labelled=facts.labelled,
        total=facts.total,
        failed=f" ({facts.failed} failed)" if facts.failed else "",
        curation="" if facts.curation is None else _curation(facts.curation, of=facts.source),
        what=what,
        scaled=scaled,
        horizon=facts.horizon,
        seconds=facts.horizon / facts.fps,
        repo_id=repo_id,
        branch=branch,
        vlm=f"[{facts.vlm}](https://huggingface.co/{facts.vlm})" if on_hub else f"`{facts.vlm}`",
        vlm_revision=facts.vlm_revision or "unknown",
        camera=facts.camera,
        schedule=facts.schedule,
        source=facts.source,
        version=facts.version,
        prompt=facts.prompt,
        caution=caution,
    )


def _curation(curation: Curation, *, of: str) -> str:
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


def merge_card(existing: str | None, section: str, *, info: DatasetInfo, repo_id: str) -> str:
    """Put the section into a dataset card, leaving the rest of the card as it is.

    Where no card exists, LeRobot's own card is made from `info` and `repo_id`.
    """
    if existing is None:
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
