import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmIdentity
from lerobot_topreward.vlm.loading import needed_bytes, require_memory

RecordDataset = Callable[..., Path]


@pytest.fixture(scope="module")
def dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(6, 6))


@pytest.fixture
def refused(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command, expect exit code 2 before weights are loaded, and return what it said."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the weights were loaded")

    for name in ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"):
        monkeypatch.setattr(getattr(lerobot_topreward.vlm.loading, name), "from_pretrained", never)

    def run(*options: str | Path) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, options)))
        said = capfd.readouterr()
        assert stopped.value.code == 2, said
        assert "Traceback" not in said.err
        return said.err + said.out

    return run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--camera", "observation.images.top"],
            "--camera 'observation.images.top' is not in this",
        ),
        (["--camera", "wrst"], "Did you mean wrist?"),
        (["--episodes", "0:10"], "--episodes"),
        (["--episodes", "7"], "--episodes"),
        (["--episodes", "first"], "--episodes"),
        (["--instruction", " "], "--instruction must say"),
        (["--device", "cuda"], "--device cuda: PyTorch"),
        (["--device", "abacus"], "--device 'abacus' is no device"),
        (["--dtype", "int8"], "--dtype must be auto, float32, bfloat16 or float16; got 'int8'"),
        (["--quantize", "2bit"], "--quantize must be 4bit or 8bit; got '2bit'"),
        (["--prefixes", "0"], "--prefixes must be 'every' or a number >= 1; got 0"),
        (["--prefixes", "some"], "--prefixes"),
        (["--horizon", "0"], "--horizon must be > 0; got 0.0"),
        (["--sample-fps", "-1"], "--sample-fps must be > 0"),
        (["--vlm", "builtin:nothing"], "the built-in one is builtin:so101-demo"),
        (["--vlm", "/nowhere/at/all"], "neither a folder here nor a Hub id"),
        (["--config", "papr"], "presets: "),
        (["--push-to-hub"], "--push-to-hub needs --hub-repo-id"),
        (["--push-to-hub", "--write", "sidecar"], "--push-to-hub uploads columns and sidecar"),
        (["--in-place", "--output", "x"], "--in-place writes into the local --root"),
        (["--revision", "main"], "--revision"),
        (["--camra", "front"], "--camera"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_met(
    refused: Callable[..., str],
    dataset: Path,
    tiny_vlm: Path,
    options: list[str],
    expected: str,
) -> None:
    if torch.cuda.is_available() and "cuda" in options:
        pytest.skip("there is a GPU here")
    given = ["--vlm", str(tiny_vlm)] if "--vlm" not in options else []
    assert expected in refused("label", "--root", dataset, *given, *options)


def test_a_folder_that_is_no_dataset(refused: Callable[..., str], tmp_path: Path) -> None:
    assert str(tmp_path) in refused("label", "--root", tmp_path)
    assert "Give --repo-id" in refused("label")


def test_an_old_dataset_is_told_how_to_convert(
    refused: Callable[..., str], record_dataset: RecordDataset
) -> None:
    root = record_dataset(lengths=(4,), cameras=("front",))
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    said = refused("label", "--root", root)
    assert "convert_dataset_v21_to_v30" in said


def test_an_output_folder_that_is_not_ours(
    refused: Callable[..., str], dataset: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    said = refused("label", "--root", dataset, "--vlm", tiny_vlm, "--output", tmp_path)
    assert "is not empty" in said
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_vlm_of_another_architecture(
    refused: Callable[..., str], dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    said = refused("label", "--root", dataset, "--vlm", tmp_path)
    assert "is a 'llava' model; scoring needs qwen3_vl or qwen3_vl_moe" in said


def test_pickled_weights(
    refused: Callable[..., str], dataset: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    for path in tiny_vlm.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    said = refused("label", "--root", dataset, "--vlm", tmp_path)
    assert "has no .safetensors files" in said


def test_an_answer_that_is_not_one_token(
    refused: Callable[..., str], dataset: Path, tmp_path: Path
) -> None:
    folder = build_tiny_vlm(tmp_path / "vlm", config=TinyConfig(vocab=265))
    said = refused("label", "--root", dataset, "--vlm", folder, "--output", tmp_path / "out")
    assert "the answer ' True' is" in said


def test_too_little_memory_names_what_would_fit(
    refused: Callable[..., str],
    dataset: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lerobot_topreward.vlm.loading, "available_bytes", lambda *_: 1000)
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", tmp_path / "out")
    assert "and 0.0 GB are free; no published Qwen3-VL" in refused("label", *options)


def test_the_chosen_checkpoint_is_named_before_it_is_looked_for(
    refused: Callable[..., str], dataset: Path, tmp_path: Path
) -> None:
    options = ("--root", dataset, "--output", tmp_path / "out", "--device", "cpu")
    said = refused("label", *options, "--vlm", "auto")
    assert "'Qwen/Qwen3-VL-2B-Instruct'" in said
    assert refused("label", *options, "--config", "laptop").strip() in said


def test_memory_is_counted_in_the_dtype_asked_for() -> None:
    big = VlmIdentity("Qwen/Qwen3-VL-8B-Instruct", "main", "bfloat16", None, None)
    stored = 17_500_000_000
    assert needed_bytes(big, stored=stored, stored_dtype="bfloat16") == stored
    wide = VlmIdentity(big.name, "main", "float32", None, None)
    assert needed_bytes(wide, stored=stored, stored_dtype="bfloat16") == 2 * stored
    packed = VlmIdentity(big.name, "main", "bfloat16", "4bit", None)
    assert needed_bytes(packed, stored=stored, stored_dtype="bfloat16") < stored / 2
    require_memory(big, needed=stored, available=24_000_000_000)
    with pytest.raises(
        UserError, match=r"needs 17.5 GB .* 12.0 GB are free; `vlm=Qwen/Qwen3-VL-4B"
    ):
        require_memory(big, needed=stored, available=12_000_000_000)


def test_a_full_disk_keeps_what_was_scored(
    dataset: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    write = pq.write_table

    def fill_up(table: pa.Table, path: Path, **options: Any) -> None:
        if "episode_000001" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(pq, "write_table", fill_up)
    options = ("--root", dataset, "--vlm", tiny_vlm, "--camera", "front", "--output", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    assert stopped.value.code == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "is full; every episode scored so far is kept. Make room and run the same" in said
    assert len(list(tmp_path.glob("topreward/*/episode_000000.parquet"))) == 1


def test_an_unknown_command(refused: Callable[..., str]) -> None:
    assert "there is no command 'lable'; did you mean label?" in refused("lable")


def test_a_preset_with_an_unknown_option(
    refused: Callable[..., str], dataset: Path, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("horizn: 2\n")
    said = refused("label", "--root", dataset, "--config", preset)
    assert "mine.yaml: horizn is no option; did you mean horizon?" in said
