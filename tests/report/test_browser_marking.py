"""The report's page in a real browser: many marks at once, notes, and what is saved."""

import csv
import time
from pathlib import Path
from typing import Any

import pytest
from report_browser import FIVE, Open, episode, press, text, until

from lerobot_topreward.judging.decisions import MOST_TAG, MOST_TAGS, MOST_TEXT, Note, read_decisions

pytestmark = pytest.mark.slow


def save(browser: Any, folder: Path, *, button: str, name: str) -> Path:
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
    )
    browser.execute_script("document.getElementById(arguments[0]).click()", button)
    deadline = time.monotonic() + 10
    while not (folder / name).is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return folder / name


def write(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'))",
        name,
        value,
    )


def test_what_is_listed_is_marked_at_once_and_undone_at_once(show: Open) -> None:
    browser = show(at="#overview&task=stack+the+cups")
    assert text(browser, "#bulk-count") == "These 3 episodes:"
    browser.find_element("id", "bulk-drop").click()
    assert text(browser, "#tally") == "3 marked: 0 keep, 3 drop"
    badges = "return document.querySelectorAll('#episodes .badge.drop.own').length"
    assert browser.execute_script(badges) == 3
    browser.find_element("id", "bulk-keep").click()
    assert text(browser, "#tally") == "3 marked: 3 keep, 0 drop"
    browser.find_element("id", "bulk-undo").click()
    assert text(browser, "#tally") == "3 marked: 0 keep, 3 drop"
    browser.find_element("id", "bulk-none").click()
    assert text(browser, "#tally") == "nothing marked yet"
    press(browser, "u")
    assert text(browser, "#tally") == "3 marked: 0 keep, 3 drop"


def test_a_mark_goes_on_to_the_next_episode_where_that_is_wished(show: Open) -> None:
    browser = show(at="#episode=4")
    press(browser, "k")
    assert browser.execute_script("return location.hash") == "#episode=4"
    press(browser, "a", "d")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 3")
    press(browser, "k")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 2")
    assert text(browser, "#tally") == "2 marked: 1 keep, 1 drop"
    press(browser, "k", "p")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 2")
    press(browser, "k")  # which takes the mark away, so there is nothing to go on from
    assert browser.execute_script("return location.hash") == "#episode=2"


def test_notes_are_saved_as_curate_reads_them(show: Open, tmp_path: Path) -> None:
    browser = show(at="#episode=4")
    assert not browser.find_element("id", "download").is_enabled()
    press(browser, "e", "s", "l", "i", "p", "s", "d", "\t")
    assert text(browser, "#tally") == "nothing marked yet"  # those keys were text
    write(browser, "tags", " grasp,, redo , grasp")
    browser.execute_script("location.hash = '#episode=3'")
    until(browser, "document.querySelector('#episode h1').textContent", "Episode 3")
    write(browser, "note", "line\u2028one\x00\u202e" + "x" * 2 * MOST_TEXT)
    write(browser, "tags", ",".join(f"{i}" * 2 * MOST_TAG for i in range(2 * MOST_TAGS)))
    press(browser, "o")
    assert "slipsd #grasp #redo" in text(browser, "#episodes")
    found = read_decisions(save(browser, tmp_path, button="download", name="decisions.json"))
    assert found.by_episode == {}
    assert found.notes[4] == Note("slipsd", ("grasp", "redo"))
    assert len(found.notes[3].text) == MOST_TEXT
    assert len(found.notes[3].tags) == MOST_TAGS
    browser.refresh()
    until(browser, "document.getElementById('episodes').innerText.includes('#redo')", True)
    press(browser, "/", "r", "e", "d", "o")
    until(browser, "document.getElementById('count').textContent", "1 of 5")


def test_notes_of_a_file_are_there_again(show: Open) -> None:
    evil = "<img src=x onerror=alert(1)>"
    browser = show(notes={1: Note(evil, ("wet",))}, at="#overview&verdict=noted")
    assert f"{evil} #wet" in text(browser, "#episodes")
    assert browser.execute_script("return document.querySelector('img[src=x]')") is None


def test_the_list_is_saved_as_a_table(show: Open, tmp_path: Path) -> None:
    evil = episode(7, task='=HYPERLINK("http://x"), "a"\nb', drops={"min_voc": "-1, so"})
    browser = show([*FIVE, evil], at="#overview&sort=episode:best")
    press(browser, "n", "k")
    path = save(browser, tmp_path, button="table", name="episodes.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["episode_index"]) for row in rows] == [7, 4, 3, 2, 1, 0]
    assert rows[0]["task"] == "'" + evil.task
    assert rows[0]["reasons"] == "'-1, so"
    assert (rows[0]["verdict"], rows[0]["marked"]) == ("keep", "keep")
    assert [row["success"] for row in rows] == ["", "", "", "", "false", "true"]
    assert float(rows[2]["regress"]) == FIVE[3].metrics["regress"]
    assert rows[1]["voc"] == ""
