"""What `lerobot-topreward check` finds in a recording, and what it does not.

Puts fourteen defects of real recordings, weak and strong, into every third episode of clean ones:
simulated SO-101 episodes in joint space (degrees, six joints, encoder steps and sensor noise, 10 and
30 fps), recorded here with LeRobot, and the 40 bundled ones. Prints how many are found, and how often
a clean episode is called broken. Then seconds and memory on 100, 1,000 and 10,000 episodes.

    python benchmarks/recording.py --work recording
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from recorded_defects import (
    NUMBERS,
    PICTURES,
    change_numbers,
    change_pictures,
    change_task,
    copy_episodes,
    read_matrix,
)

from lerobot_topreward.check.command import CheckResult, check_dataset
from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.console import make_console
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.demo.command import DATASET as BUNDLED
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation
from lerobot_topreward.simulation.tasks import SUCCEEDING, kind_of
from lerobot_topreward.simulation.truth import read_truth

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# A small process in between: what it starts would begin with the memory of this one.
_MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
command = [sys.executable, "-m", "lerobot_topreward", "check", "--json", "--root", sys.argv[1]]
assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode in (0, 3)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
print(time.perf_counter() - began, peak)
"""
_FIRST_SEED = 700_000  # no VLM was taught or judged on these
_STEP_DEG = 360 / 4096  # of an SO-101's encoders


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is checked."""

    work: Path = Path("recording")  # keeps what was recorded
    episodes: int = 60  # in joint space, of each frame rate
    sizes: tuple[int, ...] = (100, 1000, 10_000)  # episodes that are timed
    video: bool = True  # the defects of pictures, too


def record_joints(folder: Path, *, episodes: int, fps: int) -> None:
    """Record simulated episodes as an SO-101 with a leader arm would."""
    dataset = LeRobotDataset.create(
        "local/joints",
        fps=fps,
        features={
            name: {
                "dtype": "float32",
                "shape": (len(JOINTS),),
                "names": [f"{joint}.pos" for joint in JOINTS],
            }
            for name in ("action", "observation.state")
        },
        root=folder,
        robot_type="so101_follower",
    )
    rng = np.random.default_rng(fps)
    lead = round(0.1 * fps)
    for qpos, color in _simulate(episodes):
        degrees = np.rad2deg(qpos)
        times = np.arange(0, (len(degrees) - 1) / 10 + 1e-9, 1 / fps)
        degrees = np.stack(
            [np.interp(times, np.arange(len(degrees)) / 10, joint) for joint in degrees.T], axis=1
        )
        command = np.concatenate([degrees[lead:], np.repeat(degrees[-1:], lead, axis=0)])
        for reading, target in zip(_encode(degrees, rng), _encode(command, rng), strict=True):
            dataset.add_frame(
                {
                    "action": target,
                    "observation.state": reading,
                    "task": f"put the {color} cube away",
                }
            )
        dataset.save_episode()
    dataset.finalize()


def _encode(degrees: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noisy = degrees + rng.normal(0, 0.06, degrees.shape)
    return (np.round(noisy / _STEP_DEG) * _STEP_DEG).astype(np.float32)


def bundled_kinds() -> list[str]:
    """Name the kind of every bundled episode."""
    truth = read_truth(BUNDLED)
    return [truth[episode].kind for episode in sorted(truth)]


def joint_kinds(episodes: int) -> list[str]:
    """Name the kind of every simulated episode."""
    return [kind_of(_FIRST_SEED + number) for number in range(episodes)]


@cache
def _simulate(episodes: int) -> list[tuple[np.ndarray, str]]:
    require_simulation()
    from lerobot_topreward.simulation.environment import PickPlaceEnv
    from lerobot_topreward.simulation.episodes import simulate_episode

    env = PickPlaceEnv()
    found = [simulate_episode(env, _FIRST_SEED + number) for number in range(episodes)]
    return [(episode.qpos[:, :6], episode.color) for episode in found]


def count_found(result: CheckResult, defect: str, changed: Sequence[int]) -> str:
    """Count the changed episodes in which the defect is found, and the others called broken."""
    findings = result.inspection.findings
    found = {f.episode_index for f in findings if f.defect == defect} & {*changed}
    wrong = {f.episode_index for f in findings if f.level == "broken"} - {*changed, None}
    return f"{len(found)}/{len(changed)}" + (f", {len(wrong)} others broken" if wrong else "")


def time_checks(source: Path, work: Path, sizes: Sequence[int]) -> None:
    """Repeat a dataset's episodes and measure a process of its own on each size."""
    (path,) = (source / "data").rglob("*.parquet")
    table, episodes = pq.read_table(path), pq.read_table(source / "meta/episodes")
    print("\n| episodes | frames | seconds | peak memory |\n|---|---|---|---|")
    for size in sizes:
        folder = work / f"size-{size}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source / "meta", folder / "meta")
        copies = -(-size // len(episodes))
        frames, rng = 0, np.random.default_rng(0)
        columns = ("episode_index", "length", "data/chunk_index", "data/file_index")
        rows = {name: [] for name in columns}
        for copy in range(copies):
            # Files of LeRobot's size hold some hundred episodes; no two episodes are equal.
            shift = pa.array(table["episode_index"].to_numpy() + copy * len(episodes))
            part = table.set_column(
                table.column_names.index("episode_index"), "episode_index", shift
            )
            for name in ("action", "observation.state"):
                values = read_matrix(part, name)
                values = values + rng.normal(0, 0.01, values.shape).astype(np.float32)
                cells = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                part = part.set_column(part.column_names.index(name), part.field(name), cells)
            target = folder / f"data/chunk-000/file-{copy:03d}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, target)
            rows["episode_index"] += [copy * len(episodes) + i for i in range(len(episodes))]
            rows["length"] += episodes["length"].to_pylist()
            rows["data/chunk_index"] += [0] * len(episodes)
            rows["data/file_index"] += [copy] * len(episodes)
            frames += len(table)
        for old in (folder / "meta/episodes").rglob("*.parquet"):
            old.unlink()
        pq.write_table(pa.table(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
        measured = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds, peak = map(float, measured.stdout.split())
        print(
            f"| {copies * len(episodes)} | {frames} | {seconds:.1f} | {peak:.2f} GB |", flush=True
        )
        shutil.rmtree(folder)


def main() -> int:
    """Record, put defects in, check, print."""
    config = tyro.cli(BenchmarkConfig, description=__doc__)
    config.work.mkdir(parents=True, exist_ok=True)
    try:
        sources = {"bundled, 10 fps": BUNDLED}
        for fps in (10, 30):
            folder = config.work / f"joints-{config.episodes}-{fps}"
            if not (folder / "done").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                record_joints(folder, episodes=config.episodes, fps=fps)
                (folder / "done").touch()
            sources[f"joints, {fps} fps"] = folder
        run(config, sources)
        time_checks(sources["joints, 10 fps"], config.work, config.sizes)
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}", style="red")
        return 2
    return 0


def run(config: BenchmarkConfig, sources: dict[str, Path]) -> None:
    """Print what is found in clean episodes, then the table of defects."""
    print("| clean episodes | called broken | suspect |\n|---|---|---|")
    for name, source in sources.items():
        findings = check_dataset(CheckConfig(root=source)).inspection.findings
        total = open_source(repo_id=None, root=source, revision=None).meta.total_episodes
        named = [
            len({f.episode_index for f in findings if f.level == level} - {None})
            for level in ("broken", "suspect")
        ]
        print(f"| {name}: {total} | {named[0]} | {named[1]} |")
    print(
        "\n| longest idle run | of good episodes, at most | of idle ones, at least |\n|---|---|---|"
    )
    for name, source in sources.items():
        motions = check_dataset(CheckConfig(root=source)).inspection.motions.values()
        kinds = bundled_kinds() if source == BUNDLED else joint_kinds(config.episodes)
        good, idle = (
            [m.longest_idle for m in motions if kinds[m.episode_index] in of]
            for of in (SUCCEEDING, ("idle",))
        )
        print(f"| {name} | {max(good):.2f} | {min(idle):.2f} |")
    print(f"\n| defect | {' | '.join(sources)} |\n|---{'|---' * len(sources)}|")
    scratch = config.work / "scratch"

    def check(changed: Sequence[int], defect: str, *, video: bool = False) -> str:
        result = check_dataset(CheckConfig(root=scratch, video=video))
        return count_found(result, defect, changed)

    for name, (defect, strengths, unit, called) in NUMBERS.items():
        for strength in strengths:
            cells = []
            for source in sources.values():
                width = "joints" in source.name
                if called in ("dead joint", "out of step") and not width:
                    cells.append("not possible")  # its commands are no targets of its readings
                    continue
                cells.append(check(change_numbers(source, scratch, defect, strength), called))
            print(f"| {name}, {strength:g} {unit} | {' | '.join(cells)} |", flush=True)
    cells = [check(change_task(s, scratch), "placeholder task") for s in sources.values()]
    print(f"| task called test | {' | '.join(cells)} |")
    cells = [check(copy_episodes(s, scratch), "copy") for s in sources.values()]
    print(f"| copy of another episode | {' | '.join(cells)} |", flush=True)
    if config.video:
        for name, (change, strengths, unit, called) in PICTURES.items():
            for strength in strengths:
                cell = check(change_pictures(scratch, change, strength), called, video=True)
                print(f"| {name}, {strength:g} {unit} | {cell} | | |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
