"""The report's page in a real browser: the list, marks and keys, and that text stays text."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_browser import (
    FIVE,
    FOUND,
    Open,
    episode,
    listed,
    press,
    strip,
    text,
    until,
)

from lerobot_topreward.judging.decisions import read_decisions
from lerobot_topreward.records import Finding, Segment
from lerobot_topreward.report.content import RecordingContent, StartContent
from lerobot_topreward.report.media import EpisodeMedia

pytestmark = pytest.mark.slow

NONE = "\u2013"
EVIL = '</script><img src=x onerror="window.hacked = true"><b>{{title}}'


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
        drops={"min_voc": EVIL},
        parts=[Segment(3, 0, 9, EVIL), Segment(3, 9, 41, EVIL)],
        findings=[Finding(1, "suspect", EVIL, EVIL, (3, 9))],
    )
    browser = show(
        [evil, episode(0)],
        {1: EpisodeMedia(reason=EVIL)},
        title=EVIL,
        dataset=EVIL,
        vlm=EVIL,
        success_origin=EVIL,
        unlabelled={7: EVIL},
        judgment={
            "level": EVIL,
            "reasons": [],
            "evidence": [{"name": "static", "grade": "bad", "text": EVIL}],
        },
        recording=RecordingContent(
            None,
            {"broken": 0, "suspect": 2, "note": 0},
            [Finding(None, "suspect", EVIL, EVIL)],
            [StartContent(EVIL, EVIL, [EVIL, EVIL], [0, 1], np.eye(2))] * 2,
        ),
    )
    assert browser.title == EVIL
    assert EVIL in text(browser, ".home-name")
    assert EVIL in text(browser, "#episodes .task")
    assert EVIL in text(browser, "#episodes .reason")
    assert EVIL in text(browser, ".judgment h2")
    assert EVIL in text(browser, ".judgment li")
    assert EVIL in text(browser, ".missing")
    assert EVIL in text(browser, ".about-recording li")
    chart = "document.querySelector('#filter-starts').closest('figure')"
    assert EVIL in browser.execute_script(f"return {chart}.querySelector('.hint').textContent")
    until(browser, f"{chart}.querySelectorAll('a').length", 2)
    press(browser, "n", "\ue007")
    until(browser, "location.hash", "#episode=1")
    assert EVIL in text(browser, ".instructions")
    assert EVIL in text(browser, ".no-picture")
    assert EVIL in text(browser, "article .findings")
    assert EVIL in browser.execute_script("return document.querySelector('.spans').textContent")
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


def test_the_list_says_the_worst_of_each_recording(show: Open) -> None:
    noted = episode(3, findings=[Finding(3, "note", "odd", "nothing much")])
    browser = show([*FIVE[:2], replace(FIVE[2], findings=FOUND), noted, FIVE[4]])
    cells = "[...document.querySelectorAll('td.c-recording')].map(cell => cell.textContent)"
    browser.execute_script("document.querySelector('th[data-key=recording] button').click()")
    assert listed(browser) == [2, 3, 0, 1, 4]
    assert browser.execute_script(f"return {cells}") == ["1 broken", "1 note", *[NONE] * 3]
    browser.find_element("id", "search").send_keys("frozen rec")
    assert listed(browser) == [2]


def test_start_poses_are_drawn_by_task_and_lead_to_their_episodes(show: Open) -> None:
    two = StartContent("stack", "starts over half", ["x", "y"], [0, 2, 9], np.eye(3)[:, :2])
    line = StartContent("pour", "starts anywhere", ["x"], [1], np.array([[np.nan]]))
    counts = {"broken": 0, "suspect": 0, "note": 1}
    unused = Finding(None, "note", "unused dimension", "action.3 moves in no episode")
    browser = show(recording=RecordingContent(None, counts, [unused], [two, line]))
    assert "1 note" in text(browser, ".about-recording")
    assert "action.3 moves in no episode" in text(browser, ".about-recording li")
    chart = "document.querySelector('#filter-starts').closest('figure')"
    until(browser, f"{chart}.querySelectorAll('a').length", 2)  # nobody labelled episode 9
    assert "starts over half" in browser.execute_script(f"return {chart}.textContent")
    browser.execute_script(
        "const box = document.querySelector('#filter-starts'); box.value = '1';"
        "box.dispatchEvent(new Event('change'))"
    )
    until(browser, f"{chart}.querySelectorAll('a').length", 0)
    assert "starts anywhere" in browser.execute_script(f"return {chart}.textContent")
    browser.execute_script(
        "const box = document.querySelector('#filter-starts'); box.value = '0';"
        "box.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(
        f"{chart}.querySelectorAll('a')[1].dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )
    until(browser, "location.hash", "#episode=2")


def test_a_recording_that_was_not_checked_says_why(show: Open) -> None:
    browser = show(recording=RecordingContent("meta is damaged", {}, (), ()))
    assert "not checked. meta is damaged" in text(browser, ".about")
    assert browser.execute_script("return document.querySelector('.c-recording')") is None


def test_keys_go_through_the_episodes_and_mark_them(show: Open) -> None:
    browser = show(FIVE, {0: strip()})
    press(browser, "\ue015", "\ue015")  # down: the second of the list has the focus
    assert browser.execute_script("return document.activeElement.textContent") == "3"
    press(browser, "d", "\ue007")
    until(browser, "location.hash", "#episode=3")
    assert text(browser, "#episode h1") == "Episode 3"
    assert "drop" in text(browser, "#judged")
    press(browser, "n")
    # The address changes before what is on view does.
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 2")
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


@pytest.mark.parametrize("width", [390, 1280, 1440])
@pytest.mark.parametrize("at", ["", "#episode=3"])
def test_the_page_is_no_wider_than_its_window(show: Open, width: int, at: str) -> None:
    browser = show()
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 400}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    long_finding = Finding(3, "broken", "jump", "y" * 300, (0, 49))
    long = episode(
        3, task="unscrew_the_lid_" * 12, drops={"min_voc": "x" * 200}, findings=[long_finding]
    )
    show([*FIVE[:3], long], {3: strip()}, at=at, title="owner/" + "long_name_" * 20)
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width


def test_a_narrow_list_leaves_columns_out_but_not_the_one_that_sorts_it(show: Open) -> None:
    browser = show(FIVE, {0: strip()})
    shown = "[...document.querySelectorAll('{}')].filter(one => one.offsetWidth).length"
    heads, cells = shown.format("#episodes th"), shown.format("#episodes tbody tr:first-child td")
    counts = []
    for width in (1440, 1200, 1024, 800):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_script("location.hash = '#overview&sort=success_score'")
        until(browser, "document.querySelector('th.sorted').dataset.key", "success_score")
        until(browser, "((box) => box.scrollWidth <= box.clientWidth)"
              "(document.querySelector('.scroll'))", True)  # fmt: skip
        counts.append(browser.execute_script(f"return {heads}"))
        browser.execute_script("location.hash = '#overview&sort=seconds_to_90'")
        until(browser, "document.querySelector('th.sorted').offsetWidth > 0", True)
        until(browser, "document.querySelector('th.sorted').dataset.key", "seconds_to_90")
        assert browser.execute_script(f"return {heads} === {cells}")
    assert sorted(set(counts), reverse=True) == counts


def test_a_long_list_is_drawn_as_it_comes_into_view(show: Open) -> None:
    def value(index: int) -> float:
        return (7919 * index % 1000) / 10

    many = [
        episode(i, metrics={**episode(0).metrics, "success_score": value(i)}) for i in range(1000)
    ]
    browser = show(many)
    order = sorted(range(1000), key=lambda i: (value(i), i))
    first = listed(browser)
    assert 50 < len(first) < 1000
    assert first == order[: len(first)]
    assert text(browser, "#count") == "1000"

    # An opened episode stands beside those that are near it in the list.
    press(browser, "n", "\ue007")
    until(browser, "document.querySelectorAll('.side li').length", 150)
    assert "1 to 150 of 1000" in text(browser, ".side-head")
    press(browser, "o")

    # The end of what is drawn brings on more, in the same order, to the last.
    for _ in range(40):
        browser.execute_script("document.querySelector('#list-end').scrollIntoView()")
        time.sleep(0.1)
    assert listed(browser) == order

    # Sorted anew, the list begins at its top; an episode far down is found again after a visit.
    browser.execute_script("document.querySelector('[data-key=episode] button').click()")
    assert len(listed(browser)) < 1000
    browser.get(browser.current_url.partition("#")[0] + "#episode=700")
    until(browser, "document.querySelector('#episode').hidden", False)
    press(browser, "o")
    until(browser, "document.activeElement.closest('tr')?.dataset.episode", "700")
    assert listed(browser)[:701] == list(range(701))
    press(browser, "n")
    until(browser, "document.activeElement.closest('tr')?.dataset.episode", "701")
