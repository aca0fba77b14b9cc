"""What the options `camera` and `episodes` mean."""

from difflib import get_close_matches

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_topreward.errors import UserError

# Cameras that see the gripper more than the task; the paper scores third-person views.
_CLOSE_UP = ("wrist", "gripper", "hand")


def resolve_camera(meta: LeRobotDatasetMetadata, camera: str | None) -> str:
    """Find the feature key of the camera to score.

    It is a feature key or its last part; None picks the only camera, or else the only one that is
    not named after a wrist, gripper or hand.

    Raises:
        UserError: No such camera, no camera at all, or none that stands out.
    """
    keys = [key for key in meta.camera_keys if key not in meta.depth_keys]
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


def parse_episodes(spec: str | None, *, total: int, max_episodes: int | None) -> list[int]:
    """Read the option `episodes`.

    It holds indices and half-open ranges as in Python, ``0:10,15`` for 0..9 and 15; ``5:`` runs to
    the end. None means all. Only the first `max_episodes` of them are kept.

    Raises:
        UserError: Not in that form, out of range, named twice, or nothing left.
    """
    if max_episodes is not None and max_episodes < 1:
        raise UserError(f"`max_episodes` must be at least 1; got {max_episodes}")
    chosen: set[int] = set()
    for part in [":"] if spec is None else map(str.strip, spec.split(",")):
        first, colon, last = part.partition(":")
        try:
            start = int(first) if first or not colon else 0
            stop = (int(last) if last else total) if colon else start + 1
        except ValueError:
            raise UserError(
                f"`episodes` must be indices and ranges such as 0:10,15; got {part!r} in {spec!r}"
            ) from None
        if start < 0 or stop > total:
            raise UserError(
                f"`episodes={part!r}` is out of range: the dataset has episodes 0..{total - 1} "
                f"(0:{total} is all of them)"
            )
        if start >= stop:
            raise UserError(f"`episodes={part!r}` is empty: the end of a range is not part of it")
        if twice := chosen & set(range(start, stop)):
            raise UserError(f"`episodes={spec!r}` names episode {min(twice)} twice")
        chosen |= set(range(start, stop))
    return sorted(chosen)[:max_episodes]
