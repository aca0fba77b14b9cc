"""How far log-probabilities are off when a bfloat16 model's answers are read in bfloat16.

    python benchmarks/head.py

The demo's VLM scores some of its episodes in float32, and in bfloat16 with its head in bfloat16 and
in float32. Its logits are small, so that is done again with a head two and four times as large:
the rounding of a logit grows with it, and real checkpoints' are 16 to 32.
"""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import lerobot_topreward.demo
from lerobot_topreward.data.dataset import open_source, segments
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

EPISODES = (0, 7, 14, 21, 28, 35)


def main() -> None:
    """Print the errors against float32, in nats."""
    root = Path(lerobot_topreward.demo.__file__).parent / "assets" / "dataset"
    source = open_source(repo_id=None, root=root, revision=None)
    parts = segments(source, EPISODES, instruction=None).values()
    clips = [
        read_clip(
            source,
            camera=source.meta.camera_keys[0],
            segment=part,
            sample_fps=2.0,
            final_frame=True,
        )
        for (part,) in parts
    ]

    def score(dtype: str, scale: int) -> tuple[np.ndarray, float]:
        vlm = load_vlm(VlmConfig(vlm=BUILTIN, device="cpu", dtype=dtype))  # pyright: ignore[reportArgumentType]
        weight = vlm.model.lm_head.weight.detach() * scale
        vlm.model.lm_head.weight = torch.nn.Parameter(weight)
        scorer, largest = OnePassScorer(vlm), 0.0

        def note(_: object, inputs: tuple[Tensor], output: Tensor) -> None:
            nonlocal largest
            largest = max(largest, float((output[:, -1].float() @ weight.float().T).abs().max()))

        vlm.model.model.language_model.norm.register_forward_hook(note)
        found = [
            scorer.score(clip, range(1, len(clip.shown) + 1), [clip.segment.instruction]).true[0]
            for clip in clips
        ]
        return np.concatenate(found), largest

    print("head    largest logit   bfloat16: mean, max error   float32: mean, max error (nats)")
    for scale in (1, 2, 4):
        exact, largest = score("float32", scale)
        ours, _ = score("bfloat16", scale)
        with patch.object(Vlm, "read_answers", read_as_the_model_does):
            theirs, _ = score("bfloat16", scale)
        errors = [np.abs(found - exact) for found in (theirs, ours)]
        row = "   ".join(f"{error.mean():.4f}, {error.max():.4f}" for error in errors)
        print(f"x{scale}      {largest:13.1f}   {row}")


def read_as_the_model_does(vlm: Vlm, hidden: Tensor) -> Tensor:
    """The head in the model's own dtype."""
    logits = vlm.model.lm_head(hidden).float()
    return torch.log_softmax(logits, dim=-1)[:, list(vlm.answers)]


if __name__ == "__main__":
    main()
