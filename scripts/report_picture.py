"""Make docs/report.png and docs/report.gif: the demo's report in Chromium.

    python scripts/report_picture.py

Needs the demo's output (``make demo``), the extra dev, and Chromium with its driver.
"""

import io
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from selenium import webdriver

REPOSITORY = Path(__file__).parents[1]
DEMO = REPOSITORY / "demo-output"
PICTURE = REPOSITORY / "docs/report.png"
VIEWS = (("", 1040), ("#episode=7&beside=2", 1000))  # address, height in px
WIDTH = 1360  # px
BETWEEN = 16  # px
COLORS = 160  # of the picture, which halve its size
MOVING = REPOSITORY / "docs/report.gif"
SCENES = ("", "#episode=7", "#episode=7&beside=2")  # addresses, one after another
MOVING_SIZE = (960, 660)  # px
SCENE_MS = 3000


def main(chromium: str = "/usr/bin/chromium", driver: str = "/usr/bin/chromedriver") -> None:
    """Make the report, open it, and put what is seen below each other."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{argument}")
    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "lerobot_topreward", "report"]
        command += ["--root", "demo-output/dataset", "--success-file", "demo-output/success.csv"]
        command += ["--title", "so101-demo: pick and place", "--output", str(page)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            shots = [take(browser, page, at, height) for at, height in VIEWS]
            scenes = [take(browser, page, at, _scene_height()) for at in SCENES]
        finally:
            browser.quit()
    size = (WIDTH, sum(shot.height for shot in shots) + BETWEEN * (len(shots) - 1))
    whole, top = Image.new("RGB", size, "#9aa0a6"), 0
    for shot in shots:
        whole.paste(shot, (0, top))
        top += shot.height + BETWEEN
    whole.quantize(COLORS).save(PICTURE, optimize=True)
    first, *rest = [scene.resize(MOVING_SIZE).quantize(COLORS) for scene in scenes]
    first.save(MOVING, append_images=rest, duration=SCENE_MS, loop=0, optimize=True)


def _scene_height() -> int:
    return WIDTH * MOVING_SIZE[1] // MOVING_SIZE[0]


def take(browser: webdriver.Chrome, page: Path, at: str, height: int) -> Image.Image:
    """Open a view of the page and take its picture."""
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get(page.as_uri() + at)
    # A scroll bar would be in the picture, and a cursor at the start says nothing.
    browser.execute_script(
        "document.documentElement.style.scrollbarWidth = 'none';"
        "const time = document.querySelector('.timeline'); const box = time?.getBoundingClientRect();"
        "time?.dispatchEvent(new PointerEvent('pointermove',"
        "{pointerType: 'mouse', clientX: box.left + 0.55 * box.width, clientY: box.top + 50}))"
    )
    time.sleep(2)  # until its pictures are there
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


if __name__ == "__main__":
    main(*sys.argv[1:])
