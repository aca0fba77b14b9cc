"""The report's page in a real browser: what a person sees, presses and saves."""

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lerobot_topreward.judging.decisions import read_decisions
from lerobot_topreward.judging.episode_metrics import METRICS
from lerobot_topreward.records import Segment
from lerobot_topreward.report.content import LENGTH, ControlContent, Curve, EpisodeContent
from lerobot_topreward.report.media import EpisodeMedia, make_strip, make_thumbnail
from lerobot_topreward.report.page import Page, render

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
EVIL = '</script><img src=x onerror="window.hacked = true"><b>{{title}}'
FPS = 10.0
STEP = 5  # frames between pictures
LINES = [metric.key for metric in (*METRICS, LENGTH)]

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: the extra dev")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "window-size=1440,900",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


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
        "keep": True,
        "reasons": (),
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


FIVE = (
    episode(0, success=True),
    episode(1, task="pour", keep=False, reasons=("VOC 0.10 < 0.50",), success=False),
    episode(2, keep=False, reasons=("stall 4.00 > 3.00 s",)),
    episode(
        3,
        parts=[Segment(3, 0, 20, "reach"), Segment(3, 20, 30, "lift the cup")],
        task="reach / lift",
    ),
    episode(4, metrics={**episode(4).metrics, "voc": float("nan")}),
)


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page of some episodes; afterwards nothing may have been complained about."""

    def open_page(
        episodes: Sequence[EpisodeContent] = FIVE,
        media: dict[int, EpisodeMedia] | None = None,
        *,
        at: str = "",
        name: str = "page.html",
        **changes: Any,
    ) -> Any:
        values: dict[str, Any] = {
            "title": "local/cups",
            "dataset": "local/cups",
            "fingerprint": tmp_path.name,  # so that marks are those of this test alone
            "version": "0",
            "made": "today",
            "vlm": "a/vlm",
            "camera": "observation.images.front",
            "scored_camera": "observation.images.front",
            "fps": FPS,
            "horizon": 1.0,
            "scale": "log-prob",
            "debiased": False,
            "columns": "scaled within each episode",
            "rules": {"min_final_progress": 0.8},
            "rule_texts": ["final progress at least 0.8"],
            "metrics": [*METRICS, LENGTH],
            "success_origin": None,
            "success_auc": float("nan"),
            "controls": [],
            "episodes": episodes,
            "unlabelled": {},
            "decisions": {},
        }
        path = tmp_path / name
        path.write_bytes(render(Page(**(values | changes)), media or {}).encode())
        browser.get("about:blank")
        browser.get(path.as_uri() + at)
        return browser

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    for log in ("browser", "performance"):
        browser.get_log(log)  # which empties it
    yield open_page
    assert [line["message"] for line in browser.get_log("browser")] == []


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


def test_the_page_opens_from_a_file_and_asks_for_nothing_else(show: Open) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    until(browser, "document.querySelector('.picture').dataset.frame", "0")
    show(FIVE, {0: strip()}, at="#episode=1")
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    asked = [url for url in asked if not url.startswith(("data:", "about:"))]
    assert len(asked) == 2  # the page, twice
    assert all(url.startswith("file:") for url in asked)


def test_text_of_a_dataset_stays_text(show: Open) -> None:
    evil = episode(
        1,
        task=EVIL,
        keep=False,
        reasons=(EVIL,),
        parts=[Segment(3, 0, 9, EVIL), Segment(3, 9, 41, EVIL)],
    )
    browser = show(
        [evil, episode(0)],
        {1: EpisodeMedia(reason=EVIL)},
        title=EVIL,
        dataset=EVIL,
        vlm=EVIL,
        success_origin=EVIL,
        unlabelled={7: EVIL},
        controls=[ControlContent("static", EVIL, 0.1, 2)],
    )
    assert browser.title == EVIL
    assert EVIL in text(browser, ".home-name")
    assert EVIL in text(browser, "#episodes .task")
    assert EVIL in text(browser, "#episodes .reason")
    assert EVIL in text(browser, ".missing")
    press(browser, "n", "\ue007")
    until(browser, "location.hash", "#episode=1")
    assert EVIL in text(browser, ".instructions")
    assert EVIL in text(browser, ".no-picture")
    assert browser.execute_script("return document.querySelector('img[src=x]')") is None
    assert browser.execute_script("return window.hacked") is None


def test_the_policy_of_the_page_stops_what_gets_in_all_the_same(show: Open) -> None:
    browser = show()
    browser.execute_script(
        "const at = document.body.appendChild(document.createElement('div'));"
        "at.innerHTML = '<img src=x onerror=\"window.hacked = true\"><img src=http://127.0.0.1:9/>'"
    )
    time.sleep(0.3)
    assert browser.execute_script("return window.hacked") is None
    complaints = [line["message"] for line in browser.get_log("browser")]
    assert complaints
    assert all("Content Security Policy" in line for line in complaints)


def test_episodes_are_sorted_worst_first_by_any_metric(show: Open) -> None:
    browser = show()
    assert listed(browser) == [4, 3, 2, 1, 0]  # of the success score
    click = "document.querySelector('th[data-key={}] button').click()"
    state = "document.querySelector('th[data-key={}]').getAttribute('aria-sort')"
    browser.execute_script(click.format("regress"))
    assert listed(browser) == [0, 1, 2, 3, 4]
    assert browser.execute_script("return " + state.format("regress")) == "descending"
    browser.execute_script(click.format("voc"))
    assert listed(browser) == [3, 2, 1, 0, 4]  # an undefined one is last
    browser.execute_script(click.format("voc"))
    assert listed(browser) == [0, 1, 2, 3, 4]
    assert browser.execute_script("return " + state.format("voc")) == "descending"
    assert browser.execute_script("return " + state.format("success_score")) is None
    browser.execute_script(click.format("verdict"))
    assert listed(browser)[:2] == [1, 2]


def test_episodes_are_filtered_by_task_verdict_outcome_and_text(show: Open) -> None:
    browser = show()

    def choose(name: str, value: str) -> list[int]:
        browser.execute_script(
            "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
            "box.dispatchEvent(new Event(box.tagName == 'SELECT' ? 'change' : 'input'))",
            name,
            value,
        )
        return sorted(listed(browser))

    assert choose("filter-task", "pour") == [1]
    assert choose("filter-task", "") == [0, 1, 2, 3, 4]
    assert choose("filter-verdict", "drop") == [1, 2]
    assert text(browser, "#count") == "2 of 5"
    assert choose("search", "STALL") == [2]
    assert choose("search", "nowhere") == []
    assert "No episode matches" in text(browser, "#nothing")
    assert choose("search", "") == [1, 2]
    assert choose("filter-verdict", "") == [0, 1, 2, 3, 4]
    assert choose("search", "#3") == [3]
    assert choose("search", "") == [0, 1, 2, 3, 4]
    assert choose("filter-outcome", "failed") == [1]
    assert choose("filter-outcome", "unknown") == [2, 3, 4]


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


def test_keys_go_through_the_episodes_and_mark_them(show: Open) -> None:
    browser = show(FIVE, {0: strip()})
    press(browser, "\ue015", "\ue015")  # down: the second of the list has the focus
    assert browser.execute_script("return document.activeElement.textContent") == "3"
    press(browser, "d", "\ue007")
    until(browser, "location.hash", "#episode=3")
    assert text(browser, "h1") == "Episode 3"
    assert "drop" in text(browser, "#judged")
    press(browser, "n")
    until(browser, "location.hash", "#episode=2")
    press(browser, "k")
    assert "the rules say drop: stall" in text(browser, "#judged")
    assert text(browser, "#tally") == "2 marked: 1 keep, 1 drop"
    press(browser, "u")
    assert text(browser, "#tally") == "1 marked: 0 keep, 1 drop"
    press(browser, "?")
    assert browser.execute_script("return document.getElementById('help').open")
    press(browser, "\ue00c")  # escape closes the panel first, then the episode
    assert not browser.execute_script("return document.getElementById('help').open")
    press(browser, "\ue00c")
    until(browser, "location.hash", "#overview")
    assert browser.execute_script("return document.activeElement.textContent") == "2"
    press(browser, "/", "p", "o", "u", "r")
    assert listed(browser) == [1]


def test_decisions_are_saved_as_curate_reads_them(show: Open, tmp_path: Path) -> None:
    browser = show()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    assert not browser.find_element("id", "download").is_enabled()
    press(browser, "n", "d", "n", "d", "n", "k", "u", "n", "d", "d", "k")
    browser.find_element("id", "download").click()
    path = tmp_path / "decisions.json"
    for _ in range(100):
        if path.is_file():
            break
        time.sleep(0.05)
    found = read_decisions(path)
    assert found.by_episode == {4: False, 3: False, 1: True}
    assert (found.dataset, found.fingerprint) == ("local/cups", tmp_path.name)


def test_marks_survive_a_reload_and_begin_with_those_of_a_file(show: Open) -> None:
    given = {1: "keep", 2: "drop"}
    browser = show(decisions=given)
    assert text(browser, "#tally") == "2 marked: 1 keep, 1 drop"
    press(browser, "n", "d")
    browser.refresh()
    assert text(browser, "#tally") == "3 marked: 1 keep, 2 drop"
    show(decisions={})  # other decisions, other marks
    assert text(browser, "#tally") == "nothing marked yet"
    assert "keep 3" in text(browser, "#split")


def test_a_browser_that_keeps_nothing_says_so(show: Open) -> None:
    browser = show()
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        show()
        assert "keeps no marks" in text(browser, "#storage-note")
        press(browser, "n", "d")
        assert text(browser, "#tally").startswith("1 marked")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_an_episode_without_pictures_has_its_curves(show: Open) -> None:
    browser = show(FIVE, {0: EpisodeMedia(reason="file-000.mp4 is missing")}, at="#episode=0")
    assert "file-000.mp4 is missing" in text(browser, ".no-picture")
    assert browser.execute_script("return document.querySelectorAll('.pane .curve').length") == 3
    show(FIVE, at="#episode=3")  # no pictures at all, and two subtasks
    assert browser.execute_script("return document.querySelector('.screen')") is None
    assert browser.execute_script("return document.querySelectorAll('.border').length") == 1
    lane = "[...document.querySelectorAll('.part-name')].map(one => one.textContent)"
    assert browser.execute_script(f"return {lane}") == ["reach", "lift the cup"]


def test_one_frame_and_nothing_defined_is_a_page_all_the_same(show: Open) -> None:
    one = np.zeros(1, dtype=np.int64)
    empty = dict.fromkeys(LINES, float("nan")) | {"success_score": -1.0, "seconds": 0.1}
    only = episode(
        0,
        frames=1,
        metrics=empty,
        parts=[Segment(3, 0, 1, "blink")],
        curve=Curve(one, one - 1.0, one + 1.0, one * 0.0),
        prefixes=one,
    )
    browser = show([only])
    assert listed(browser) == [0]
    show([only], at="#episode=0")
    assert "0.0 / 0.1 s" in text(browser, "#clock")
    press(browser, "\ue014", "\ue012", " ")
    assert text(browser, "#clock").endswith("frame 0")


def test_hundreds_of_episodes_are_listed(show: Open) -> None:
    browser = show(
        [episode(i, metrics={**episode(0).metrics, "voc": -i / 300}) for i in range(300)]
    )
    assert len(listed(browser)) == 300
    press(browser, "n", "\ue007")
    until(browser, "document.querySelectorAll('.side li').length", 300)


@pytest.mark.parametrize("width", [390, 1280, 1440])
@pytest.mark.parametrize("at", ["", "#episode=3"])
def test_the_page_is_no_wider_than_its_window(show: Open, width: int, at: str) -> None:
    browser = show()
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 400}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    long = episode(3, task="unscrew_the_lid_" * 12, reasons=("x" * 200,), keep=False)
    show([*FIVE[:3], long], {3: strip()}, at=at, title="owner/" + "long_name_" * 20)
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width


def test_every_control_has_a_name(show: Open) -> None:
    browser = show(FIVE, {0: strip()}, at="#episode=0")
    unnamed = browser.execute_script(
        """return [...document.querySelectorAll('button, select, input, a, [role=slider], canvas')]
        .filter(one => !one.closest('[aria-hidden=true]') && one.getAttribute('aria-hidden') !== 'true'
            && !(one.getAttribute('aria-label') || one.textContent).trim())
        .map(one => one.outerHTML)"""
    )
    assert unnamed == []


def test_pictures_that_cannot_be_read_say_so(show: Open) -> None:
    made = strip().strip
    assert made
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    broken = EpisodeMedia(replace(made, data=buffer.getvalue()[:20]))
    browser = show(FIVE, {0: broken}, at="#episode=0")
    until(browser, "Boolean(document.querySelector('.no-picture'))", True)
