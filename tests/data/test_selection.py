from unittest.mock import create_autospec

import pytest

from lerobot_topreward.data.episodes import parse_episodes
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.data.selection import explain_camera, resolve_camera
from lerobot_topreward.errors import UserError


def cameras(*names: str, depth: tuple[str, ...] = ()) -> Metadata:
    meta = create_autospec(Metadata, instance=True)
    meta.camera_keys, meta.depth_keys = [*names, *depth], list(depth)
    return meta


@pytest.mark.parametrize(
    ("names", "asked", "key"),
    [
        (["observation.images.front"], None, "observation.images.front"),
        (["observation.images.left_wrist"], None, "observation.images.left_wrist"),
        (["observation.images.Wrist", "observation.images.top"], None, "observation.images.top"),
        (["a.gripper", "a.hand_eye", "a.front"], None, "a.front"),
        (["a.front", "a.top"], "top", "a.top"),
        (["a.front", "a.top"], "a.front", "a.front"),
        (["a.front", "b.front"], "b.front", "b.front"),
        (["image"], "image", "image"),
    ],
)
def test_camera_is_found(names, asked, key):
    assert resolve_camera(cameras(*names), asked) == key


@pytest.mark.parametrize(
    ("names", "chosen", "why"),
    [
        (["a.front"], False, "the only one"),
        (["a.wrist", "a.top"], False, "the only one that is not on the hand; beside it: wrist"),
        (["a.front", "a.top"], True, "as chosen"),
    ],
)
def test_a_camera_is_explained(names, chosen, why):
    asked = names[-1] if chosen else None
    found = resolve_camera(cameras(*names, depth=("a.depth",)), asked)
    assert explain_camera(cameras(*names, depth=("a.depth",)), found, chosen=chosen) == why


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        (
            ["observation.images.front", "observation.images.wrist"],
            "observation.images.top",
            "`camera='observation.images.top'` is not in this dataset; it has: front, wrist$",
        ),
        (["a.front", "a.wrist"], "a.frnt", r"front, wrist\. Did you mean front\?"),
        (["a.front", "a.top"], None, "Give `camera`, one of: front, top"),
        (["a.wrist", "a.gripper"], None, "Give `camera`, one of: wrist, gripper"),
        (["a.front", "b.front"], "front", "it has: a.front, b.front"),
        ([], None, "no video"),
        (["a.front"], "depth", "it has: front"),
    ],
)
def test_camera_is_not_found(names, asked, message):
    with pytest.raises(UserError, match=message):
        resolve_camera(cameras(*names, depth=("a.depth",)), asked)


@pytest.mark.parametrize(
    ("spec", "limit", "expected"),
    [
        (None, None, [0, 1, 2, 3, 4, 5]),
        (None, 2, [0, 1]),
        ("0:3,5", None, [0, 1, 2, 5]),
        (" 5, 1 ", None, [1, 5]),
        ("4:", None, [4, 5]),
        (":2", None, [0, 1]),
        (":", 9, [0, 1, 2, 3, 4, 5]),
        ("3:6,0", 2, [0, 3]),
    ],
)
def test_episodes_are_chosen(spec, limit, expected):
    assert parse_episodes(spec, total=6, max_episodes=limit) == expected


@pytest.mark.parametrize(
    ("spec", "limit", "message"),
    [
        ("6", None, r"'6'` is out of range: the dataset has episodes 0\.\.5"),
        ("0:7", None, "out of range"),
        ("-1", None, "out of range"),
        ("a:b", None, "indices and ranges such as 0:10,15; got 'a:b'"),
        ("1:2:3", None, "got '1:2:3'"),
        ("0,,1", None, "got ''"),
        ("", None, "got ''"),
        ("0:3,2", None, "names episode 2 twice"),
        ("3:3", None, "'3:3'` is empty"),
        ("4:2", None, "'4:2'` is empty"),
        (None, 0, "`max_episodes` must be at least 1; got 0"),
    ],
)
def test_episodes_are_refused(spec, limit, message):
    with pytest.raises(UserError, match=message):
        parse_episodes(spec, total=6, max_episodes=limit)
