"""Which checkpoint is meant: its files decide, however large they are."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

import lerobot_topreward.vlm.identity
import lerobot_topreward.vlm.published
from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig, identify, multiplies_bfloat16

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


def test_float32_on_a_cpu_where_bfloat16_gains_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dtype(**options: str) -> str:
        return identify(VlmConfig(vlm=str(checkpoint), device="cpu", **options)).dtype  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(lerobot_topreward.vlm.identity, "multiplies_bfloat16", lambda: True)
    assert dtype() == "float32"  # it is small
    monkeypatch.setattr(lerobot_topreward.vlm.identity, "_LARGE", 1 << 20)
    assert dtype() == "bfloat16"
    assert dtype(dtype="float32") == "float32"
    monkeypatch.setattr(lerobot_topreward.vlm.identity, "multiplies_bfloat16", lambda: False)
    assert dtype() == "float32"


@pytest.mark.parametrize("known", [False, True])
def test_whether_a_processor_multiplies_bfloat16_is_asked_of_torch(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name in names:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not multiplies_bfloat16()
    for name in names:  # private names, which may go
        monkeypatch.delattr(torch.cpu, name)
    assert not multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, names[0], lambda: known, raising=False)
    assert multiplies_bfloat16() == known


@pytest.mark.parametrize(
    ("device", "gigabytes", "quantizes", "expected", "said"),
    [
        ("cuda", 85, False, ("32B", None), "32B-Instruct, which takes 77 of 85 GB free"),
        ("cuda", 80, True, ("32B", None), "which takes 77 of 80"),
        ("cuda", 25, True, ("32B", "4bit"), "32B-Instruct in 4bit, which takes 25 of 25"),
        ("cuda", 25, False, ("8B", None), "8B-Instruct, .*; Qwen/Qwen3-VL-32B-Instruct would take"),
        ("mps", 25, True, ("8B", None), "8B-Instruct, which takes 20 of 25"),
        ("cuda", 11, True, ("4B", None), "8B-Instruct would take 20"),
        ("cuda", 1, True, ("2B", None), "2B-Instruct, which takes 5 of 1 GB"),
        (
            "cpu",
            500,
            True,
            ("2B", None),
            "takes 5 of 500 GB free; .*4B-Instruct would take 10, and hours",
        ),
    ],
)
def test_the_best_checkpoint_that_fits_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gigabytes: int,
    quantizes: bool,
    expected: tuple[str, str | None],
    said: str,
) -> None:
    published = lerobot_topreward.vlm.published
    monkeypatch.setattr(published, "resolve_device", torch.device)
    monkeypatch.setattr(published, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(published, "available_bytes", lambda *_: gigabytes * 10**9)
    monkeypatch.setattr(published, "find_spec", lambda _: object() if quantizes else None)
    config, why = published.choose_checkpoint(VlmConfig(vlm="auto", device=device))
    assert (config.vlm, config.quantize) == (f"Qwen/Qwen3-VL-{expected[0]}-Instruct", expected[1])
    assert re.search(said, why)


def test_what_is_known_of_a_length_bias() -> None:
    describe = lerobot_topreward.vlm.published.describe_bias
    assert "mostly follows the video: VOC 0.89" in str(describe("Qwen/Qwen3-VL-32B-Instruct"))
    assert "rises with a video's length" in str(describe("Qwen/Qwen3-VL-8B-Instruct"))
    assert "rises with a video's length" in str(describe("Qwen/Qwen3-VL-30B-A3B-Instruct"))
    assert "nothing is published" in str(describe("Qwen/Qwen3-VL-2B-Instruct"))
    assert describe("my-own") is None
