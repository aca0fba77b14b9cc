"""Images as the policy's input: what the demo VLM's vision tower makes of each, kept frozen.

It takes the place of where the simulator says that cube and disc lie. Training a vision tower of
its own would take a policy hours on two cores.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from lerobot.datasets.dataset_tools import modify_features, recompute_stats, remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import OBS_ENV_STATE
from torch import Tensor

from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig
from lerobot_topreward.vlm.images import block_pixels
from lerobot_topreward.vlm.loading import load_vlm

_AT_ONCE = 64  # images


class ImageEncoder:
    """The demo VLM's vision tower."""

    def __init__(self) -> None:
        """Load it."""
        self._vlm = load_vlm(VlmConfig(vlm=BUILTIN, device="cpu", dtype="float32"))

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "n 3 height width"]) -> Float32[Tensor, "n features"]:
        """Encode every image by itself, as a video of its own that shows it twice."""
        processor = self._vlm.processor.video_processor
        cell = int(processor.patch_size)
        n, _, height, width = images.shape
        pixels = block_pixels(processor, images, [(i, i) for i in range(n)])
        grid = torch.tensor([[1, height // cell, width // cell]] * n)
        tokens = torch.cat([*self._vlm.model.model.get_video_features(pixels, grid).pooler_output])
        return rearrange(tokens, "(n token) hidden -> n (token hidden)", n=n)


def _to_bytes(images: Float[Tensor, "n 3 height width"]) -> UInt8[Tensor, "n 3 height width"]:
    """LeRobot shows images as 0..1."""
    return (images * 255).round().to(torch.uint8)


def encode_dataset(demonstrations: Path, work: Path) -> Path:
    """Write a dataset whose environment state is what the encoder makes of each frame's image."""
    folder = work / "seen"
    if (folder / "meta/stats.json").is_file():  # written last
        return folder
    bare = work / "seen-bare"
    for unfinished in (bare, folder):
        shutil.rmtree(unfinished, ignore_errors=True)
    encode, dataset = ImageEncoder(), LeRobotDataset(f"local/{folder.name}", root=demonstrations)
    features: list[np.ndarray] = []
    for start in range(0, len(dataset), _AT_ONCE):
        rows: list[Any] = [dataset[i] for i in range(start, min(start + _AT_ONCE, len(dataset)))]
        features.append(encode(_to_bytes(torch.stack([row[CAMERA] for row in rows]))).numpy())
    seen = np.concatenate(features)
    described = {"dtype": "float32", "shape": seen.shape[1:], "names": None}
    # LeRobot refuses to replace a feature by one of the same name.
    without = remove_feature(dataset, [OBS_ENV_STATE, CAMERA], output_dir=bare)
    recompute_stats(
        modify_features(without, add_features={OBS_ENV_STATE: (seen, described)}, output_dir=folder)
    )
    shutil.rmtree(bare)
    return folder


def replace_places(observe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let an environment's observation show the encoded image in place of where things lie.

    Args:
        observe: what prepares the environment's observations.
    """
    encode = ImageEncoder()

    def show(observation: Any) -> Any:
        shown = observe(observation)
        images = _to_bytes(shown.pop(CAMERA))
        return shown | {OBS_ENV_STATE: encode(images)}

    return show
