"""Episodes for pages that a browser opens, and what is asked of the browser."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from lerobot_topreward.judging.episode_metrics import METRICS
from lerobot_topreward.records import Finding, Segment
from lerobot_topreward.report.content import LENGTH, Curve, EpisodeContent
from lerobot_topreward.report.media import EpisodeMedia, make_strip, make_thumbnail

FPS = 10.0
STEP = 5  # frames between pictures
LINES = [metric.key for metric in (*METRICS, LENGTH)]
Open = Callable[..., Any]


def shade(frame: int) -> int:
    """The grey of the picture of a frame, by which it is told from the others."""
    return 20 + 4 * frame


def episode(index: int, **changes: Any) -> EpisodeContent:
    """Five seconds that rise to the end, scored every half second."""
    frames = np.append(np.arange(0, 50, STEP), 49)
    rise = np.linspace(0, 1, len(frames))
    metrics = {name: round(-0.1 * index, 3) for name in LINES} | {"seconds": 5.0}
    values: dict[str, Any] = {
        "index": index,
        "task": "stack the cups",
        "frames": 50,
        "drops": {},
        "success": None,
        "metrics": metrics,
        "parts": [Segment(index, 0, 50, "stack the cups")],
        "curve": Curve(frames, 9 * rise - 10, rise, rise * 0 + 0.1),
        "prefixes": frames,
        "static": None,
    }
    return EpisodeContent(**(values | changes))


def strip() -> EpisodeMedia:
    frames = [*range(0, 50, STEP), 49]
    pictures = [Image.new("RGB", (64, 48), (shade(i), shade(i), shade(i))) for i in frames]
    return EpisodeMedia(make_strip(frames, pictures, 64, 90), make_thumbnail(pictures[-1]))


FOUND = (  # in the recording of an episode
    Finding(2, "broken", "frozen recording", "no reading changes for 1 s", (10, 20)),
    Finding(2, "suspect", "jump", "lift jumps by 3", (15, 16)),
    Finding(2, "suspect", "idle", "longest idle run 0.4 of the episode"),
)

FIVE = (
    episode(0, success=True),
    episode(1, task="pour", drops={"min_voc": "VOC 0.10 < 0.50"}, success=False),
    episode(2, drops={"max_stall": "stall 4.00 > 3.00 s"}),
    episode(
        3,
        parts=[Segment(3, 0, 20, "reach"), Segment(3, 20, 30, "lift the cup")],
        task="reach / lift",
    ),
    episode(4, metrics={**episode(4).metrics, "voc": float("nan")}),
)


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def listed(browser: Any) -> list[int]:
    """The episodes of the overview's list, in their order."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#episodes tbody tr')].map(r => +r.dataset.episode)"
    )


def until(browser: Any, script: str, expected: Any) -> None:
    """Wait for a script's value, a few seconds at most."""
    deadline = time.monotonic() + 10
    while (found := browser.execute_script(f"return {script}")) != expected:
        assert time.monotonic() < deadline, f"{script}: {found!r}, not {expected!r}"
        time.sleep(0.05)


def text(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def pixel(browser: Any) -> int:
    """The grey in the middle of the picture on view."""
    return browser.execute_script(
        """const seen = document.querySelector('.picture'), place = document.createElement('canvas');
        place.width = place.height = 1;
        const context = place.getContext('2d');
        context.drawImage(seen, seen.width / 2, 10, 1, 1, 0, 0, 1, 1);
        return context.getImageData(0, 0, 1, 1).data[0]"""
    )
