"""Pictures that are dark, white, flat, blurred or stand still; and pictures that are not."""

from collections.abc import Callable

import numpy as np
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.pictures import (
    PictureLimits,
    PictureNumbers,
    find_bad_pictures,
    join_numbers,
    measure_pictures,
    measure_sharpness,
)
from lerobot_topreward.records import Finding

FPS = 10.0
FRAMES = 60
EPISODES = 9
BAD = 3


def make_pictures(episode: int) -> np.ndarray:
    """A bright square that moves over a checkered table."""
    rng = np.random.default_rng(episode)
    rows, columns = np.indices((64, 96))
    table = 60 + 80 * ((rows // 4 + columns // 4) % 2)
    pictures = np.repeat(table[None, ..., None], FRAMES, axis=0).repeat(3, axis=-1).astype(float)
    for i, picture in enumerate(pictures):
        left = (i + int(rng.integers(20))) % 80
        picture[20:36, left : left + 16] = 220
    return np.clip(pictures + rng.normal(0, 2, pictures.shape), 0, 255).astype(np.uint8)


def blur(pictures: np.ndarray) -> np.ndarray:
    shifts = [np.roll(pictures.astype(float), s, axis=(1, 2)) for s in range(-2, 3)]
    return np.mean(shifts, axis=0).astype(np.uint8)


def freeze(pictures: np.ndarray) -> np.ndarray:
    pictures[20:40] = pictures[20]
    return pictures


def freeze_briefly(pictures: np.ndarray) -> np.ndarray:
    pictures[20:29] = pictures[20]
    return pictures


def find(
    change: Callable[[np.ndarray], np.ndarray], idle: np.ndarray | None = None
) -> list[Finding]:
    numbers = {}
    for episode in range(EPISODES):
        pictures = make_pictures(episode)
        pictures = change(pictures) if episode == BAD else pictures
        numbers[episode] = measure_pictures(pictures, np.arange(FRAMES), None)
    moving = np.zeros(FRAMES, dtype=bool) if idle is None else idle
    moves = dict.fromkeys(range(EPISODES), moving)
    return [*find_bad_pictures("front", numbers, moves, PictureLimits(), fps=FPS)]


@pytest.mark.parametrize(
    ("change", "level", "defect"),
    [
        (lambda p: p // 4, "suspect", "dark"),
        (lambda p: np.maximum(p, 251), "suspect", "overexposed"),
        (lambda p: p // 20 + 100, "suspect", "low contrast"),
        (blur, "suspect", "blurred"),
        (freeze, "broken", "frozen camera"),
        (freeze_briefly, "suspect", "frozen camera"),
    ],
)
def test_bad_pictures_are_found_in_their_episode_alone(
    change: Callable[[np.ndarray], np.ndarray], level: str, defect: str
) -> None:
    found = find(change)
    assert {(f.episode_index, f.level, f.defect) for f in found} >= {(BAD, level, defect)}
    assert {f.episode_index for f in found} == {BAD}
    assert all(f.text.startswith("front: ") for f in found)


def test_good_pictures_are_not() -> None:
    assert find(lambda pictures: pictures) == []


def test_a_picture_that_stands_still_while_the_arm_does_is_not_frozen() -> None:
    idle = np.zeros(FRAMES, dtype=bool)
    idle[18:42] = True
    assert find(freeze, idle) == []


def test_spans_of_a_frozen_camera_are_frames_of_the_episode() -> None:
    (found,) = find(freeze)
    assert found.frames == (20, 39)
    assert "1.9 s in 1 spans" in found.text


def test_parts_of_an_episode_give_the_same_numbers() -> None:
    pictures = make_pictures(0)
    whole = measure_pictures(pictures, np.arange(FRAMES), None)
    parts = [
        measure_pictures(
            pictures[start : start + 25],
            np.arange(start, min(start + 25, FRAMES)),
            None if start == 0 else pictures[start - 1],
        )
        for start in range(0, FRAMES, 25)
    ]
    joined = join_numbers(parts)
    for name in PictureNumbers.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    gray = np.zeros((5, 5), dtype=np.float32)
    gray[2, 2] = 1
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    assert measure_sharpness(gray) == pytest.approx(laplacian.var())
    assert measure_sharpness(np.zeros((2, 9), dtype=np.float32)) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_luminance", -1), ("max_luminance", 256), ("max_white", 1.5), ("min_sharpness", -0.1),
     ("frozen_seconds", 0), ("frozen_change", 300), ("min_contrast", float("nan"))],
)  # fmt: skip
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"`{name}` must be"):
        PictureLimits(**{name: value})
