from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward import (
    LabelConfig,
    OnlineScorer,
    ScoringConfig,
    label_dataset,
    open_labelled,
)
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.tiny_vlm import build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

INSTRUCTION = "pick up the red cube"
pytestmark = pytest.mark.slow  # a dataset is labeled


@pytest.fixture(scope="module")
def labelled(
    record_dataset: Callable[..., Path], tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = record_dataset(lengths=(12, 9), cameras=("front",), tasks=(INSTRUCTION, "fold it"))
    output = tmp_path_factory.mktemp("labelled") / "dataset"
    label_dataset(
        LabelConfig(
            root=root,
            output=output,
            vlm=VlmConfig(vlm=str(tiny_vlm), device="cpu"),
            scoring=ScoringConfig(sample_fps=10.0),
            normalize="task",
            scale="log-odds",
        )
    )
    return output


def test_progress_is_on_the_scale_of_a_labeled_dataset(labelled: Path, tiny_vlm: Path) -> None:
    reference = open_labelled(repo_id=None, root=labelled, revision=None)
    vlm = load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu"))
    online = OnlineScorer(OnePassScorer(vlm), INSTRUCTION, max_images=12, reference=reference)
    dataset: Any = LeRobotDataset("local/x", root=labelled, video_backend="pyav", episodes=[0])
    rewards = reference.rewards().episode(0)
    for frame, expected in enumerate(rewards.progress):
        pixels = dataset[frame]["observation.images.front"].numpy()
        image = np.ascontiguousarray(np.round(255 * pixels).astype(np.uint8).transpose(1, 2, 0))
        assert online.add(image, frame / dataset.fps).progress == pytest.approx(expected, abs=1e-3)
    assert np.ptp(rewards.progress) > 0.5


def test_a_reference_that_does_not_compare_is_refused(
    labelled: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    other = build_tiny_vlm(tmp_path / "other")
    dense = load_vlm(VlmConfig(vlm=str(other), device="cpu"))
    reference = open_labelled(repo_id=None, root=labelled, revision=None)
    with pytest.raises(UserError, match="do not compare; label it with the `vlm`"):
        OnlineScorer(OnePassScorer(dense), INSTRUCTION, reference=reference)
    same = OnePassScorer(load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu")))
    with pytest.raises(UserError, match=r"no scores for 'dance'; it has 2 tasks: 'fold it'"):
        OnlineScorer(same, "dance", reference=reference)
