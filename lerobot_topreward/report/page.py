"""One HTML file with everything in it: nothing is fetched, and nothing but our script can run."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.report.content import ControlContent, EpisodeContent, Unlabelled
from lerobot_topreward.report.media import EpisodeMedia, NoPictures, Strip

# One after another inside one function; what is used while loading comes first.
_SCRIPTS = (
    "dom.js",
    "format.js",
    "state.js",
    "plot.js",
    "charts.js",
    "overview.js",
    "pictures.js",
    "timeline.js",
    "episode.js",
    "keys.js",
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
    scale: str
    debiased: bool  # progress is beyond what the static control earns
    columns: str | None  # how the dataset's own progress is made, where it is made otherwise
    rules: Mapping[str, float]  # limits in force by their names
    success_origin: str | None
    success_auc: float  # 0..1; nan where undefined
    controls: Sequence[ControlContent]
    episodes: Sequence[EpisodeContent]
    unlabelled: Sequence[Unlabelled]
    decisions: Mapping[int, str]  # "keep" or "drop", a person's from an earlier report


def render(page: Page, media: Mapping[int, EpisodeMedia]) -> str:
    """Write the page as one HTML document.

    Args:
        page: what it says.
        media: pictures of its episodes; those that are not named have none and need none.
    """
    script = '"use strict";\n(() => {\n' + "\n".join(map(_source, _SCRIPTS)) + "\n})();\n"
    style = _source("style.css")
    parts = {
        "policy": html.escape(_policy(script=script, style=style)),
        "title": html.escape(page.title),
        "style": style,
        "script": script,
        "data": _json({**plain(page), "media": {i: _described(one) for i, one in media.items()}}),
        "media": "\n".join(_block(i, one) for i, one in sorted(media.items())),
    }
    # In one go, so that nothing in what is filled in can look like another place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _source("page.html"))


def _source(name: str) -> str:
    return (files("lerobot_topreward.report") / "page" / name).read_text(encoding="utf-8")


def _policy(*, script: str, style: str) -> str:
    """Allow exactly this script and style, pictures in the file itself, and no more."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: object) -> str:
    """JSON that cannot end the element that holds it, whatever text is in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _described(media: EpisodeMedia) -> dict[str, object]:
    pictures = media.pictures
    thumbnail = None if media.thumbnail is None else base64.b64encode(media.thumbnail).decode()
    if isinstance(pictures, NoPictures):
        return {"kind": "none", "reason": pictures.reason, "thumbnail": thumbnail}
    size = {"width": pictures.width, "height": pictures.height, "thumbnail": thumbnail}
    if isinstance(pictures, Strip):
        frames = pictures.frames.tolist()
        return {"kind": "strip", "frames": frames, "columns": pictures.columns, **size}
    return {"kind": "video", **size}


def _block(episode: int, media: EpisodeMedia) -> str:
    """The pictures of an episode, apart from the data so that only those looked at are decoded."""
    if isinstance(media.pictures, NoPictures):
        return ""
    text = base64.b64encode(media.pictures.data).decode()
    return f'<script type="text/plain" id="media-{episode}">{text}</script>'
