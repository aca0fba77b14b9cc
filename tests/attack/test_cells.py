"""Damaged cells and videos: the episode fails alone, with a reason; the others are labelled."""

import io
import os
import shutil
import struct
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lerobot_topreward.cli import main

KIND = "damaged cells and videos"
pytestmark = pytest.mark.slow  # half a minute for all

CAMERA = "observation.images.front"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-001.mp4"
FROM = f"videos/{CAMERA}/from_timestamp"
UNREADABLE = "holds an unreadable image"

Break = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    name: str
    damage: Break  # of episode 1
    says: str


def replaced(path: Path, column: str, row: int, value: Any) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    values = table[column].to_pylist()
    values[row] = value
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)


def cell(data: bytes | None, path: str | None = None) -> Break:
    """Replace the first picture of episode 1."""
    return lambda root: replaced(root / DATA, CAMERA, 4, {"bytes": data, "path": path})


def encoded(*, mode: str = "RGB", size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(width: int, height: int) -> bytes:
    """A picture of a few bytes that claims to be very large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 16))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def noisy(form: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


PICTURES = [
    Case("null", lambda root: replaced(root / DATA, CAMERA, 4, None), "holds no image"),
    Case("neither bytes nor path", cell(None), "holds no image"),
    Case("no bytes", cell(b""), UNREADABLE),
    Case("not a picture", cell(b"a picture"), UNREADABLE),
    Case("SVG", cell(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNREADABLE),
    Case("half a PNG", cell(half(noisy("PNG"))), UNREADABLE),
    Case("half a JPEG", cell(half(noisy("JPEG"))), UNREADABLE),
    Case("a PNG with a wrong checksum", cell(noisy("PNG")[:40] + b"\0" * 40), UNREADABLE),
    Case("a bomb of 3.6 gigapixels", cell(bomb(60_000, 60_000)), UNREADABLE),
    Case("a bomb of 100 megapixels", cell(bomb(10_000, 10_000)), UNREADABLE),
    Case("a height of nothing", cell(bomb(64, 0)), UNREADABLE),
    Case("another size", cell(encoded(size=(32, 32))), "must hold images of one size"),
    Case("16 bits", cell(encoded(mode="I;16")), "must hold 8-bit color images; got mode I;16"),
    Case("floats", cell(encoded(mode="F", form="TIFF")), "must hold 8-bit color images"),
    Case("a path that is not there", cell(None, "images/0.png"), "holds no image"),
    Case("a path out of the dataset", cell(None, "../outside.png"), "holds no image"),
    Case("an absolute path", cell(None, "/etc/passwd"), "leads out of the dataset"),
    Case("a device", cell(None, "/dev/zero"), "leads out of the dataset"),
    Case("a folder", cell(None, "data"), "must be a regular file"),
    Case("a path with a null byte", cell(None, "a\0b.png"), "holds no image"),
]


def video(content: bytes) -> Break:
    return lambda root: (root / VIDEO).write_bytes(content)


def begins(value: float | None) -> Break:
    return lambda root: replaced(root / EPISODES, FROM, 1, value)


def sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    return buffer.getvalue()


VIDEOS = [
    Case("missing", lambda root: (root / VIDEO).unlink(), "file-001.mp4 is missing"),
    Case("empty", video(b""), "cannot be decoded"),
    Case("not a video", video(b"a video" * 99), "cannot be decoded"),
    Case("cut", lambda root: os.truncate(root / VIDEO, 600), "cannot be decoded"),
    Case("a picture", video(noisy("PNG")), "file-001.mp4"),
    Case("sound alone", video(sound()), "it has no video stream"),
    Case("begins at null", begins(None), "from_timestamp in meta/episodes must be seconds"),
    Case("begins at NaN", begins(float("nan")), "must be seconds >= 0; got nan"),
    Case("begins before the file", begins(-1.0), "must be seconds >= 0; got -1.0"),
    Case("begins at infinity", begins(float("inf")), "must be seconds >= 0; got inf"),
    Case("begins after the Sun's end", begins(1e300), "must be seconds >= 0; got 1e+300"),
    Case("begins after the file", begins(100.0), "is cut short"),
    Case("begins between two frames", begins(0.05), "has no frame at 0.0500 s"),
]


@pytest.fixture(scope="module")
def recorded(record_dataset: Callable[..., Path]) -> Callable[[bool], Path]:
    made: dict[bool, Path] = {}

    def record(video: bool) -> Path:
        if video not in made:
            made[video] = record_dataset(
                lengths=(4, 4, 4),
                cameras=("front",),
                size=(48, 64),
                video=video,
                file_per_episode=video,
            )
        return made[video]

    return record


def check(
    case: Case,
    whole: Path,
    vlm: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, output = shutil.copytree(whole, folder / "dataset"), folder / "output"
    case.damage(root)
    data = (root / DATA).read_bytes()
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--root", str(root), "--vlm", str(vlm), "--output", str(output)])
    said = capfd.readouterr()
    assert stopped.value.code == 1, said
    reasons = [line for line in said.out.splitlines() if "failed:" in line]
    assert len(reasons) == 1
    assert reasons[0].startswith("episode 1 failed: ")
    assert case.says in reasons[0]
    assert "Traceback" not in said.err
    labelled = pq.read_table(output / "topreward_progress.parquet")["episode_index"]
    assert sorted(set(labelled.to_pylist())) == [0, 2]
    assert (root / DATA).read_bytes() == data
    assert not list(output.rglob("*.partial"))


@pytest.mark.parametrize("case", PICTURES, ids=lambda case: case.name)
def test_a_damaged_picture(
    recorded: Callable[[bool], Path],
    tiny_vlm: Path,
    tmp_path: Path,
    case: Case,
    capfd: pytest.CaptureFixture[str],
) -> None:
    check(case, recorded(False), tiny_vlm, tmp_path, capfd)


@pytest.mark.parametrize("case", VIDEOS, ids=lambda case: case.name)
def test_a_damaged_video(
    recorded: Callable[[bool], Path],
    tiny_vlm: Path,
    tmp_path: Path,
    case: Case,
    capfd: pytest.CaptureFixture[str],
) -> None:
    check(case, recorded(True), tiny_vlm, tmp_path, capfd)
