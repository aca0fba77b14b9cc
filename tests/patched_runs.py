"""Short runs of LeRobot's trainer, and a weighter whose weights are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from lerobot.scripts import lerobot_train
from safetensors.torch import load_file
from torch import Tensor

from lerobot_topreward.train.lerobot_patch import BatchWeighter
from lerobot_topreward.train.trainer_config import trainer_arguments

FRAMES = 31  # of the fixture `robot_dataset`
POLICIES = {
    "act": "type=act dim_model=16 n_heads=2 dim_feedforward=16 n_encoder_layers=1 "
    "n_vae_encoder_layers=1 chunk_size=4 n_action_steps=4 optimizer_lr=1e-3",
    "diffusion": "type=diffusion horizon=8 n_action_steps=4 down_dims=[8,16] n_groups=4 "
    "diffusion_step_embed_dim=8 optimizer_lr=1e-3 scheduler_warmup_steps=0",
}
# Plain gradient descent: Adam hides the scale of a loss, and makes steps of rounding errors.
DESCENT = (
    "--use_policy_training_preset=false", "--optimizer.type=sgd", "--optimizer.lr=0.01",
    "--optimizer.momentum=0", "--optimizer.grad_clip_norm=0", "--scheduler.type=diffuser",
    "--scheduler.name=constant", "--scheduler.num_warmup_steps=0",
)  # fmt: skip
WEIGHTED = ("--sample_weighting.type=topreward", "--sample_weighting.extra_params={beta: 0.5}")


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs on a dataset, each saved in a folder by its name."""

    root: Path
    folder: Path
    policies: list[Any] = field(default_factory=list)  # made by the runs, the newest last

    def options(self, name: str, *more: str, policy: str | None) -> list[str]:
        tiny = [] if policy is None else POLICIES[policy].split()
        return [
            "--dataset.repo_id=local/robot", f"--dataset.root={self.root}",
            f"--output_dir={self.folder / name}", *(f"--policy.{option}" for option in tiny),
            "--policy.device=cpu", "--policy.push_to_hub=false", "--batch_size=4",
            "--num_workers=0", "--wandb.enable=false", "--log_freq=1", "--seed=3", *more,
        ]  # fmt: skip

    def train(self, name: str, *more: str, policy: str | None) -> None:
        self._call_train(self.options(name, *more, policy=policy))

    def resume(self, name: str, *more: str) -> None:
        self._call_train([f"--config_path={self.saved(name)}", "--resume=true", *more])

    def _call_train(self, arguments: list[str]) -> None:
        """Call LeRobot's `train()` as `lerobot-train` does."""
        AcceleratorState._reset_state(reset_partial_state=True)  # else of the run before
        make_policy: Any = lerobot_train.make_policy

        def make_and_remember(**options: Any) -> Any:
            self.policies.append(make_policy(**options))
            return self.policies[-1]

        with (
            trainer_arguments(arguments),
            patch.object(lerobot_train, "make_policy", make_and_remember),
        ):
            lerobot_train.train()  # pyright: ignore[reportCallIssue]

    def saved(self, name: str, step: str = "last") -> Path:
        return self.folder / name / "checkpoints" / step / "pretrained_model"

    def parameters(self, name: str, step: str = "last") -> dict[str, Tensor]:
        return load_file(self.saved(name, step) / "model.safetensors")


class TableWeighter(BatchWeighter):
    """Weights by global index, as ours; `on_step` may tamper with a step's batch and weights."""

    def __init__(self, table: Tensor, *, per_batch: bool = False) -> None:
        self.table = table
        self.per_batch = per_batch
        self.params: Mapping[str, Any] = {}
        self.policy: Any = None
        self.dataset: Any = None
        self.step = 0
        self.on_step: Callable[[int, dict[str, Tensor], Tensor], object] = lambda *_: None

    def __call__(self, params: Mapping[str, Any], *, policy: Any, dataset: Any) -> Any:
        self.params, self.policy, self.dataset, self.step = params, policy, dataset, 0
        return self

    def move_to(self, device: torch.device) -> None:
        self.table = self.table.to(device)

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        self.step += 1
        weights = self.table[batch["index"]]
        self.on_step(self.step, batch, weights)
        return weights, {"mean": float(weights.mean())}

    def get_stats(self) -> dict[str, Any]:
        return {"type": "table"}


def table() -> Tensor:
    values = torch.rand(FRAMES, generator=torch.Generator().manual_seed(1)) * 2
    values[::5] = 0.0
    return values
