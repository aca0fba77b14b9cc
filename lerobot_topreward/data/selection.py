"""What the option `camera` means."""

from collections.abc import Sequence
from difflib import get_close_matches

from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.errors import UserError

# Cameras that see the gripper more than the task; the paper scores third-person views.
_CLOSE_UP = ("wrist", "gripper", "hand")


def explain_camera(meta: Metadata, camera: str, *, chosen: bool) -> str:
    """Say why a camera is the one that is scored: it was chosen, or what `resolve_camera` saw."""
    others = [key for key in meta.camera_keys if key not in (camera, *meta.depth_keys)]
    names = ", ".join(key.rpartition(".")[2] for key in others)
    if chosen:
        return "as chosen"
    return f"the only one that is not on the hand; beside it: {names}" if others else "the only one"


def resolve_camera(meta: Metadata, camera: str | None) -> str:
    """Find the feature key of the camera to score; see `choose_camera`.

    Raises:
        UserError: No such camera, no camera at all, or none that stands out.
    """
    return choose_camera([key for key in meta.camera_keys if key not in meta.depth_keys], camera)


def choose_camera(keys: Sequence[str], camera: str | None) -> str:
    """Find the feature key of the camera to score among those of a dataset's color cameras.

    It is a feature key or its last part; None picks the only camera, or else the only one that is
    not named after a wrist, gripper or hand.

    Raises:
        UserError: No such camera, no camera at all, or none that stands out.
    """
    if not keys:
        raise UserError("the dataset must have a color camera; it has none, so there is no video")
    lasts = [key.rpartition(".")[2] for key in keys]
    unique = [
        last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)
    ]
    names = dict(zip(keys, unique, strict=True))
    listed = ", ".join(names.values())
    if camera is not None:
        for key, name in names.items():
            if camera in (key, name):
                return key
        close = get_close_matches(camera.rpartition(".")[2], names.values(), n=1)
        hint = f". Did you mean {close[0]}?" if close else ""
        raise UserError(f"`camera={camera!r}` is not in this dataset; it has: {listed}{hint}")
    far = [key for key in keys if not any(word in names[key].lower() for word in _CLOSE_UP)]
    for candidates in (keys, far):
        if len(candidates) == 1:
            return candidates[0]
    raise UserError(f"which camera shows the task best? Give `camera`, one of: {listed}")
