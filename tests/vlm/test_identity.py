"""Which checkpoint is meant: its files decide, however large they are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig, identify

MEMORY = Path(HF_HOME) / "lerobot-topreward" / "weights.json"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    content = np.random.default_rng(0).integers(0, 256, 40 << 20, dtype=np.uint8)
    (folder / "model.safetensors").write_bytes(content)
    MEMORY.unlink(missing_ok=True)
    return folder


def revision(folder: Path) -> str:
    return identify(VlmConfig(vlm=str(folder), device="cpu")).revision


def test_one_byte_anywhere_makes_another_checkpoint(checkpoint: Path) -> None:
    seen = {revision(checkpoint)}
    for place in (5, 7 << 20, (40 << 20) - 1):
        with (checkpoint / "model.safetensors").open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
        seen.add(revision(checkpoint))
    assert len(seen) == 4


def test_a_large_file_is_hashed_once(checkpoint: Path) -> None:
    first = revision(checkpoint)
    (known,) = json.loads(MEMORY.read_text()).values()
    MEMORY.write_text(json.dumps(dict.fromkeys(json.loads(MEMORY.read_text()), "0" * 64)))
    assert revision(checkpoint) != first  # it was not read again
    MEMORY.unlink()
    assert revision(checkpoint) == first
    os.utime(checkpoint / "model.safetensors", ns=(1, 1))
    assert revision(checkpoint) == first
    assert list(json.loads(MEMORY.read_text()).values()) == [known, known]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"a": {"b": []}}'])
def test_a_damaged_memory_is_forgotten(checkpoint: Path, content: bytes) -> None:
    first = revision(checkpoint)
    MEMORY.write_bytes(content)
    assert revision(checkpoint) == first


@pytest.mark.parametrize("value", [None, 5, "abc", "../x", ["0" * 64]])
def test_what_is_no_hash_is_not_believed(checkpoint: Path, value: object) -> None:
    first = revision(checkpoint)
    MEMORY.write_text(json.dumps(dict.fromkeys(json.loads(MEMORY.read_text()), value)))
    assert revision(checkpoint) == first


def test_the_hubs_cache_knows_the_hash_of_its_files(checkpoint: Path) -> None:
    repository = Path(HF_HUB_CACHE) / "models--me--vlm"
    snapshot, blobs = repository / "snapshots" / ("a" * 40), repository / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    shutil.copy(checkpoint / "config.json", snapshot)
    shutil.copy(checkpoint / "model.safetensors", blobs / ("b" * 64))
    (snapshot / "model.safetensors").symlink_to(blobs / ("b" * 64))
    assert len(revision(snapshot)) == 40
    assert not MEMORY.exists()
    shutil.rmtree(repository)


def test_weights_that_are_a_pipe(checkpoint: Path) -> None:
    os.mkfifo(checkpoint / "more.safetensors")
    with pytest.raises(UserError, match=r"more\.safetensors must be a regular file"):
        revision(checkpoint)
