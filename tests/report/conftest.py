"""Chromium, and pages opened in it."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from report_browser import FIVE, Open
from report_pages import make_page

from lerobot_topreward.report.content import EpisodeContent
from lerobot_topreward.report.media import EpisodeMedia
from lerobot_topreward.report.page import render
from lerobot_topreward.report.signals import SignalsContent
from lerobot_topreward.report.weights import WeightsContent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: the extra dev")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium.common.exceptions import WebDriverException
    from urllib3.exceptions import HTTPError

    driver = None
    for _ in range(2):
        driver = start_browser(webdriver, CHROMIUM, DRIVER, tmp_path_factory.mktemp("profile"))
        try:
            driver.get("about:blank")
            break
        except (WebDriverException, HTTPError):  # a busy machine's Chromium may hang at its start
            driver.service.process.kill()
    assert driver is not None
    yield driver
    driver.quit()


def start_browser(webdriver: Any, chromium: str, chromedriver: str, profile: Path) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "window-size=1440,900",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page of some episodes; afterwards nothing may have been complained about."""

    def open_page(
        episodes: Sequence[EpisodeContent] = FIVE,
        media: dict[int, EpisodeMedia] | None = None,
        *,
        at: str = "",
        name: str = "page.html",
        others: dict[str, dict[int, EpisodeMedia]] | None = None,
        signals: SignalsContent | None = None,
        weights: WeightsContent | None = None,
        **changes: Any,
    ) -> Any:
        # A fingerprint of its own, so that marks are those of this test alone.
        page = make_page(episodes, **({"fingerprint": tmp_path.name} | changes))
        path = tmp_path / name
        made = render(page, media or {}, others=others, signals=signals, weights=weights)
        path.write_bytes(made.encode())
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
