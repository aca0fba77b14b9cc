"""What weighting adds to a training step: LeRobot's own step against ours, in one run.

    python benchmarks/train_step.py                  # ACT and Diffusion, on a CPU
    python benchmarks/train_step.py --no-cameras     # small ones of the state alone
    python benchmarks/train_step.py --device cuda    # at their default sizes, 640x480

The same network is trained on the same batches in turn: as LeRobot's policy class by stock
`lerobot_train.update_policy`, and as ours by what the seam puts in its place, with the weighter on
a labeled dataset. Loading a batch costs both the same and is left out, so the share that is printed
is the upper bound of what a user sees.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from accelerate import Accelerator
from lerobot.configs.default import DatasetConfig
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import LeRobotDataset
from lerobot.optim.factory import make_optimizer_and_scheduler
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts import lerobot_train
from lerobot.utils import sample_weighting
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.utils.sample_weighting import SampleWeightingConfig

from lerobot_topreward.train.lerobot_patch import SCHEME_TYPE, patch_trainer
from lerobot_topreward.train.sample_weighter import make_weighter

CAMERAS = ("front", "wrist")
EPISODES, LENGTH, FPS = 3, 150, 30
GOAL = 1.03


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time weighted training steps against stock ones."""

    policies: tuple[Literal["act", "diffusion"], ...] = ("act", "diffusion")
    device: str = "cpu"  # cpu or cuda
    steps: int = 20  # timed, of each
    warm_up: int = 3  # before that, of each
    batch_size: int = 8
    cameras: bool = True  # two of them; without, the policies are small
    size: tuple[int, int] | None = None  # height and width; 96 128 on a CPU, else 480 640


def main(config: BenchmarkConfig) -> None:
    """Time every policy and print a table."""
    device = torch.cuda.get_device_name() if config.device.startswith("cuda") else config.device
    print(f"{device}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, "
          f"batches of {config.batch_size}, {config.steps} steps")  # fmt: skip
    with TemporaryDirectory() as folder:
        root = Path(folder, "dataset")
        size = config.size or ((96, 128) if device == "cpu" else (480, 640))
        sidecar = record(root, size, CAMERAS if config.cameras else ())
        for kind in config.policies:
            run_policy(config, kind, root, sidecar)


def run_policy(config: BenchmarkConfig, kind: str, root: Path, sidecar: Path) -> None:
    """Time one policy and print its rows."""
    stock_step = lerobot_train.update_policy
    policy = policy_config(config, kind)
    train = train_config(config, policy, root, sidecar)
    with patch_trainer(make_weighter):
        dataset, _ = lerobot_train.make_train_eval_datasets(train)
        assert isinstance(dataset, LeRobotDataset)
        ours = lerobot_train.make_policy(policy, ds_meta=dataset.meta)
        stock = get_policy_class(kind)(policy)
        for name, module in ours.named_children():  # one network, so one place in memory
            setattr(stock, name, module)
        accelerator = Accelerator(cpu=config.device == "cpu", step_scheduler_with_optimizer=False)
        batches = load_batches(train, dataset)
        weighter = sample_weighting.make_sample_weighter(
            train.sample_weighting, ours, accelerator.device
        )
        training = Training(train, ours, accelerator)
        steps = (
            training.stepper(stock_step, stock, None),
            training.stepper(lerobot_train.update_policy, ours, weighter),
        )
        seconds = np.array([
            time_pair(steps, batches[i % len(batches)], ours_first=i % 2 == 1)
            for i in range(config.warm_up + config.steps)
        ])[config.warm_up :]  # fmt: skip
    parameters = sum(p.numel() for p in ours.parameters()) / 1e6
    medians = np.median(seconds, axis=0)
    ratio = medians[1] / medians[0]
    low, high = interval(seconds)
    print(f"{kind:<10} {parameters:6.1f} M parameters | stock {medians[0] * 1e3:8.1f} ms a step | "
          f"weighted {medians[1] * 1e3:8.1f} ms | ratio {ratio:.3f} ({low:.3f} to {high:.3f}), "
          f"goal <= {GOAL}", flush=True)  # fmt: skip


def time_pair(
    steps: tuple[Callable, Callable], batch: dict[str, Any], *, ours_first: bool
) -> tuple[float, float]:
    """Seconds of the stock step and of ours on one batch, in either order."""
    found = [0.0, 0.0]
    for which in (1, 0) if ours_first else (0, 1):
        synchronize()
        began = time.perf_counter()
        steps[which](dict(batch))
        synchronize()
        found[which] = time.perf_counter() - began
    return found[0], found[1]


def interval(seconds: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, over pairs (steps, 2)."""
    drawn = np.random.default_rng(0).integers(0, len(seconds), (2000, len(seconds)))
    medians = np.median(seconds[drawn], axis=1)
    low, high = np.quantile(medians[:, 1] / medians[:, 0], (0.025, 0.975))
    return float(low), float(high)


class Training:
    """What LeRobot's `train()` makes once and hands to every step."""

    def __init__(
        self, train: TrainPipelineConfig, policy: PreTrainedPolicy, accelerator: Accelerator
    ) -> None:
        """Make it for a policy's parameters."""
        optimizer, scheduler = make_optimizer_and_scheduler(train, policy)
        self.accelerator = accelerator
        self.optimizer, self.scheduler = accelerator.prepare(optimizer, scheduler)
        self.clip = train.optimizer.grad_clip_norm if train.optimizer else 0.0
        self.batch_size = train.batch_size

    def stepper(
        self, update: Callable[..., Any], policy: PreTrainedPolicy, weighter: Any
    ) -> Callable[[dict[str, Any]], None]:
        """One training step of one of the two."""
        prepared = self.accelerator.prepare(policy)
        names = ("loss", "grad_norm", "lr", "update_s", "gpu_mem_gb")
        meters = {name: AverageMeter(name) for name in names}
        metrics = MetricsTracker(self.batch_size, EPISODES * LENGTH, EPISODES, meters)

        def step(batch: dict[str, Any]) -> None:
            update(metrics, prepared, batch, self.optimizer, self.clip,
                   accelerator=self.accelerator, lr_scheduler=self.scheduler,
                   sample_weighter=weighter)  # fmt: skip
            metrics.step()

        return step


def policy_config(config: BenchmarkConfig, kind: str) -> PreTrainedConfig:
    """LeRobot's defaults; on a CPU a smaller U-Net, whose default has 270 M parameters."""
    options: dict[str, Any] = {
        "device": config.device, "push_to_hub": False, "pretrained_backbone_weights": None,
    }  # fmt: skip
    if kind == "act":
        if not config.cameras:
            options |= {"dim_model": 128, "dim_feedforward": 256}
        return ACTConfig(**options)
    if not config.cameras:
        options["down_dims"] = (32, 64)
    elif config.device == "cpu":
        options["down_dims"] = (128, 256, 512)
    return DiffusionConfig(**options)


def train_config(
    config: BenchmarkConfig, policy: PreTrainedConfig, root: Path, sidecar: Path
) -> TrainPipelineConfig:
    """What `lerobot-train` makes of its options."""
    train = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id="local/recorded", root=str(root)),
        policy=policy,
        output_dir=root.with_name(policy.type),
        batch_size=config.batch_size,
        num_workers=0,
        sample_weighting=SampleWeightingConfig(
            type=SCHEME_TYPE, extra_params={"scheme": "awr", "sidecar": str(sidecar)}
        ),
    )
    train.validate()
    return train


def load_batches(train: TrainPipelineConfig, dataset: LeRobotDataset) -> list[dict[str, Any]]:
    """A few batches, preprocessed and on the device."""
    assert train.policy is not None
    stats: Any = dataset.meta.stats
    preprocess, _ = lerobot_train.make_pre_post_processors(train.policy, dataset_stats=stats)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=train.batch_size, shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    found = []
    for _, batch in zip(range(4), loader, strict=False):
        for camera in dataset.meta.camera_keys:
            batch[camera] = batch[camera].float() / 255
        found.append(preprocess(batch))
    return found


def record(root: Path, size: tuple[int, int], cameras: tuple[str, ...]) -> Path:
    """Record a dataset, and beside it progress in the form of LeRobot's own sidecars."""
    vectors = ("observation.state", "observation.environment_state", "action")
    features: dict[str, dict] = {
        f"observation.images.{camera}": {
            "dtype": "image",
            "shape": (*size, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in cameras
    }
    for name in vectors:
        features[name] = {"dtype": "float32", "shape": (6,), "names": None}
    dataset = LeRobotDataset.create(
        "local/recorded", fps=FPS, features=features, root=root, use_videos=False
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for _ in range(EPISODES):
        for _ in range(LENGTH):
            images = {f"observation.images.{camera}": image for camera in cameras}
            values = {name: rng.normal(size=6).astype(np.float32) for name in vectors}
            dataset.add_frame({**images, **values, "task": "pick it up"})
        dataset.save_episode()
    dataset.finalize()
    frames = np.tile(np.arange(LENGTH), EPISODES)
    columns = {
        "index": np.arange(EPISODES * LENGTH),
        "episode_index": np.repeat(np.arange(EPISODES), LENGTH),
        "frame_index": frames,
        "progress_sparse": (frames / LENGTH + 0.1 * rng.normal(size=len(frames))).astype("f4"),
    }
    sidecar = root.with_name("progress.parquet")
    pq.write_table(pa.table(columns), sidecar)
    return sidecar


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
