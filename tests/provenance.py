"""How labels say that they were made, where a test writes them by hand."""

from typing import Any

from lerobot_topreward.storage.key import ScoreKey


def score_key(**changes: Any) -> ScoreKey:
    """The key of a VLM that does not exist."""
    fields = {"vlm": "a/vlm", "vlm_revision": "0" * 40, "dtype": "float32", "prompt": ""}
    return ScoreKey(**{**fields, "camera": "observation.images.front", **changes})


def provenance(**changes: Any) -> dict[str, Any]:
    """As `label` stores it beside its labels, with the defaults of its options at 10 Hz."""
    made = {"normalize": "episode", "scale": "log-prob", "horizon_frames": 10}
    return {"scoring": score_key().to_json(), **made, **changes}
