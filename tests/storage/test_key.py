"""The key of a store: scores that exist must be found again."""

from dataclasses import replace

import pytest

from lerobot_topreward.storage.key import ScoreKey, ScoringConfig
from lerobot_topreward.vlm.identity import VlmIdentity

KEY = ScoreKey(vlm="tiny", vlm_revision="1", dtype="float32", prompt="done?", camera="front")


def test_digests_are_those_of_the_first_stores() -> None:
    assert KEY.digest() == "3b80e6e26c5e3de4"
    assert replace(KEY, prefixes=15, instruction="tidy up").digest() == "dc14c37e9f67c38f"
    assert replace(KEY, max_images=4).digest() == "a9d4c32f5a786d7c"


def test_a_stored_key_is_read_again() -> None:
    for key in (KEY, replace(KEY, prefixes=15, max_pixels=4096, quantize="4bit", sample_fps=4)):
        again = ScoreKey.from_json(key.to_json())
        assert again == key
        assert again.digest() == key.digest()
    assert KEY.to_json()["prefixes"] is None
    older = {k: v for k, v in KEY.to_json().items() if k not in ("max_images", "head")}
    assert ScoreKey.from_json(older) == KEY


def test_answers_in_another_precision_are_other_scores() -> None:
    vlm = VlmIdentity("tiny", "1", "bfloat16", None, None)
    key = ScoreKey.pin(ScoringConfig(), vlm, camera="front")
    assert key.head == "float32"
    assert key.digest() != replace(key, head=None).digest()
    assert ScoreKey.from_json(key.to_json()) == key
    # In a model that is float32 anyway, nothing has changed.
    assert ScoreKey.pin(ScoringConfig(), replace(vlm, dtype="float32"), camera="front").head is None


@pytest.mark.parametrize(
    "change",
    [
        {"prefixes": 0}, {"prefixes": "all"}, {"sample_fps": 0}, {"sample_fps": "2"},
        {"max_images": 1}, {"camera": None}, {"vlm": 8}, {"engine": "three-pass"}, {"colour": 1},
        {"head": "float64"},
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"validation error|must be|has the fields"):
        ScoreKey.from_json({**KEY.to_json(), **change})
    with pytest.raises(ValueError, match="a key has the fields vlm, "):
        ScoreKey.from_json({name: value for name, value in KEY.to_json().items() if name != "vlm"})


def test_a_configuration_becomes_a_key() -> None:
    scoring = ScoringConfig(sample_fps=4, max_images=8)
    vlm = VlmIdentity("tiny", "1", "float32", None, None)
    key = ScoreKey.pin(scoring, vlm, camera="observation.images.front")
    assert (key.sample_fps, key.max_images, key.camera) == (4, 8, "observation.images.front")
    assert (key.vlm, key.vlm_revision, key.dtype, key.quantize) == ("tiny", "1", "float32", None)
    assert ScoreKey.pin(key, vlm, camera=key.camera) == key
