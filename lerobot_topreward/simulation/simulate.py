"""Record simulated SO-101 pick-and-place episodes, good and bad, as a LeRobot dataset.

Every seed is an episode: its kind (good, missed, slow, wrong_place, detour, undone, retry, idle in
turn), its scene and its cube's color. What truly happened goes to truth.parquet in the same
folder, for evaluation only. Needs the extra `sim` and EGL or OSMesa.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import av.logging
import tyro
from rich.console import Console

from lerobot_topreward.console import make_console
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation
from lerobot_topreward.simulation.tasks import KINDS, kind_of, parse_seeds
from lerobot_topreward.simulation.training_data import FPS
from lerobot_topreward.simulation.truth import Truth, write_truth

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
            raise UserError(f"`size` must be even and at least 32 pixels; got {self.size}")
        if not 0 < self.spread <= 1:
            raise UserError(f"`spread` must be > 0 and <= 1; got {self.spread}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"`kinds`: there is no '{kind}'; there are: {', '.join(KINDS)}")
        if not self.chosen:
            raise UserError(f"`seeds={self.seeds}` has none of `kinds={' '.join(self.kinds)}`")
        if not 0 <= self.crf <= 51:
            raise UserError(f"`crf` must be in 0..51; got {self.crf}")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise UserError(f"`output={self.output}` is not an empty folder; name a new one")

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
    # Only after that check: these import MuJoCo, and LeRobot takes seconds.
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lerobot_topreward.simulation.environment import PickPlaceEnv
    from lerobot_topreward.simulation.episodes import simulate_episode
    from lerobot_topreward.simulation.rendering import SceneRenderer

    av.logging.set_libav_level(av.logging.ERROR)  # or the encoder reports a page per episode
    env = PickPlaceEnv(spread=config.spread)
    if config.output.exists():
        config.output.rmdir()  # LeRobot insists on making the folder
    image = {"dtype": "video", "shape": (config.size, config.size, 3)}
    features: dict[str, dict[str, Any]] = {
        CAMERA: {**image, "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (14,), "names": None},
        "observation.environment_state": {"dtype": "float32", "shape": (6,), "names": None},
        "action": {"dtype": "float32", "shape": (4,), "names": ["dx", "dy", "dz", "grasp"]},
    }
    dataset = LeRobotDataset.create(
        config.repo_id,
        fps=int(FPS),
        features=features,
        root=config.output,
        robot_type="so101",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=config.crf, g=10),
    )
    seeds, truths = config.chosen, []
    with closing(SceneRenderer(env, size=config.size)) as renderer:
        for number, seed in enumerate(seeds):
            episode = simulate_episode(env, seed)
            frames = len(episode.qpos)
            for i, picture in enumerate(renderer.frames(episode, range(frames))):
                dataset.add_frame(
                    {
                        CAMERA: picture,
                        "observation.state": episode.agent_pos[i],
                        "observation.environment_state": episode.environment_state[i],
                        "action": episode.action[i],
                        "task": episode.instruction,
                    }
                )
            dataset.save_episode()
            truths.append(Truth(episode.kind, episode.success, episode.progress))
            outcome = "success" if episode.success else "failure"
            console.print(f"{number + 1}/{len(seeds)}  {episode.kind}: {frames} frames, {outcome}")
    dataset.finalize()
    shutil.rmtree(config.output / "images", ignore_errors=True)  # LeRobot leaves it empty
    write_truth(config.output, truths)


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
