"""One HTML file with everything in it: nothing is fetched, and nothing but our script can run."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from lerobot_topreward.console import spell_options
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.decisions import Note
from lerobot_topreward.judging.episode_metrics import Metric
from lerobot_topreward.judging.rules import RULES, Comparison
from lerobot_topreward.report.content import EpisodeContent, RecordingContent
from lerobot_topreward.report.media import EpisodeMedia
from lerobot_topreward.report.signals import SignalsContent
from lerobot_topreward.report.weights import WeightsContent

# One after another inside one function; what is used while loading comes first.
SCRIPTS = (
    "dom.js",
    "format.js",
    "marks.js",
    "state.js",
    "plot.js",
    "limits.js",
    "charts.js",
    "recording.js",
    "overview.js",
    "pictures.js",
    "judges.js",
    "signals.js",
    "weights.js",
    "timeline.js",
    "episode.js",
    "keys.js",
    "address.js",
    "main.js",
)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says; pictures come beside it."""

    title: str
    dataset: str
    fingerprint: str
    version: str
    made: str  # when, for people
    vlm: str
    camera: str  # feature key, of the pictures
    scored_camera: str  # feature key
    fps: float  # Hz
    horizon: float  # s, of the advantage
    made_of: str  # what progress is made of, in words
    columns: str | None  # how the dataset's own progress is made, where it is made otherwise
    rules: Mapping[str, float]  # limits in force by their names
    rule_texts: Mapping[str, str]  # what they say
    command: str  # that curates the dataset, without rules
    metrics: Sequence[Metric]  # in the order in which the page shows them
    success_origin: str | None
    success_auc: float  # 0..1; nan where undefined
    judgment: Mapping[str, Any]  # as JSON
    static_share: float  # rise of the static control over the real one; nan where not scored
    episodes: Sequence[EpisodeContent]
    unlabelled: Mapping[int, str | None]  # episode without rewards -> why, where known
    recording: RecordingContent
    decisions: Mapping[int, str]  # "keep" or "drop", a person's from an earlier report
    notes: Mapping[int, Note] = field(default_factory=dict)  # of that person
    judges: Sequence[str] = ()  # names of the labels' own and then of others with curves


def render(
    page: Page,
    media: Mapping[int, EpisodeMedia],
    *,
    others: Mapping[str, Mapping[int, EpisodeMedia]] | None = None,
    signals: SignalsContent | None = None,
    weights: WeightsContent | None = None,
) -> str:
    """Write the page as one HTML document.

    Args:
        page: what it says.
        media: pictures of those episodes that have any.
        others: those of further cameras, by feature key.
        signals: commands and readings.
        weights: of frames in training.
    """
    script = '"use strict";\n(() => {\n' + "\n".join(map(_read, SCRIPTS)) + "\n})();\n"
    style = _read("style.css")
    # Exactly this script and this style, pictures in the file itself, and no more.
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = {**plain(page), "comparisons": _describe_comparisons(), "media": {}}
    data |= {"signals": None, "weights": None}
    blocks: list[str] = []  # apart from the data, so that only what is looked at is decoded
    for episode, pictures in sorted(media.items()):
        thumbnail = pictures.thumbnail
        data["media"][episode] = {
            **_describe_strip(pictures, f"media-{episode}", blocks),
            "thumbnail": thumbnail and _base64(thumbnail),
            "others": [
                {
                    "camera": camera,
                    **_describe_strip(found[episode], f"media-{episode}-{i}", blocks),
                }
                for i, (camera, found) in enumerate((others or {}).items())
                if episode in found
            ],
        }
    if signals is not None:
        data["signals"] = {name: plain(getattr(signals, name)) for name in ("names", "low", "high")}
        for episode, values in sorted(signals.values.items()):
            blocks.append(_block(f"signals-{episode}", values.tobytes()))
    if weights is not None:
        data["weights"] = {"title": weights.title, "high": weights.high}
        for episode, values in sorted(weights.values.items()):
            blocks.append(_block(f"weights-{episode}", values.tobytes()))
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # so that no text in it can end the element that holds it
        text = text.replace(character, f"\\u{ord(character):04x}")
    fillings = {
        "policy": html.escape(policy),
        "title": html.escape(page.title),
        "style": style,
        "script": script,
        "data": text,
        "media": "\n".join(blocks),
    }
    # In one go, so that nothing in what is filled in can look like another place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fillings[match[1]], _read("page.html"))


def _describe_comparisons() -> dict[str, Any]:
    """Describe the rules whose limits can be moved in the page: those that compare one metric."""
    return {
        name: {
            **plain(rule.find),
            "words": rule.words,
            **plain({"low": rule.low, "high": rule.high}),
        }
        for name, rule in RULES.items()
        if isinstance(rule.find, Comparison)
    }


def _describe_strip(pictures: EpisodeMedia, block: str, blocks: list[str]) -> dict[str, Any]:
    """Describe the pictures of one camera, which get a block of their own."""
    shown: dict[str, Any] = {"reason": pictures.reason and spell_options(pictures.reason)}
    if (strip := pictures.strip) is not None:
        shown["strip"] = {name: plain(getattr(strip, name)) for name in _STRIP_FIELDS}
        shown["strip"]["block"] = block
        blocks.append(_block(block, strip.data))
    return shown


def _block(name: str, content: bytes) -> str:
    return f'<script type="text/plain" id="{name}">{_base64(content)}</script>'


_STRIP_FIELDS = ("frames", "columns", "width", "height")


def _read(name: str) -> str:
    return (files("lerobot_topreward.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
