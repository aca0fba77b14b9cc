"""The bundle keeps what its README promises."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.judging.metrics import rise, success_score
from lerobot_topreward.records import Segment
from lerobot_topreward.scoring.scorer import score_clip
from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.simulation.tasks import (
    BUNDLED_SEEDS,
    COLORS,
    KINDS,
    instruction,
    parse_seeds,
)
from lerobot_topreward.simulation.truth import read_truth
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

ASSETS = Path(str(files("lerobot_topreward.demo"))) / "assets"


def test_the_bundle_is_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*")) <= 12e6


def test_the_bundled_truth_matches_the_bundled_dataset() -> None:
    source = open_source(repo_id=None, root=ASSETS / "dataset", revision=None)
    truth = read_truth(ASSETS / "dataset")
    episodes = source.meta.episodes
    assert len(truth) == len(episodes) == len(parse_seeds(BUNDLED_SEEDS)) == 40
    assert {happened.kind for happened in truth.values()} == set(KINDS)
    assert {texts[0] for texts in episodes["tasks"].to_pylist()} == {instruction(c) for c in COLORS}
    assert [len(truth[i].progress) for i in range(40)] == episodes["length"].to_pylist()


def test_the_bundled_vlm_tells_a_success_from_a_static_video_and_from_another_task() -> None:
    source = open_source(repo_id=None, root=ASSETS / "dataset", revision=None)
    row = source.meta.episodes.slice(0, 1).to_pylist()[0]
    text = row["tasks"][0]
    clip = read_clip(
        source,
        camera=CAMERA,
        segment=Segment(0, 0, int(row["length"]), text),
        sample_fps=2.0,
        final_frame=True,
    )
    scorer = OnePassScorer(load_vlm(VlmConfig(vlm=BUILTIN, device="cpu", dtype="float32")))
    scores = score_clip(clip, scorer, ("none", "static"), None)
    real, static = (control.log_prob_true for control in scores)
    other = scorer.score(clip, [len(clip.shown)], [text, "open the drawer"]).true[:, 0]
    assert success_score(real) > np.log(0.7)
    assert rise(real) > 2.0
    assert rise(static) == pytest.approx(0.0, abs=0.15 * rise(real))
    assert other[0] > other[1] + 1.0
