"""Pages for the tests of the report: made of given episodes, and read back."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from lerobot_topreward.judging.episode_metrics import METRICS
from lerobot_topreward.report.content import LENGTH, EpisodeContent, RecordingContent
from lerobot_topreward.report.page import Page

CAMERA = "observation.images.front"


def make_page(episodes: Sequence[EpisodeContent], **changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "local/cups",
        "dataset": "local/cups",
        "fingerprint": "f" * 64,
        "version": "0",
        "made": "today",
        "vlm": "a/vlm",
        "camera": CAMERA,
        "scored_camera": CAMERA,
        "fps": 10.0,
        "horizon": 1.0,
        "made_of": "log P(True)",
        "columns": "scaled within each episode",
        "rules": {"min_final_progress": 0.8},
        "rule_texts": {"min_final_progress": "final progress at least 0.8"},
        "command": "lerobot-topreward curate --repo-id local/cups",
        "metrics": [*METRICS, LENGTH],
        "success_origin": None,
        "success_auc": math.nan,
        "judgment": {"level": "usable", "reasons": [], "evidence": []},
        "static_share": math.nan,
        "episodes": episodes,
        "unlabelled": {},
        "recording": RecordingContent(None, {"broken": 0, "suspect": 0, "note": 0}, (), ()),
        "decisions": {},
    }
    return Page(**(values | changes))


def embedded(text: str) -> dict[str, Any]:
    """The data of a page, as its script reads them."""
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)
