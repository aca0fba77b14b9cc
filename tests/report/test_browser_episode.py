"""The report's page in a real browser: one episode, its pictures, curves and cursor."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_browser import (
    FIVE,
    FOUND,
    LINES,
    Open,
    episode,
    listed,
    pixel,
    press,
    shade,
    strip,
    text,
    until,
)

from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.records import Segment
from lerobot_topreward.report.content import Curve
from lerobot_topreward.report.media import EpisodeMedia
from lerobot_topreward.report.others import OtherCurve
from lerobot_topreward.report.signals import SignalsContent
from lerobot_topreward.report.weights import weights_content
from lerobot_topreward.storage.weights import TrainingWeights

pytestmark = pytest.mark.slow


def test_the_strip_follows_the_cursor(show: Open) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    picture = "document.querySelector('.picture').dataset.frame"
    until(browser, picture, "0")
    press(browser, "\ue014", "\ue014")  # right: the next prefix
    until(browser, picture, "10")
    assert pixel(browser) == pytest.approx(shade(10), abs=3)
    assert "1.0 / 5.0 s" in text(browser, "#clock")
    press(browser, ",")  # one frame back: the picture before it still shows
    until(browser, picture, "5")
    assert text(browser, "#clock").endswith("frame 9")
    assert browser.execute_script(
        "return document.querySelector('[data-pane=progress]').textContent"
    ) == pytest.approx("0.18")
    press(browser, "\ue010")  # end
    until(browser, picture, "49")
    assert pixel(browser) == pytest.approx(shade(49), abs=3)
    slider = "document.querySelector('.timeline').getAttribute"
    assert browser.execute_script(f"return {slider}('aria-valuenow')") == "49"
    assert "progress 1.00" in browser.execute_script(f"return {slider}('aria-valuetext')")


@pytest.mark.parametrize("pointer", ["mouse", "touch"])
def test_a_pointer_moves_the_cursor(show: Open, pointer: str) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    box = browser.execute_script(
        "const r = document.querySelector('.timeline').getBoundingClientRect();"
        "return [r.left, r.top, r.width]"
    )
    middle = {"x": box[0] + 46 + (box[2] - 58) * 26 / 49, "y": box[1] + 60}
    if pointer == "mouse":
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **middle})
    else:
        point = {"type": "touchStart", "touchPoints": [middle]}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", point)
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    frame = "Number(document.getElementById('episode').dataset.frame)"
    until(browser, f"Math.abs({frame} - 26) <= 1", True)
    until(browser, "document.querySelector('.picture').dataset.frame", "25")


def test_playing_a_strip_moves_the_cursor(show: Open) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    until(browser, "document.querySelector('.picture').dataset.frame", "0")
    browser.execute_script(
        "const box = document.getElementById('speed'); box.value = '4';"
        "box.dispatchEvent(new Event('change')); document.getElementById('play').click()"
    )
    assert browser.execute_script(
        "return document.getElementById('play').getAttribute('aria-label')"
    ) in ("Pause", "Play")
    until(browser, "document.querySelector('.picture').dataset.frame", "49")


def test_an_episode_without_pictures_has_its_curves(show: Open) -> None:
    browser = show(FIVE, {0: EpisodeMedia(reason="file-000.mp4 is missing")}, at="#episode=0")
    assert "file-000.mp4 is missing" in text(browser, ".no-picture")
    assert browser.execute_script("return document.querySelectorAll('.pane .curve').length") == 3
    show(FIVE, at="#episode=3")  # no pictures at all, and two subtasks
    assert browser.execute_script("return document.querySelector('.screen')") is None
    assert browser.execute_script("return document.querySelectorAll('.border').length") == 1
    lane = "[...document.querySelectorAll('.part-name')].map(one => one.textContent)"
    assert browser.execute_script(f"return {lane}") == ["reach", "lift the cup"]


def test_findings_are_listed_and_lie_on_the_time_axis(show: Open) -> None:
    browser = show([*FIVE[:2], replace(FIVE[2], findings=FOUND)], at="#episode=2")
    lines = text(browser, "article .findings").splitlines()
    assert lines[0].startswith("broken frozen recording: no reading changes for 1 s")
    assert len(lines) == 3
    rectangles = "[...document.querySelectorAll('.spans rect:not(.hatch-ground)')]"
    until(browser, f"{rectangles}.length", 2)
    kinds = browser.execute_script(f"return {rectangles}.map(span => span.className.baseVal)")
    assert kinds == ["span-broken", "span-suspect"]
    places = browser.execute_script(
        f"return {rectangles}.map(span => [+span.getAttribute('x'), +span.getAttribute('width'),"
        "+span.getAttribute('y')])"
    )
    scale = places[1][1] - 3  # px of a frame, less what is added on both sides
    assert places[0][1] == pytest.approx(10 * scale + 3)
    assert places[1][0] - places[0][0] == pytest.approx(5 * scale)
    assert places[1][2] > places[0][2]  # below it, since they overlap
    title = browser.execute_script(f"return {rectangles}[0].textContent")
    assert title == "frozen recording: no reading changes for 1 s"
    browser.find_element("css selector", "article .findings .at").click()
    assert text(browser, "#clock").endswith("frame 10")


def test_one_frame_and_nothing_defined_is_a_page_all_the_same(show: Open) -> None:
    first = np.zeros(1, dtype=np.int64)
    empty = dict.fromkeys(LINES, float("nan")) | {"success_score": -1.0, "seconds": 0.1}
    only = episode(
        0,
        frames=1,
        metrics=empty,
        parts=[Segment(3, 0, 1, "blink")],
        curve=Curve(first, first - 1.0, first + 1.0, first * 0.0),
        prefixes=first,
    )
    browser = show([only])
    assert listed(browser) == [0]
    show([only], at="#episode=0")
    assert "0.0 / 0.1 s" in text(browser, "#clock")
    press(browser, "\ue014", "\ue012", " ")
    assert text(browser, "#clock").endswith("frame 0")


def test_pictures_that_cannot_be_read_say_so(show: Open) -> None:
    made = strip().strip
    assert made
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    broken = EpisodeMedia(replace(made, data=buffer.getvalue()[:20]))
    browser = show(FIVE, {0: broken}, at="#episode=0")
    until(browser, "Boolean(document.querySelector('.no-picture'))", True)


def test_every_control_has_a_name(show: Open) -> None:
    browser = show([replace(FIVE[0], findings=FOUND)], {0: strip()}, at="#episode=0")
    until(browser, "document.querySelector('.picture').dataset.frame", "0")
    unnamed = browser.execute_script(
        """return [...document.querySelectorAll('button, select, input, a, [role=slider], canvas')]
        .filter(one => !one.closest('[aria-hidden=true], [hidden]') && !one.labels?.length
            && !(one.getAttribute('aria-label') || one.textContent).trim())
        .map(one => one.outerHTML)"""
    )
    assert unnamed == []


def test_other_judges_have_thin_lines_and_a_legend(show: Open) -> None:
    frames = np.array([0, 20, 49])
    others = [OtherCurve(judge, frames, np.array([0.1, 0.2, 0.1 * judge])) for judge in (1, 2)]
    episodes = (episode(0, others=others), episode(1))
    names = ("own/vlm", "<b>bold</b>", "a/robometer")
    browser = show(episodes, at="#episode=0", judges=names)
    lines = "document.querySelectorAll('.progress .other')"
    until(browser, f"{lines}.length", 2)
    assert text(browser, ".judges").split("\n") == [*names]
    assert browser.execute_script(f"return {lines}[0].textContent") == "<b>bold</b>"
    looks = f"return [...{lines}].map(one => getComputedStyle(one).strokeDasharray)"
    assert len(set(browser.execute_script(looks))) == 2  # not by color alone
    page, legend = browser.execute_script(
        "return [window.innerHeight, document.querySelector('.judges').getBoundingClientRect().bottom]"
    )
    assert legend <= page
    browser.execute_script("location.hash = '#episode=1'")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 1")
    assert browser.execute_script("return document.querySelectorAll('.judges, .other').length") == 0


def test_two_episodes_stand_side_by_side_at_the_same_time(show: Open) -> None:
    short = replace(FIVE[1], frames=20, parts=[Segment(1, 0, 20, "pour")])
    browser = show([FIVE[0], short, *FIVE[2:]], {0: strip(), 1: strip()}, at="#episode=1")
    press(browser, "c")  # keeps it on view beside the next one of the list
    until(browser, "document.querySelectorAll('.half').length", 2)
    until(browser, "location.hash", "#episode=0&beside=1")
    names = "[...document.querySelectorAll('.half')].map(half => half.getAttribute('aria-label'))"
    assert browser.execute_script(f"return {names}") == ["Episode 0", "Episode 1"]
    press(browser, "\ue014", "\ue014", "\ue014", "\ue014", "\ue014")
    at = "[...document.querySelectorAll('.timeline')].map(one => one.getAttribute('aria-valuenow'))"
    until(browser, at, ["25", "19"])
    pictures = "[...document.querySelectorAll('.picture')].map(one => one.dataset.frame)"
    until(browser, pictures, ["25", "15"])
    press(browser, "d")  # the first one is decided about
    assert text(browser, "#tally") == "1 marked: 0 keep, 1 drop"
    press(browser, "p")
    until(browser, "document.querySelectorAll('.half').length", 0)  # beside itself there is nothing
    press(browser, "p")
    until(browser, "location.hash", "#episode=2&beside=1")
    until(browser, "document.querySelectorAll('.half').length", 2)
    press(browser, "c")
    until(browser, "document.querySelectorAll('.half').length", 0)
    assert browser.execute_script("return location.hash") == "#episode=2"


def test_time_is_zoomed_around_the_cursor_and_follows_it(show: Open) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    press(browser, "\ue014", "\ue014", "\ue014", "\ue014", "+", "+")  # at frame 20
    ticks = (
        "[...document.querySelectorAll('.curves > g:last-of-type .tick')].map(t => t.textContent)"
    )
    until(browser, f"{ticks}.every(t => parseFloat(t) >= 1 && parseFloat(t) <= 3)", True)
    place = "document.querySelector('.cursor').getBoundingClientRect().left"
    before = browser.execute_script(f"return {place}")
    press(browser, ".")
    frame = browser.execute_script(f"return {place}") - before
    press(browser, "\ue010")  # end: the part on view moves along
    box = "document.querySelector('.timeline').getBoundingClientRect()"
    assert browser.execute_script(f"return {place} < {box}.right && {place} > {box}.left")
    press(browser, "0")
    press(browser, "\ue011", ".")
    start = browser.execute_script(f"return {place}")
    press(browser, ".")
    assert frame == pytest.approx(4 * (browser.execute_script(f"return {place}") - start), rel=0.1)


def test_commands_and_readings_are_drawn_where_they_were_recorded(show: Open) -> None:
    values = np.stack([np.linspace(0, 254, 11), np.full(11, 127)]).astype(np.uint8)
    values[0, 4] = 255  # not known
    names = ["action.<b>lift</b>", "observation.state.<b>lift</b>"]
    signals = SignalsContent(names, np.array([-1.0, 0.0]), np.array([1.0, 2.0]), {0: values})
    browser = show(FIVE, {0: strip()}, at="#episode=0", signals=signals)
    choices = "[...document.querySelector('#signal').options].map(one => one.value)"
    assert browser.execute_script(f"return {choices}") == [
        "",
        "all commands",
        "all readings",
        "<b>lift</b>",
    ]
    browser.execute_script(
        "const box = document.getElementById('signal'); box.value = '<b>lift</b>';"
        "box.dispatchEvent(new Event('change'))"
    )
    until(browser, "document.querySelectorAll('path.signal').length", 2)
    readout = "document.querySelector('[data-pane=signals]').textContent"
    press(browser, "\ue010")
    until(browser, readout, "command 1.00, reading 1.00")
    drawn = browser.execute_script("return document.querySelector('path.signal').getAttribute('d')")
    assert drawn.count("M") == 2  # there is a gap
    browser.execute_script("location.hash = '#episode=1'")  # of which nothing is known
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 1")
    assert browser.execute_script("return document.querySelectorAll('.pane.signals').length") == 1


def test_weights_of_training_lie_under_the_curves(show: Open) -> None:
    # Forty frames of each of two episodes are trained on, those in the end of the first one more.
    index = np.concatenate([np.arange(40), np.arange(50, 90)])
    weight = np.where((index >= 20) & (index < 40), 4, 0).astype(np.float32)
    frames = np.arange(100)
    table = FrameTable(frames, frames // 50, frames % 50, frames / 10, 0 * frames)
    stored = TrainingWeights(index, weight, "filter: <b>bold</b>")
    weights = weights_content(stored, table, episodes=[0, 1], budget=10**6)
    browser = show(FIVE, {0: strip()}, at="#episode=0", weights=weights)  # before they are loaded
    until(browser, "document.querySelectorAll('.pane.weights .weight').length", 1)
    readout = "document.querySelector('[data-pane=weights]').textContent"
    until(browser, readout, "0.00")
    steps = "document.querySelector('.weight').getAttribute('d')"
    until(browser, f"{steps}.split('Z').length - 1", 40)
    press(browser, "\ue014", "\ue014", "\ue014", "\ue014")
    until(browser, readout, "4.00")  # from frame 20 on
    slider = "document.querySelector('.timeline').getAttribute('aria-valuetext')"
    assert "weight 4.00" in browser.execute_script(f"return {slider}")
    press(browser, ",")
    until(browser, readout, "0.00")
    press(browser, "\ue010")
    until(browser, readout, "not trained on")
    press(browser, "p", "c")  # stand beside each other, and one of which nothing is known
    until(browser, "document.querySelectorAll('.half .pane.weights').length", 2)
    browser.execute_script("location.hash = '#overview'")
    assert "Weights in training: filter: <b>bold</b>." in text(browser, ".about")


def test_all_cameras_follow_the_cursor(show: Open) -> None:
    wrist = {"observation.images.wrist": {0: strip(), 1: EpisodeMedia(reason="no such file")}}
    browser = show(FIVE, {0: strip(), 1: strip()}, at="#episode=0", others=wrist)
    pictures = "[...document.querySelectorAll('.picture')].map(one => one.dataset.frame)"
    until(browser, pictures, ["0", "0"])
    press(browser, "\ue014", "\ue014")
    until(browser, pictures, ["10", "10"])
    assert text(browser, ".other-camera figcaption") == "wrist"
    press(browser, "p")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 1")
    assert "no such file" in text(browser, ".other-camera")
