"""From the images of a clip to the pixels that the vision tower takes."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import linear
from transformers import Qwen3VLVideoProcessor
from transformers.image_utils import SizeDict
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip


class LinearPatches(torch.nn.Module):
    """The patch embedding as the matrix product that it is.

    It comes as a 3-D convolution whose stride is its kernel, for which cuDNN and CPUs have only slow
    kernels (https://github.com/huggingface/transformers/issues/45750); later transformers do this.
    """

    def __init__(self, projection: torch.nn.Conv3d) -> None:
        """Take over the weights of a convolution, under their own name."""
        super().__init__()
        self.proj = projection

    def forward(self, pixels: Float[Tensor, "patches values"]) -> Float[Tensor, "patches hidden"]:
        """Embed flat patches."""
        weight = self.proj.weight
        return linear(pixels.to(weight.dtype), weight.flatten(1), self.proj.bias)


def resolution(
    processor: Qwen3VLVideoProcessor, clip: Clip, *, max_pixels: int | None
) -> tuple[int, int]:
    """The height and width at which every prefix of this clip is shown; see `fit_images`."""
    height, width = clip.frames.shape[1:3]
    return fit_images(processor, len(clip.shown), height=height, width=width, max_pixels=max_pixels)


def fit_images(
    processor: Qwen3VLVideoProcessor,
    images: int,
    *,
    height: int,
    width: int,
    max_pixels: int | None,
) -> tuple[int, int]:
    """The height and width at which every prefix of a video of so many images is shown.

    Qwen's own rule (``smart_resize``) depends on the number of images, so prefixes left to
    themselves change resolution as they grow; we take it once, from the longest. The checkpoint's
    pixel budget is for a whole video, `max_pixels` for one image.

    Raises:
        EpisodeError: the images are too small or too narrow for the architecture.
    """
    budget = int(processor.size["longest_edge"])
    if max_pixels is not None:
        # The rule counts an odd number of images as one more.
        budget = min(budget, max_pixels * (images + images % 2))
    try:
        return smart_resize(
            num_frames=images,
            height=height,
            width=width,
            temporal_factor=int(processor.temporal_patch_size),
            factor=int(processor.patch_size) * int(processor.merge_size),
            min_pixels=min(int(processor.size["shortest_edge"]), budget),
            max_pixels=budget,
        )
    except ValueError as error:
        raise EpisodeError(
            f"images of {width}x{height} cannot be shown to this model: {error}"
        ) from None


def resize(
    processor: Qwen3VLVideoProcessor,
    frames: UInt8[np.ndarray, "decoded height width 3"],
    *,
    size: tuple[int, int],
    device: torch.device,
) -> UInt8[Tensor, "decoded 3 new_height new_width"]:
    """Resize as the checkpoint's own processor does, each frame once."""
    # numpy makes the copy: torch's uint8 copies stall on a busy machine.
    video = torch.from_numpy(np.ascontiguousarray(rearrange(frames, "t h w c -> t c h w"))).to(
        device
    )
    if tuple(video.shape[-2:]) == size:
        return video
    target = SizeDict(height=size[0], width=size[1])
    return processor.resize(video, size=target, resample=processor.resample)


def block_pixels(
    processor: Qwen3VLVideoProcessor,
    images: UInt8[Tensor, "decoded 3 height width"],
    pairs: Sequence[tuple[int, int]],
) -> Float[Tensor, "patches values"]:
    """Patches of blocks that show these pairs of images, as the checkpoint's own processor cuts them."""
    order = torch.tensor(pairs, device=images.device).flatten()
    out = processor(
        videos=[images[order]], do_resize=False, do_sample_frames=False, return_tensors="pt"
    )
    return out["pixel_values_videos"]
