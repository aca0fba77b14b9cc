"""Record simulated SO-101 pick-and-place episodes, good and bad, as a LeRobot dataset.

Every seed is an episode: its kind (good, missed, slow, wrong_place, detour, undone, retry, idle in
turn), its scene and its cube's colour. What truly happened goes to truth.parquet in the same
folder, for evaluation only. Needs the extra `sim` and EGL or OSMesa.
"""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import av
import av.logging
import pandas as pd
import tyro
from rich.console import Console

from lerobot_topreward.console import make_console
from lerobot_topreward.demo.evaluation import TRUTH_FILE
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation
from lerobot_topreward.simulation.tasks import KINDS, kind_of, parse_seeds
from lerobot_topreward.simulation.training_data import FPS

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lerobot_topreward.simulation.episodes import Episode

CAMERA = "observation.images.front"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """What to simulate and where to record it."""

    output: Path  # folder of the dataset, new or empty
    seeds: Annotated[str, tyro.conf.arg(metavar="A:B")] = "0:16"  # one episode per seed A..B-1
    size: int = 128  # pixels, height and width of the images
    spread: float = 1.0  # share of the table in which cube and goal lie; below 1 is easier to learn
    kinds: tuple[str, ...] = KINDS  # seeds of other kinds are passed over
    crf: int = 20  # quality of the H.264 video, lower is better and larger
    repo_id: str = "local/so101-topreward-demo"  # the dataset's name

    def __post_init__(self) -> None:
        """Check what can be known to be wrong at once."""
        parse_seeds(self.seeds)
        if self.size < 32 or self.size % 2:
            raise UserError(f"--size must be even and at least 32 pixels; got {self.size}")
        if not 0 < self.spread <= 1:
            raise UserError(f"--spread must be > 0 and <= 1; got {self.spread}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"--kinds: there is no '{kind}'; there are: {', '.join(KINDS)}")
        if not self.chosen:
            raise UserError(f"--seeds {self.seeds} has none of --kinds {' '.join(self.kinds)}")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf must be in 0..51; got {self.crf}")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise UserError(f"--output {self.output} is not an empty folder; name a new one")

    @property
    def chosen(self) -> list[int]:
        """The seeds whose episodes are recorded."""
        return [seed for seed in parse_seeds(self.seeds) if kind_of(seed) in self.kinds]


def record(config: SimulateConfig, console: Console) -> None:
    """Simulate, render and record; write the truth last.

    Raises:
        UserError: this machine cannot simulate or render.
    """
    require_simulation()
    from lerobot_topreward.simulation.episodes import make_environment, simulate_episode
    from lerobot_topreward.simulation.rendering import SceneRenderer

    av.logging.set_libav_level(av.logging.ERROR)  # or the encoder reports a page per episode
    env = make_environment(spread=config.spread)
    if config.output.exists():
        config.output.rmdir()  # LeRobot insists on making the folder
    dataset = _create(config)
    seeds = config.chosen
    tables = []
    with SceneRenderer(env, size=config.size) as renderer:
        for number, seed in enumerate(seeds):
            episode = simulate_episode(env, seed)
            images = renderer.frames(episode, range(len(episode.qpos)))
            for image, row in zip(images, _rows(episode), strict=True):
                dataset.add_frame({CAMERA: image, **row})
            dataset.save_episode()
            tables.append(_truth(number, episode))
            console.print(
                f"{number + 1}/{len(seeds)}  {episode.kind}: {len(images)} frames, "
                f"{'success' if episode.success else 'failure'}"
            )
    dataset.finalize()
    shutil.rmtree(config.output / "images", ignore_errors=True)  # LeRobot leaves it empty
    pd.concat(tables).to_parquet(config.output / TRUTH_FILE, index=False)


def _create(config: SimulateConfig) -> "LeRobotDataset":
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features: dict[str, dict[str, Any]] = {
        CAMERA: {
            "dtype": "video",
            "shape": (config.size, config.size, 3),
            "names": ["height", "width", "channels"],
        }
    }
    for name, size in (("state", 14), ("environment_state", 6)):
        features[f"observation.{name}"] = {"dtype": "float32", "shape": (size,), "names": None}
    features["action"] = {"dtype": "float32", "shape": (4,), "names": ["dx", "dy", "dz", "grasp"]}
    return LeRobotDataset.create(
        config.repo_id,
        fps=int(FPS),
        features=features,
        root=config.output,
        robot_type="so101",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=config.crf, g=10),
    )


def _rows(episode: "Episode") -> Iterable[dict[str, Any]]:
    for i in range(len(episode.qpos)):
        yield {
            "observation.state": episode.agent_pos[i],
            "observation.environment_state": episode.environment_state[i],
            "action": episode.action[i],
            "task": episode.instruction,
        }


def _truth(number: int, episode: "Episode") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "episode_index": number,
            "frame_index": range(len(episode.progress)),
            "progress": episode.progress,
            "success": episode.success,
            "kind": episode.kind,
        }
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    console = make_console()
    try:
        config = tyro.cli(
            SimulateConfig,
            args=arguments,
            prog="python -m lerobot_topreward.simulation.simulate",
            description=__doc__,
        )
        record(config, console)
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}")
        return 2
    console.print(f"recorded {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
