"""Size of the report and the time it takes to make and to open, for every way to show pictures.

    python benchmarks/report.py
    python benchmarks/report.py --page scale/10000/report.html

With `--page` it measures what a person does on a page that is there, such as the one of 10,000
episodes that benchmarks/scale.py makes (`--episodes 10000 --only "label, first" report`). Otherwise it
records episodes as an arm with one camera would (640x480, 30 fps, AV1, 20 s): the demo's pictures,
enlarged, with the noise of a sensor. Labels them with made-up curves, makes the report in a process
of its own and opens it in headless Chromium, which Selenium drives.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import tyro
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.records import FrameRewards, Segment
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.key import ScoreKey

CAMERA = "observation.images.front"
TASKS = ("put the red block in the box", "open the drawer", "stack the cups")
WAYS = ("none", "strip")
# What a person does on a page; each ends when what it changed has been drawn.
ACTS = {
    "sort by each column": """
        [...document.querySelectorAll('#episodes th button')].map(head => () => head.click())""",
    "filter by verdict": """['keep', 'drop', ''].map(value => () => {
        const box = document.getElementById('filter-verdict');
        box.value = value; box.dispatchEvent(new Event('change'));})""",
    "search": """['c', 'cu', 'final', '17', ''].map(value => () => {
        const box = document.getElementById('search');
        box.value = value; box.dispatchEvent(new Event('input'));})""",
    "move the limit": """[0.3, 0.5, 0.7, 0.4].map(share => () => {
        const box = document.getElementById('limit');
        box.value = +box.min + share * (box.max - box.min);
        box.dispatchEvent(new Event('input'));})""",
    "choose another number": """[1, 2, 0].map(place => () => {
        const box = document.getElementById('chart-metric');
        box.selectedIndex = place; box.dispatchEvent(new Event('change'));})""",
    "mark all, undo": """
        ['bulk-drop', 'bulk-undo'].map(name => () => document.getElementById(name).click())""",
    "open an episode": """[...document.querySelectorAll('#episodes tbody tr')].slice(0, 4)
        .map(row => () => {location.hash = `#episode=${row.dataset.episode}`;})""",
    "go to the next one": "[1, 2, 3].map(() => () => press('n'))",
    "go back to the list": "[() => press('o')]",
}
_ACT = """
const done = arguments[0];
const press = key => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
const painted = () => new Promise(end => requestAnimationFrame(() => requestAnimationFrame(
    () => setTimeout(end))));
(async () => {
  const times = [];
  for (const act of ACTS) {
    const began = performance.now();
    act();
    await painted();
    times.push(performance.now() - began);
    await new Promise(end => setTimeout(end, 300));
  }
  done(times);
})();
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is recorded and where the browser is."""

    episodes: int = 50  # recorded
    seconds: float = 20.0  # each
    fps: int = 30  # of the recording
    size: tuple[int, int] = (480, 640)  # height and width
    noise: float = 3.0  # standard deviation, of 255
    folder: Path | None = None  # keeps the recording, and uses it again
    page: Path | None = None  # measures what a person does on it, and makes none
    chromium: Path = Path("/usr/bin/chromium")
    chromedriver: Path = Path("/usr/bin/chromedriver")


def main(config: BenchmarkConfig) -> None:
    """Record, report in every way, open, print; or measure a page that is there."""
    if config.page is not None:
        measure_page(config, config.page)
        return
    with TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        labeled = folder / "labelled"
        if not labeled.is_dir():
            began = time.perf_counter()
            record(config, folder / "recorded")
            label(folder / "recorded", labeled)
            print(f"recorded in {time.perf_counter() - began:.0f} s")
        print(f"{config.episodes} episodes of {config.seconds:g} s, {config.size[1]}x"
              f"{config.size[0]}, {config.fps} Hz")  # fmt: skip
        for way in WAYS:
            page = folder / f"report-{way}.html"
            began = time.perf_counter()
            command = [sys.executable, "-m", "lerobot_topreward", "report", "--root", str(labeled)]
            command += ["--output", str(page), "--videos", way]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            made = time.perf_counter() - began
            opened = [open_page(config, page) for _ in range(3)]
            shown, loaded, _ = (sorted(times)[1] for times in zip(*opened, strict=True))
            print(f"--videos {way:<7} {page.stat().st_size / 1e6:5.1f} MB, made in {made:5.1f} s, "
                  f"shown after {shown:.2f} s, loaded after {loaded:.2f} s")  # fmt: skip


def record(config: BenchmarkConfig, root: Path) -> None:
    """Record the demo's pictures, enlarged, with noise."""
    height, width = config.size
    features: dict[str, dict] = {
        CAMERA: {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "c"]}
    }
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": (6,), "names": None}
    dataset = LeRobotDataset.create(
        "local/recorded", fps=config.fps, features=features, root=root, streaming_encoding=True
    )
    rng = np.random.default_rng(0)
    grain = rng.normal(0, config.noise, (16, height, width, 3)).astype(np.float32)
    demo = open_source(repo_id=None, root=DATASET, revision=None)
    lengths = demo.meta.episodes["length"].to_pylist()
    for episode in range(config.episodes):
        whole = Segment(episode % len(lengths), 0, lengths[episode % len(lengths)], "")
        fps = float(demo.meta.fps)
        clip = read_clip(demo, camera=CAMERA, segment=whole, sample_fps=fps, final_frame=True)
        large = [
            np.asarray(Image.fromarray(frame).resize((width, height))) for frame in clip.frames
        ]
        frames = round(config.seconds * config.fps)
        for frame in range(frames):
            image = large[frame * len(large) // frames] + grain[rng.integers(len(grain))]
            values = rng.normal(size=6).astype(np.float32)
            pixels = np.clip(image, 0, 255).astype(np.uint8)
            task = TASKS[episode % len(TASKS)]
            dataset.add_frame(
                {CAMERA: pixels, "observation.state": values, "action": values, "task": task}
            )
        dataset.save_episode()
    dataset.finalize()


def label(root: Path, output: Path) -> None:
    """Label with curves that rise, some of which fall again."""
    source = open_source(repo_id=None, root=root, revision=None)
    table = source.frames
    rng = np.random.default_rng(0)
    log_prob = np.zeros(len(table.index), dtype=np.float32)
    for episode in range(source.meta.total_episodes):
        rows = table.rows(episode)
        frames = rows.stop - rows.start
        end = rng.choice([-6.0, -9.0, -13.0], p=[0.7, 0.15, 0.15])
        curve = np.interp(np.linspace(0, 1, frames), [0, 0.3, 0.7, 1], [-18, -14, -8, end])
        log_prob[rows] = curve + np.repeat(rng.normal(0, 0.4, frames // 15 + 1), 15)[:frames]
    rewards = FrameRewards(
        index=table.index,
        episode_index=table.episode_index,
        frame_index=table.frame_index,
        labelled=np.ones(len(table.index), dtype=bool),
        log_prob_true=log_prob,
        log_prob_false=np.full_like(log_prob, -1),
        progress=np.zeros_like(log_prob),
        advantage=np.zeros_like(log_prob),
        scored=np.ones(len(table.index), dtype=bool),
    )
    key = ScoreKey(
        vlm="made/up",
        vlm_revision="0" * 40,
        dtype="float32",
        prompt="",
        camera=CAMERA,
    )
    provenance = {"dataset": source.repo_id, "scoring": key.to_json(), "normalize": "task"}
    provenance |= {"scale": "log-prob", "horizon_frames": 30}
    fingerprint = source.fingerprints.dataset
    write_columns(root, rewards, output, fingerprint=fingerprint, provenance=provenance)


def measure_page(config: BenchmarkConfig, page: Path) -> None:
    """Open a page, do on it what a person does, and print seconds and memory."""
    print(f"{page.stat().st_size / 1e6:.1f} MB")
    opened = [open_page(config, page) for _ in range(3)]
    shown, loaded, cpu = (sorted(times)[1] for times in zip(*opened, strict=True))
    print(f"shown after {shown:.2f} s, loaded after {loaded:.2f} s, {cpu:.2f} CPU s")
    with start_browser(config) as driver:
        driver.set_script_timeout(600)
        driver.get(page.absolute().as_uri())
        print(f"{'':<24}median s  largest s  CPU s each")
        for name, acts in ACTS.items():
            before = measure_cpu(driver)
            times = driver.execute_async_script(_ACT.replace("ACTS", acts))
            cpu = (measure_cpu(driver) - before) / len(times)
            print(
                f"{name:<24}{np.median(times) / 1000:8.2f}{np.max(times) / 1000:11.2f}{cpu:12.2f}"
            )
        print(f"memory of the tab: {measure_peak(driver):.2f} GB at its peak")


def measure_peak(driver: Any) -> float:
    """The most memory that any of the browser's tabs has had, GB."""
    peaks = [0]
    for tab in list_tabs(driver):
        status = Path(f"/proc/{tab.pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    return max(peaks) / 1e6


def measure_cpu(driver: Any) -> float:
    """CPU seconds of the browser's tabs until now, which other work on the machine changes least."""
    return sum(sum(tab.cpu_times()[:2]) for tab in list_tabs(driver))


def list_tabs(driver: Any) -> list[psutil.Process]:
    """The processes that run pages."""
    browser = psutil.Process(driver.service.process.pid)
    return [each for each in browser.children(recursive=True)
            if each.status() != psutil.STATUS_ZOMBIE and "--type=renderer" in each.cmdline()]  # fmt: skip


def open_page(config: BenchmarkConfig, page: Path) -> tuple[float, float, float]:
    """Seconds from the start of the navigation to the first paint, to the end of loading; CPU s."""
    with start_browser(config) as driver:
        driver.get(page.absolute().as_uri())
        time.sleep(1)  # loadEventEnd is written after the load event
        shown, loaded = driver.execute_script(
            "return [performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.getEntriesByType('navigation')[0].loadEventEnd]"
        )
        cpu = measure_cpu(driver)
    return shown / 1000, loaded / 1000, cpu


@contextmanager
def start_browser(config: BenchmarkConfig) -> Iterator[Any]:
    """Start a headless Chromium of its own, and end it."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(config.chromium)
    with TemporaryDirectory() as profile:
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-sync",
                         "disable-background-networking", "disable-component-update",
                         "no-first-run", "window-size=1440,900", f"user-data-dir={profile}"):  # fmt: skip
            options.add_argument(f"--{argument}")
        driver = webdriver.Chrome(options=options, service=Service(str(config.chromedriver)))
        try:
            yield driver
        finally:
            driver.quit()


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
