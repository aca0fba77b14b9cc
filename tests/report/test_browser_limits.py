"""The report's page in a real browser: limits that are moved, bars, and the address that keeps them."""

import shlex
from typing import Any

import pytest
from report_browser import Open, episode, listed, press, text, until

from lerobot_topreward.judging.rules import RulesConfig, find_drops
from lerobot_topreward.records import EpisodeMetrics

pytestmark = pytest.mark.slow

VALUES = {  # of three episodes: between the limits below, equal to one, and undefined
    "success_score": (-0.1, -0.5, -2.0),
    "voc": (0.9, 0.25, float("nan")),
    "final_progress": (0.8, 0.79999, 0.1),
    "longest_stall": (0.0, 3.0, 3.0000000000000004),
    "regress": (0.0, 0.3, 0.30000000000000004),
}
LIMITS = {
    "min_success": -0.5,
    "min_voc": 0.25,
    "min_final_progress": 0.8,
    "max_stall": 3.0,
    "max_regress": 0.3,
}


def set_value(browser: Any, name: str, value: str, *, event: str = "change") -> None:
    browser.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event(arguments[2]))",
        name,
        value,
        event,
    )


def settle(browser: Any) -> None:
    """Wait for the list to be made anew, which happens before the next picture."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def kept(browser: Any) -> list[int]:
    return sorted(
        browser.execute_script(
            "return [...document.querySelectorAll('#episodes tbody tr')]"
            ".filter(row => row.querySelector('.badge.keep')).map(row => +row.dataset.episode)"
        )
    )


@pytest.mark.parametrize("rule", LIMITS)
def test_a_limit_in_the_page_decides_as_the_rule_does(show: Open, rule: str) -> None:
    fixed = {"task": "stack", "frames": 50, "seconds": 5.0, "max_progress": 1.0}
    fixed |= {"seconds_to_90": 1.0, "negative_share": 0.0, "log_odds": 0.0}
    values: list[Any] = [{name: each[i] for name, each in VALUES.items()} for i in range(3)]
    metrics = [EpisodeMetrics(i, **(fixed | values[i])) for i in range(3)]
    shown = [
        episode(i, metrics={name: getattr(metrics[i], name) for name in episode(0).metrics})
        for i in range(3)
    ]
    browser = show(shown, rules={}, rule_texts={}, at=f"#overview&limit={rule}:{LIMITS[rule]}")
    limit: Any = {rule: LIMITS[rule]}
    [(name, drops)] = find_drops(metrics, RulesConfig(**limit, drop_broken=False)).items()
    assert name == rule
    assert kept(browser) == sorted({0, 1, 2} - {*drops})


def test_a_moved_limit_says_live_what_it_keeps_and_drops(show: Open) -> None:
    browser = show(rules={"min_voc": 0.5}, rule_texts={"min_voc": "VOC at least 0.5"})
    assert browser.execute_script("return document.querySelector('#chart-metric').value") == "voc"
    assert kept(browser) == [0, 3, 4]
    set_value(browser, "chart-metric", "success_score")
    set_value(browser, "limit-number", "-0.2")
    settle(browser)
    assert kept(browser) == [0]  # 1 and 2 break other rules, 3 and 4 this one
    assert "drops 2 of 5" in text(browser, "#limit-said")
    assert "keep 1, drop 4" in text(browser, "#limit-said")
    assert "keep 1" in text(browser, "#split")
    assert "success score at least -0.2 nats" in text(browser, "#rules")
    assert "success score \u22120.300 < \u22120.200 nats" in text(browser, "#episodes")
    # The given rule can be moved, too, or left out.
    set_value(browser, "chart-metric", "voc")
    set_value(browser, "limit", "-1", event="input")
    settle(browser)
    assert kept(browser) == [0, 1]  # that broke this rule alone
    browser.find_element("id", "limit-off").click()
    settle(browser)
    assert "VOC" not in text(browser, "#rules")
    browser.find_element("id", "limit-reset").click()
    settle(browser)
    assert kept(browser) == [0]
    # An episode that is opened says the same, and so does its curve.
    browser.get(browser.current_url.partition("#")[0] + "#episode=3&limit=min_final_progress:0.6")
    until(browser, "document.querySelector('#episode').hidden", False)
    assert (
        browser.execute_script("return document.querySelector('.pane .limit-name').textContent")
        == "rule 0.60"
    )


def test_the_command_asks_curate_for_what_the_page_decides(show: Open) -> None:
    browser = show(rules={"min_final_progress": 0.8, "max_idle": 0.25, "drop_broken": 1.0})
    command = "return document.querySelector('#command').textContent"
    assert browser.execute_script(command) == (
        "lerobot-topreward curate --repo-id local/cups --min-final-progress 0.8 --max-idle 0.25 "
        "--output curated"
    )
    set_value(browser, "limit-number", "0.55")
    press(browser, "n", "d")
    words = shlex.split(browser.execute_script(command))
    assert words[:2] == ["lerobot-topreward", "curate"]
    assert words[-4:] == ["--decisions", "decisions.json", "--output", "curated"]
    assert words[words.index("--min-final-progress") + 1] == "0.55"
    show(rules={}, rule_texts={})  # nothing is dropped, which curate does not do by itself
    assert "--max-idle 1 --no-drop-broken" in browser.execute_script(command)


def test_a_bar_filters_the_list_by_what_it_stands_for(show: Open) -> None:
    browser = show()
    set_value(browser, "chart-metric", "success_score")
    until(browser, "document.querySelectorAll('.bar-link').length", 5)
    bars = browser.execute_script(
        "return [...document.querySelectorAll('.bar-link')].map(bar => bar.getAttribute('aria-label'))"
    )
    assert all(": 1 " in name for name in bars)
    seen = []
    for place in range(5):
        browser.execute_script(
            "document.querySelectorAll('.bar-link')[arguments[0]]"
            ".dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))",
            place,
        )
        seen += listed(browser)
        assert text(browser, "#count") == "1 of 5"
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert "range=success_score" in browser.execute_script("return location.hash")
    browser.find_element("id", "range-off").click()
    assert sorted(listed(browser)) == [2, 3, 4]  # whose outcome, the last bar's row, is not known


def test_distributions_are_shown_per_task(show: Open) -> None:
    browser = show()
    set_value(browser, "chart-by", "task")
    names = "[...document.querySelectorAll('.plot .row-name title')].map(name => name.textContent)"
    until(browser, names, ["stack the cups", "pour", "reach / lift"])


def test_the_address_keeps_sorting_filters_and_limits(show: Open) -> None:
    browser = show()
    browser.execute_script("document.querySelector('th[data-key=voc] button').click()")
    browser.execute_script("document.querySelector('th[data-key=voc] button').click()")
    set_value(browser, "filter-task", "stack the cups")
    set_value(browser, "search", "cups", event="input")
    set_value(browser, "limit-number", "0.5")
    settle(browser)
    order = listed(browser)
    address = browser.current_url
    browser.get("about:blank")
    browser.get(address)
    settle(browser)
    assert listed(browser) == order == [0, 2, 4]
    assert browser.current_url == address
    assert browser.execute_script("return document.querySelector('#search').value") == "cups"
    assert "final progress at least 0.5" in text(browser, "#rules")


@pytest.mark.parametrize(
    "address",
    [
        "#overview&sort=__proto__&task=nowhere&verdict=constructor&outcome=toString",
        "#overview&range=voc:1e999:0:last&limit=min_voc:7&limit=nothing:1&limit=min_voc:",
        "#overview&range=__proto__:0:1&limit=constructor:1&limit=toString:none",
        "#episode=99&beside=1e9",
        "#episode=-1&beside=%F0%28%8C%28&text=%00%00",
    ],
)
def test_an_address_of_a_stranger_changes_nothing_that_it_cannot(show: Open, address: str) -> None:
    browser = show(at=address)
    assert not browser.execute_script("return document.querySelector('#overview').hidden")
    if "text=" not in address:
        assert listed(browser) == [4, 3, 2, 1, 0]
    assert "final progress at least 0.8" in text(browser, "#rules")


def test_ten_thousand_episodes_are_listed_and_limited_at_once(show: Open) -> None:
    many = [
        episode(i, metrics={**episode(0).metrics, "final_progress": i / 1e4}) for i in range(10_000)
    ]
    browser = show(many)
    for limit in (0.1 * i for i in range(10)):
        set_value(browser, "limit", str(limit), event="input")
        settle(browser)
    assert "keep 1000, drop 9000" in text(browser, "#limit-said")
    browser.get(browser.current_url.partition("#")[0] + "#episode=5000")
    until(browser, "document.querySelector('#episode h1')?.textContent", "Episode 5000")
