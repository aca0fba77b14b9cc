"""Scores made in Python are those that the label command stores."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from scored import TASKS, reopen

from lerobot_topreward import ScoringConfig, VlmConfig, load_scorer, score_episode, score_frames
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Segment
from lerobot_topreward.scoring.scorer import SizedScorer


@pytest.fixture(scope="module")
def scorer(tiny_vlm: Path) -> SizedScorer:
    return load_scorer(VlmConfig(vlm=str(tiny_vlm), device="cpu"))


@pytest.mark.parametrize("episode", [0, 3])
def test_an_episode_has_the_scores_that_label_stores(
    scorer: SizedScorer, recorded: Path, labelled: Path, episode: int
) -> None:
    stored = reopen(labelled).scores
    (expected,) = (part for part in stored if part.segment.episode_index == episode)
    (found,) = score_episode(scorer, LeRobotDataset("local/x", root=recorded), episode)
    assert found.segment == expected.segment
    assert found.frame_index.tolist() == expected.frame_index.tolist()
    assert found.log_prob_true.tolist() == expected.log_prob_true.tolist()
    assert found.log_prob_false.tolist() == expected.log_prob_false.tolist()
    assert np.ptp(found.log_prob_true) > 1e-3


def test_images_with_their_times_score_as_the_episode_does(
    scorer: SizedScorer, recorded: Path
) -> None:
    source = open_source(repo_id=None, root=recorded, revision=None)
    camera, fps = source.meta.camera_keys[0], source.meta.fps
    segment = Segment(0, 0, 31, TASKS[0])
    clip = read_clip(source, camera=camera, segment=segment, sample_fps=2, final_frame=True)
    times = clip.frame_indices / fps
    found = score_frames(scorer, clip.frames, times=times, instruction=TASKS[0])
    (expected,) = score_episode(scorer, LeRobotDataset("local/x", root=recorded), 0)
    assert found.log_prob_true.tolist() == expected.log_prob_true.tolist()
    assert found.frame_index.tolist() == list(range(len(times)))
    later = score_frames(scorer, clip.frames, times=times + 3, instruction=TASKS[0])
    assert (later.log_prob_true != found.log_prob_true).any()  # times are shown to the VLM
    static = score_frames(scorer, clip.frames, times=times, instruction=TASKS[0], control="static")
    assert static.log_prob_true[0] == pytest.approx(found.log_prob_true[0], abs=1e-5)  # one image
    assert (static.log_prob_true[1:] != found.log_prob_true[1:]).any()


@pytest.mark.parametrize(
    ("count", "times", "said"),
    [
        (3, [0, 1], r"a time each; got \(3, 32, 32, 3\) and 2 times"),
        (0, [], "a time each"),
        (2, [1, 1], "ascend"),
        (2, [-1, 0], ">= 0 s"),
    ],
)
def test_images_that_cannot_be_scored(
    scorer: SizedScorer, count: int, times: list[float], said: str
) -> None:
    frames = np.zeros((count, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=said):
        score_frames(scorer, frames, times=np.array(times), instruction="pick")


def test_an_episode_or_camera_that_is_not_there(scorer: SizedScorer, recorded: Path) -> None:
    dataset = LeRobotDataset("local/x", root=recorded)
    with pytest.raises(EpisodeError, match=r"in 0\.\.3; got 4"):
        score_episode(scorer, dataset, 4)
    with pytest.raises(UserError, match="front"):
        score_episode(scorer, dataset, 0, scoring=ScoringConfig(camera="top"))
