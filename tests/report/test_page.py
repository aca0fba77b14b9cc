"""The report's page: what it says, that it holds together, and how pictures are laid out."""

import base64
import hashlib
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_pages import embedded, make_page

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.coverage import Coverage
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.records import Finding, PrefixScores, Segment
from lerobot_topreward.report.content import (
    Findings,
    curve,
    episode_contents,
    page_metrics,
    recording_content,
)
from lerobot_topreward.report.media import (
    EpisodeMedia,
    Strip,
    fit_size,
    make_strip,
)
from lerobot_topreward.report.page import Page, render
from lerobot_topreward.rewards import label_rewards

INSPECTED = Inspection((), {}, {}, ())


def scores(
    log_prob: Sequence[float], *, episode: int = 0, start: int = 0, control: str = "none"
) -> PrefixScores:
    """Prefixes of three frames more each, and one frame after the last."""
    lengths = 3 * np.arange(1, len(log_prob) + 1)
    return PrefixScores(
        segment=Segment(episode, start, int(lengths[-1]) + 1, f"part from {start}"),
        control=control,
        prefix_length=lengths,
        frame_index=start + lengths - 1,
        log_prob_true=np.array(log_prob, dtype=np.float32),
        log_prob_false=np.full(len(log_prob), -1, dtype=np.float32),
    )


def findings(
    parts: Sequence[PrefixScores],
    *,
    horizon: int = 4,
    static: Sequence[PrefixScores] = (),
    recording: Inspection | UserError = INSPECTED,
) -> Findings:
    length = {(p.segment.episode_index): p.segment.start + p.segment.length for p in parts}
    episodes = np.repeat(sorted(length), [n for _, n in sorted(length.items())])
    rewards = label_rewards(parts, episodes, horizon=horizon, normalize="task")
    metrics = episode_metrics(parts, rewards, fps=10)
    return Findings(
        scores=parts,
        rewards=rewards,
        metrics=metrics,
        drops={"min_voc": {metrics[0].episode_index: "too bad"}},
        success={0: False},
        controls={"static": static} if static else {},
        horizon=horizon,
        recording=recording,
    )


@pytest.mark.parametrize("horizon", [1, 4, 100])
def test_the_curve_of_a_page_has_every_bend_of_the_rewards(horizon: int) -> None:
    parts = [scores([-9, -3, -4, -1]), scores([-2, -8, -1, -1, -3], start=13)]
    reward = label_rewards(parts, np.zeros(29, int), horizon=horizon, normalize="task")
    found = curve(parts, reward, horizon=horizon)
    assert found.frame[0] == 0
    assert found.frame[-1] == 28
    for start, stop in ((0, 13), (13, 29)):  # nothing is interpolated across the border
        inside = (found.frame >= start) & (found.frame < stop)
        frames = np.arange(start, stop)
        for name, dense in (
            ("log_prob", reward.log_prob_true),
            ("progress", reward.progress),
            ("advantage", reward.advantage),
        ):
            drawn = np.interp(frames, found.frame[inside], getattr(found, name)[inside])
            np.testing.assert_allclose(drawn, dense[start:stop], atol=1e-4)


def test_an_episode_is_described_with_its_verdict_and_the_truth() -> None:
    parts = [scores([-9, -3]), scores([-5, -1], start=7), scores([-9, -2], episode=4)]
    still = [replace(part, control="static") for part in parts[:2]]
    first, second = episode_contents(findings(parts, static=still))
    assert (first.index, first.frames, first.success) == (0, 14, False)
    assert first.drops == {"min_voc": "too bad"}
    assert [(part.start, part.length) for part in first.parts] == [(0, 7), (7, 7)]
    assert first.prefixes.tolist() == [2, 5, 9, 12]
    assert first.static is not None
    assert first.static.tolist() == [-9, -3, -5, -1]
    assert first.metrics["static_voc"] == 1
    assert (second.index, second.drops, second.success, second.static) == (4, {}, None, None)
    assert "static_voc" not in second.metrics


def test_findings_go_to_their_episode_and_those_of_the_dataset_apart() -> None:
    starts = Coverage("stack", (0, 4), ("observation.x",), np.array([[0.0], [1.0]]))
    found = (
        Finding(None, "note", "coverage", "stands under its picture"),
        Finding(None, "note", "unused dimension", "action.3 moves in no episode"),
        Finding(None, "suspect", "task spelled twice", "one task is spelled twice"),
        Finding(0, "suspect", "jump", "x jumps", (3, 4)),
        Finding(0, "broken", "not finite", "x is nan"),
        Finding(7, "broken", "unreadable", "it is not labeled either"),
    )
    inspection = Inspection(found, {}, {}, (starts,))
    parts = [scores([-9, -3]), scores([-9, -2], episode=4)]
    first, second = episode_contents(findings(parts, recording=inspection))
    assert [finding.level for finding in first.findings] == ["broken", "suspect"]
    assert list(second.findings) == []
    whole = recording_content(inspection)
    assert whole.counts == {"broken": 2, "suspect": 2, "note": 2}
    assert [finding.defect for finding in whole.findings] == [
        "task spelled twice",
        "unused dimension",
    ]
    [shown] = whole.starts
    assert (shown.task, shown.names, shown.starts.tolist()) == ("stack", ["x"], [[0], [1]])
    assert shown.sentence.startswith("starts over 100% of x, largest gap 100%")


def test_a_recording_that_cannot_be_inspected_leaves_the_rest_as_it_is() -> None:
    parts = [scores([-9, -3])]
    reason = UserError("`root=x` is incomplete")
    [content] = episode_contents(findings(parts, recording=reason))
    assert list(content.findings) == []
    found = embedded(render(make_page([content], recording=recording_content(reason)), {}))
    assert found["recording"] == {
        "reason": "--root x is incomplete",
        "counts": {},
        "findings": [],
        "starts": [],
    }


def test_an_episode_of_one_frame_has_a_curve_and_no_voc() -> None:
    blink = PrefixScores(
        segment=Segment(0, 0, 1, "blink"),
        control="none",
        prefix_length=np.array([1]),
        frame_index=np.array([0]),
        log_prob_true=np.array([-1], dtype=np.float32),
        log_prob_false=np.array([-2], dtype=np.float32),
    )
    [found] = episode_contents(findings([blink]))
    assert found.curve.frame.tolist() == [0]
    assert found.curve.advantage.tolist() == [0]
    assert math.isnan(found.metrics["voc"])


def test_the_page_names_every_number_that_it_shows() -> None:
    parts = [scores([-9, -3])]
    plain, with_static = findings(parts), findings(parts, static=parts)
    for found in (plain, with_static):
        [content] = episode_contents(found)
        assert {metric.key for metric in page_metrics(found)} == set(content.metrics)
    assert [m.key for m in page_metrics(with_static) if m not in page_metrics(plain)] == [
        "static_voc"
    ]


def page(**changes: Any) -> Page:
    return make_page(episode_contents(findings([scores([-9, -3])])), **changes)


def test_a_page_holds_its_data_with_null_for_what_is_undefined() -> None:
    found = embedded(render(page(decisions={3: "drop"}), {}))
    assert found["episodes"][0]["curve"]["frame"] == [0, 1, 2, 5, 6]
    assert found["success_auc"] is None
    assert found["decisions"] == {"3": "drop"}


def test_text_of_a_dataset_cannot_leave_its_place_in_the_page() -> None:
    evil = "</script><script>alert(1)</script><!-- {{script}} ]]>\u2028\ud800"
    text = render(page(title=evil, dataset=evil, vlm=evil), {})
    assert embedded(text)["title"] == evil
    assert embedded(text)["vlm"] == evil
    assert "alert(1)</script>" not in text
    assert f"<title>{html.escape(evil)}</title>" in text
    assert text.count("<script") == 2  # the data and the one that runs


def test_a_page_allows_its_own_script_and_nothing_from_elsewhere() -> None:
    text = render(page(), {})
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for rule, tag in (("script-src", "script"), ("style-src", "style")):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert set(re.findall(r"https?://[^\"' )]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!\"?#)|\bimport\(|fetch\(|XMLHttpRequest", text)


def test_pictures_lie_in_blocks_of_their_own() -> None:
    strip = Strip(b"sheet", np.array([0, 5]), columns=2, width=32, height=24)
    media = {0: EpisodeMedia(strip, b"small"), 1: EpisodeMedia(reason="<gone>")}
    text = render(page(), media)
    assert f'<script type="text/plain" id="media-0">{base64.b64encode(b"sheet").decode()}<' in text
    assert "media-1" not in text
    assert embedded(text)["media"]["0"] == {
        "strip": {"frames": [0, 5], "columns": 2, "width": 32, "height": 24, "block": "media-0"},
        "thumbnail": base64.b64encode(b"small").decode(),
        "reason": None,
        "others": [],
    }
    assert embedded(text)["media"]["1"]["reason"] == "<gone>"


def test_pictures_are_laid_out_row_after_row() -> None:
    shades = [20 * i for i in range(12)]
    pictures = [Image.new("RGB", (64, 48), (shade, shade, shade)) for shade in shades]
    strip = make_strip(range(12), pictures, longer=32, quality=80)
    assert (strip.width, strip.height, strip.columns) == (32, 24, 10)
    sheet = np.asarray(Image.open(io.BytesIO(strip.data)).convert("L")).astype(int)
    assert sheet.shape == (48, 320)
    found = [sheet[24 * (i // 10) + 12, 32 * (i % 10) + 16] for i in range(12)]
    np.testing.assert_allclose(found, shades, atol=4)


@pytest.mark.parametrize(
    ("size", "longer", "expected"),
    [((640, 480), 320, (320, 240)), ((480, 640), 320, (240, 320)), ((101, 55), 320, (100, 56))],
)
def test_pictures_shrink_to_even_sizes_and_never_grow(
    size: tuple[int, int], longer: int, expected: tuple[int, int]
) -> None:
    assert fit_size(size, longer) == expected
