"""Stop training on a loss or weight that is not finite, without losing what was trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from jaxtyping import Bool, Float
from lerobot.common.train_utils import (
    gather_fsdp_state_dicts,
    get_step_checkpoint_dir,
    save_checkpoint,
    update_last_checkpoint,
)
from lerobot.configs.train import TrainPipelineConfig
from torch import Tensor

from lerobot_topreward.errors import TrainingError

if TYPE_CHECKING:
    from lerobot.processor import PolicyProcessorPipeline

_FRAMES_NAMED = 20  # in the message


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a checkpoint is made of, before the step that failed."""

    steps: int  # done so far
    config: TrainPipelineConfig
    policy: torch.nn.Module  # as prepared by accelerate
    optimizer: torch.optim.Optimizer
    scheduler: Any  # torch's learning rate scheduler, or None
    processors: "tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]"  # before and after
    accelerator: Accelerator


def stop_unless_finite(
    losses: Float[Tensor, " batch"],
    weights: Float[Tensor, " batch"],
    batch: dict[str, Tensor],
    *,
    state: TrainingState,
) -> None:
    """Save the state as a checkpoint and stop, if a loss or a weight is NaN or infinite.

    Called before the backward pass, so that neither the parameters nor the optimizer have seen the
    value. With several processes all of them agree, stop together, and the main one saves.

    Args:
        losses: per sample, unweighted.
        weights: per sample.
        batch: its `index` (batch,) holds the frames' global indices.
        state: what to save.

    Raises:
        TrainingError: with the step, the frames and the checkpoint.
    """
    bad = ~(torch.isfinite(losses.detach()) & torch.isfinite(weights))
    if not _in_any_process(bad.any(), state.accelerator):
        return
    what = "loss" if torch.isfinite(weights).all() else "weight"
    found = [(what, batch["index"].reshape(-1)[bad].tolist())]
    if state.accelerator.num_processes > 1:
        found = gather_object(found)
    names = " and ".join(sorted({name for name, frames in found if frames}))
    frames = [index for _, frames in found for index in frames]
    saved = _save(state)
    state.accelerator.wait_for_everyone()
    shown = ", ".join(map(str, frames[:_FRAMES_NAMED]))
    more = f" and {len(frames) - _FRAMES_NAMED} more" if len(frames) > _FRAMES_NAMED else ""
    raise TrainingError(
        f"step {state.steps + 1}: the {names} of these frames is NaN or infinite (global index): "
        f"{shown}{more}. {saved} Look for NaN in their actions, observations and labels; if there "
        "is none, lower the learning rate."
    )


def _in_any_process(flag: Bool[Tensor, ""], accelerator: Accelerator) -> bool:
    if accelerator.num_processes > 1:
        flag = accelerator.reduce(flag.float(), reduction="sum")  # pyright: ignore[reportAssignmentType]
    return bool(flag > 0)


def _save(state: TrainingState) -> str:
    """Save a checkpoint as LeRobot's `train()` does, and say so."""
    config, accelerator = state.config, state.accelerator
    if not config.save_checkpoint:
        return "Nothing was saved, as --save_checkpoint=false asks."
    broken = torch.stack([~torch.isfinite(p).all() for p in state.policy.parameters()]).any()
    if _in_any_process(broken, accelerator):
        return (
            f"Nothing was saved: the parameters are not finite since step {state.steps}, "
            "so go on from the checkpoint before."
        )
    model_state, optimizer_state = None, None
    if accelerator.distributed_type == DistributedType.FSDP:
        model_state, optimizer_state = gather_fsdp_state_dicts(state.policy, state.optimizer)
    assert config.output_dir is not None
    folder = get_step_checkpoint_dir(Path(config.output_dir), config.steps, state.steps)
    if accelerator.is_main_process:
        preprocessor, postprocessor = state.processors
        save_checkpoint(
            checkpoint_dir=folder,
            step=state.steps,
            cfg=config,
            policy=accelerator.unwrap_model(state.policy),
            optimizer=state.optimizer,
            scheduler=state.scheduler,
            preprocessor=preprocessor,
            postprocessor=postprocessor,
            num_processes=accelerator.num_processes,
            batch_size=config.batch_size,
            model_state_dict=model_state,
            optim_state_dict=optimizer_state,
        )
        update_last_checkpoint(folder)
    return f"The state after step {state.steps} is saved in {folder}."
