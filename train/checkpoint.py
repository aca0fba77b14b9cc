"""A checkpoint where LeRobot's trainer saves none: of a run that stops between two of them."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from jaxtyping import Bool
from lerobot.common import train_utils
from lerobot.utils.constants import TRAINING_STATE_DIR
from torch import Tensor

from lerobot_topreward.lerobot_features import saves_together


def save_stopped(
    config: Any,  # TrainPipelineConfig, of whichever LeRobot
    *,
    steps: int,
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    processors: Any,  # before and after the policy
    accelerator: Accelerator,
) -> str:
    """Save the state after so many steps as LeRobot's `train()` does, and say so.

    Every process of the run must call it. Parameters that are not finite are not saved.
    """
    if not config.save_checkpoint:
        return "Nothing was saved, as --save_checkpoint=false asks."
    broken = [~torch.isfinite(_local(p)).all() for p in policy.parameters()]
    if in_any_process(torch.stack(broken).any(), accelerator):
        return (
            f"Nothing was saved: the parameters are not finite since step {steps}, "
            "so go on from the checkpoint before."
        )
    folder = train_utils.get_step_checkpoint_dir(Path(config.output_dir), config.steps, steps)
    save: Any = train_utils.save_checkpoint
    options = {
        "checkpoint_dir": folder,
        "step": steps,
        "cfg": config,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "preprocessor": processors[0],
        "postprocessor": processors[1],
    }
    if saves_together():
        save(**options, policy=policy, accelerator=accelerator)
    else:
        model_state, optimizer_state = None, None
        if accelerator.distributed_type == DistributedType.FSDP:
            gather: Any = getattr(train_utils, "gather_fsdp_state_dicts")  # noqa: B009
            model_state, optimizer_state = gather(policy, optimizer)
        if accelerator.is_main_process:
            save(
                **options,
                policy=accelerator.unwrap_model(policy),
                num_processes=accelerator.num_processes,
                batch_size=config.batch_size,
                model_state_dict=model_state,
                optim_state_dict=optimizer_state,
            )
    if accelerator.is_main_process:
        train_utils.update_last_checkpoint(folder)
    accelerator.wait_for_everyone()
    saved = f"The state after step {steps} is saved in {folder}."
    averaged = getattr(config, "ema", None)
    # LeRobot keeps it in a variable of train(), which may have saved it after the same step.
    saved_before = (folder / TRAINING_STATE_DIR / "ema_state.pt").is_file()
    if averaged is not None and averaged.enable and not saved_before:
        saved += " Its moving average (--ema) is not: resuming starts it again from this state."
    return saved


def in_any_process(flag: Bool[Tensor, ""], accelerator: Accelerator) -> bool:
    """Whether a flag is set in any process, so that all of them agree and stop together."""
    if accelerator.num_processes > 1:
        flag = accelerator.reduce(flag.float(), reduction="sum")  # pyright: ignore[reportAssignmentType]
    return bool(flag > 0)


def _local(parameter: Any) -> Tensor:
    """The part of a parameter that this process holds, where processes share them (FSDP2)."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter
