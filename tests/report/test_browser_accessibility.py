"""What axe-core, the checker that browsers' developers use, says of the report's page: nothing."""

import shutil
import subprocess
import tarfile
from typing import Any

import numpy as np
import pytest
from report_browser import FIVE, FOUND, Open, episode, strip, until

from lerobot_topreward.judging.decisions import Note
from lerobot_topreward.records import Finding
from lerobot_topreward.report.content import RecordingContent, StartContent
from lerobot_topreward.report.others import OtherCurve
from lerobot_topreward.report.signals import SignalsContent
from lerobot_topreward.report.weights import WeightsContent

pytestmark = pytest.mark.slow

AXE = "axe-core@4.14.1"
WIDTHS = (1440, 1024, 390)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker's script, from the npm registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("axe")
    found = subprocess.run(
        [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, check=False
    )
    archives = list(folder.glob("*.tgz"))
    if found.returncode or not archives:
        pytest.skip(f"the npm registry is not reachable: {found.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script
        return script.read().decode()


def open_everything(show: Open, at: str) -> Any:
    """Open a page on which everything that a page can have is shown."""
    frames = np.array([0, 20, 49])
    first = episode(
        0,
        success=True,
        findings=FOUND,
        metrics={**episode(0).metrics, "static_voc": 0.1},
        others=[OtherCurve(1, frames, np.array([0.1, 0.2, 0.3]))],
    )
    starts = [StartContent("stack", "starts anywhere", ["x", "y"], [0, 1], np.eye(2))] * 2
    found = RecordingContent(
        None,
        {"broken": 1, "suspect": 2, "note": 0},
        [Finding(None, "suspect", "twice", "one task is spelled twice")],
        starts,
    )
    values = np.stack([np.linspace(0, 254, 11)] * 2).astype(np.uint8)
    names = ["action.lift", "observation.state.lift"]
    return show(
        [first, *FIVE[1:]],
        {0: strip(), 1: strip()},
        at=at,
        recording=found,
        unlabelled={7: "no video"},
        judges=("own/vlm", "another"),
        decisions={2: "keep"},
        notes={0: Note("slips", ("grasp",))},
        success_origin="a file",
        judgment={
            "level": "usable with care",
            "reasons": [],
            "evidence": [{"name": "voc", "grade": "care", "text": "VOC is low"}],
        },
        signals=SignalsContent(names, np.zeros(2), np.ones(2), {0: values}),
        weights=WeightsContent("awr", 3.0, {0: np.arange(0, 65535, 6553, dtype=np.uint16)}, {}),
        others={"observation.images.wrist": {0: strip()}},
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("at", ["", "#episode=0", "#episode=0&beside=1"])
def test_axe_finds_nothing(show: Open, axe: str, at: str, scheme: str) -> None:
    browser = open_everything(show, at)
    wanted = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # no color is on its way
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    if at:
        until(browser, "document.querySelector('.picture').dataset.frame", "0")
        browser.execute_script(
            "const box = document.getElementById('signal'); box.value = 'all commands';"
            "box.dispatchEvent(new Event('change'))"
        )
    else:
        until(browser, "document.querySelectorAll('.plot svg').length", 3)
    browser.execute_script(axe)
    try:
        for width in WIDTHS:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            found = browser.execute_async_script(
                "const done = arguments[0]; axe.run().then(({violations}) => done(violations.map("
                "({id, nodes}) => [id, nodes[0].html, nodes[0].failureSummary])), error => done(String(error)))"
            )
            assert found == [], width
            until(browser, f"document.scrollingElement.scrollWidth <= {width}", True)
        if not at:
            browser.execute_script("document.getElementById('help').showModal()")
            assert (
                browser.execute_async_script(
                    "const done = arguments[0]; axe.run('#help').then(({violations}) => done(violations.map("
                    "({id}) => id)))"
                )
                == []
            )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
