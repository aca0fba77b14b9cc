"""How the cost of every command grows with the dataset: seconds, CPU seconds and peak memory.

    python benchmarks/scale.py --work scale
    python benchmarks/scale.py --work scale --episodes 1000 10000 --only label train

Makes datasets of 1,000 and 10,000 episodes of some 200 frames and one camera, laid out as LeRobot
packs them: files of ``data/`` up to 100 MB, 100 episodes in a video file. Every video file is the same,
as no command here looks at more than its packets. The scores are made up, half of the episodes
succeed, and they are written with the store's own writer, so `label` finds nothing left to score.
Each command runs in a process of its own. The growth is that of CPU seconds per episode, which other
work on the machine changes least.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.logging
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from lerobot.datasets.dataset_tools import remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import segments
from lerobot_topreward.data.schedule import images_shown, prefix_lengths
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.job import open_job
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.scoring.run import identify_judge
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.store import list_shards, open_store
from lerobot_topreward.vlm.identity import VlmConfig

CAMERA = "observation.images.front"
TASKS = ("put the red block in the box", "put the green block in the box")
FPS = 20
SIZE = (48, 64)  # height and width; sizes do not matter to what is measured
IN_A_VIDEO = 100  # episodes
IN_A_DATA_FILE = 5_000  # episodes
VLM = "builtin:so101-demo"
# A small process in between: what it starts would begin with the memory of this one.
_MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - began, used.ru_utime + used.ru_stime,
                  used.ru_maxrss / 1e6, done.returncode, done.stderr[-2000:]]))
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is measured, and where."""

    work: Path = Path("scale")  # folder for the datasets, which are used again
    episodes: tuple[int, ...] = (1_000, 10_000)  # of each dataset
    only: tuple[str, ...] = ()  # names of commands; all if not given
    videos: bool = True  # in what `curate --output` copies; LeRobot encodes them again
    timeout: float = 900  # seconds after which a command is given up


def main(config: BenchmarkConfig) -> None:
    """Make the datasets, run every command on each of them, print."""
    print(f"{'':<16} {'episodes':>8} {'seconds':>8} {'CPU s':>7} {'GB':>5}  growth per episode")
    before: dict[str, float] = {}
    for episodes in config.episodes:
        root = make_dataset(config.work / f"{episodes}", episodes)
        for name, command in list_commands(root, config.work, videos=config.videos):
            if config.only and name not in config.only:
                continue
            measured = measure(command, config.timeout)
            if measured is None:
                print(f"{name:<16} {episodes:>8,} more than {config.timeout:.0f} s", flush=True)
                continue
            seconds, cpu, peak = measured
            growth = ""
            if name in before:
                growth = f"{cpu / episodes / before[name]:.2f}x"
            before[name] = cpu / episodes
            print(f"{name:<16} {episodes:>8,} {seconds:8.1f} {cpu:7.1f} {peak:5.2f}  {growth}",
                  flush=True)  # fmt: skip


def list_commands(root: Path, work: Path, *, videos: bool) -> Iterator[tuple[str, list[str]]]:
    """List what is measured: a name, and the command. Each is yielded after the last one ran."""
    program = [sys.executable, "-m", "lerobot_topreward"]
    at = ["--root", str(root)]
    labels = root.with_name("labelled")
    outcomes = ["--success-file", str(root.with_name("success.csv"))]
    label = [*program, "label", *at, "--vlm", VLM, "--output", str(labels), "--link-videos"]
    yield "check", [*program, "check", *at]
    yield "label, first", label
    yield "label", label
    yield "evaluate", [*program, "evaluate", "--root", str(labels), *outcomes]
    page = root.with_name("report.html")
    yield "report", [*program, "report", "--root", str(labels), "--output", str(page)]
    yield "curate", [*program, "curate", "--root", str(labels), "--force-rules"]
    kept = root.with_name("curated")
    source = labels if videos else strip_videos(labels, root.with_name("no-videos"))
    for name, more in (("curate --output", []), ("curate --trim", ["--trim"])):
        shutil.rmtree(kept, ignore_errors=True)
        output = ["--output", str(kept), "--force-rules"]
        yield name, [*program, "curate", "--root", str(source), *output, *more]
    train = [f"--dataset.root={labels}", "--dataset.repo_id=local/scale", "--policy.type=act"]
    train += ["--policy.push_to_hub=false", "--weighting.scheme=filter", "--force-weights"]
    train += ["--weighting.quantile=0.5"]
    yield "train --dry-run", [*program, "train", *train, f"--output_dir={work}/run", "--dry-run"]
    yield "train --help", [*program, "train", "--help"]
    yield "evaluate --help", [*program, "evaluate", "--help"]


def measure(command: list[str], timeout: float) -> tuple[float, float, float] | None:
    """Run a command; seconds, CPU seconds and peak memory in GB, or None after too long a time."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _MEASURE, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return None
    seconds, cpu, peak, code, said = json.loads(ran.stdout)
    if code not in (0, 3):  # 3: something is broken
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{said}")
    return seconds, cpu, peak


def make_dataset(folder: Path, episodes: int) -> Path:
    """Make a dataset, its outcomes and its scores; all of it is used again when it is there."""
    root = folder / "dataset"
    if not (folder / "made").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        lengths = rng.integers(160, 240, IN_A_VIDEO)  # the same in every video file
        succeeds = rng.random(episodes) < 0.5
        write_dataset(root, folder / "example", np.resize(lengths, episodes), rng)
        lines = [f"{episode},{ok:d}" for episode, ok in enumerate(succeeds)]
        (folder / "success.csv").write_text("\n".join(["episode_index,success", *lines]) + "\n")
        write_scores(root, folder / "labelled", succeeds, rng)
        (folder / "made").touch()
    return root


def write_dataset(root: Path, example: Path, lengths: np.ndarray, rng: np.random.Generator) -> None:
    """Write a dataset of episodes of these lengths, with the columns that LeRobot gives it."""
    record_example(example)
    shutil.copytree(example / "meta", root / "meta")
    starts = np.cumsum(lengths) - lengths
    total, frames = len(lengths), int(lengths.sum())
    rows = pq.read_table(next((example / "data").glob("*/*.parquet")))
    described = pq.read_table(next((example / "meta/episodes").glob("*/*.parquet")))
    for number, first in enumerate(range(0, total, IN_A_DATA_FILE)):
        own = range(first, min(first + IN_A_DATA_FILE, total))
        episode = np.repeat(np.array(own), lengths[own.start : own.stop])
        frame = np.concatenate([np.arange(lengths[i]) for i in own])
        columns: dict[str, object] = {
            "episode_index": episode,
            "frame_index": frame,
            "index": starts[episode] + frame,
            "timestamp": (frame / FPS).astype(np.float32),
            "task_index": episode % len(TASKS),
        }
        for name in ("action", "observation.state"):
            # Smooth, as an arm moves, and never twice the same.
            phase = rng.uniform(0, 6, (total, 6))[episode] + frame[:, None] / 30
            values = 40 * np.sin(phase) + rng.normal(0, 0.1, phase.shape)
            flat = pa.array(values.astype(np.float32).reshape(-1))
            kind = rows.schema.field(name).type
            fixed = pa.types.is_fixed_size_list(kind)
            cells = pa.FixedSizeListArray.from_arrays(flat, 6) if fixed else None
            offsets = np.arange(0, len(flat) + 1, 6, dtype=np.int32)
            columns[name] = cells if fixed else pa.ListArray.from_arrays(offsets, flat)
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns).select(rows.column_names).cast(rows.schema), path)

    video = np.arange(total) // IN_A_VIDEO
    begins = (starts - starts[video * IN_A_VIDEO]) / FPS
    table = described.take(np.arange(total) % len(described))
    changes = {
        "episode_index": np.arange(total),
        "tasks": [[TASKS[i % len(TASKS)]] for i in range(total)],
        "length": lengths,
        "data/chunk_index": np.zeros(total, int),
        "data/file_index": np.arange(total) // IN_A_DATA_FILE,
        "dataset_from_index": starts,
        "dataset_to_index": starts + lengths,
        f"videos/{CAMERA}/chunk_index": video // 1000,
        f"videos/{CAMERA}/file_index": video % 1000,
        f"videos/{CAMERA}/from_timestamp": begins,
        f"videos/{CAMERA}/to_timestamp": begins + lengths / FPS,
    }
    for name, values in changes.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    path = next((root / "meta/episodes").glob("*/*.parquet"))
    pq.write_table(table, path)
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"total_episodes": total, "total_frames": frames, "splits": {"train": f"0:{total}"}}
    (root / "meta/info.json").write_text(json.dumps(info))

    template = info["video_path"]
    first = root / template.format(video_key=CAMERA, chunk_index=0, file_index=0)
    first.parent.mkdir(parents=True)
    encode(first, int(lengths[:IN_A_VIDEO].sum()), rng)
    for number in range(1, int(video.max()) + 1):
        copy = root / template.format(
            video_key=CAMERA, chunk_index=number // 1000, file_index=number % 1000
        )
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(first, copy)


def strip_videos(labels: Path, output: Path) -> Path:
    """Copy a labeled dataset without its camera; it is used again when it is there."""
    if not output.exists():
        dataset = LeRobotDataset("local/scale", root=labels)
        remove_feature(dataset, CAMERA, output_dir=output, repo_id="local/scale")
    return output


def record_example(root: Path) -> None:
    """Have LeRobot record two short episodes, whose columns and metadata show how it writes."""
    features: dict[str, dict] = {
        CAMERA: {"dtype": "video", "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    }
    for name in ("observation.state", "action"):
        features[name] = {
            "dtype": "float32",
            "shape": (6,),
            "names": [f"j{i}.pos" for i in range(6)],
        }
    dataset = LeRobotDataset.create("local/scale", fps=FPS, features=features, root=root)
    for task in TASKS:
        for i in range(8):
            values = np.full(6, i, np.float32)
            pixels = np.full((*SIZE, 3), 20 * i, np.uint8)
            dataset.add_frame(
                {CAMERA: pixels, "observation.state": values, "action": values, "task": task}
            )
        dataset.save_episode()
    dataset.finalize()


def encode(path: Path, frames: int, rng: np.random.Generator) -> None:
    """Encode a video of vague shapes that move."""
    av.logging.set_level(av.logging.ERROR)
    coarse = rng.integers(0, 255, (SIZE[0] // 16, SIZE[1] // 16 + 13, 3), dtype=np.uint8)
    wide = coarse.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=FPS, options={"preset": "ultrafast", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            picture = np.ascontiguousarray(wide[:, i % 200 : i % 200 + SIZE[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def write_scores(root: Path, labels: Path, succeeds: np.ndarray, rng: np.random.Generator) -> None:
    """Write made-up scores of every episode into the store in which `label` looks for them."""
    job = open_job(LabelConfig(root=root, output=labels, vlm=VlmConfig(vlm=VLM)))
    source = job.source
    key = ScoreKey.pin(LabelConfig().scoring, identify_judge(VlmConfig(vlm=VLM)), camera=job.camera)
    store = open_store(labels, key, fps=FPS)
    episodes = range(source.meta.total_episodes)
    shards = list_shards(
        segments(source, episodes, instruction=None),
        ["none"],
        fingerprints=source.fingerprints.episodes,
        videos=video_prints(source, camera=job.camera, episodes=episodes),
    )
    for shard in shards:
        (segment,) = shard.segments
        shown = key.sample(segment.length, fps=FPS)
        lengths = prefix_lengths(segment.length, shown, count=None)
        last = shown[images_shown(lengths, shown) - 1]
        end = -4.0 if succeeds[segment.episode_index] else -11.0
        curve = np.linspace(-18, end, len(lengths)) + rng.normal(0, 0.5, len(lengths))
        scores = np.minimum(curve, -0.01).astype(np.float32)
        false = np.full_like(scores, -1)
        store.write(shard, [PrefixScores(segment, "none", lengths, last, scores, false)])


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
