"""A run that is tracked with wandb has the table and the picture of its weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from PIL import Image

from lerobot_topreward.cli import main

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_process")]


def test_the_table_and_the_picture_are_logged_once(
    record_dataset: RecordDataset,
    write_labels: WriteLabels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    root = write_labels(record_dataset(lengths=(12, 9), cameras=(), environment_state=3))
    output = tmp_path / "run"
    options = [
        *("--policy.type=act", "--policy.dim_model=16", "--policy.n_heads=2"),
        *("--policy.dim_feedforward=16", "--policy.chunk_size=4", "--policy.n_action_steps=4"),
        *("--policy.device=cpu", "--policy.push_to_hub=false", "--dataset.repo_id=local/x"),
        *(f"--dataset.root={root}", f"--output_dir={output}", "--batch_size=4", "--steps=3"),
        *("--log_freq=1", "--num_workers=0", "--wandb.enable=true", "--wandb.mode=offline"),
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *options])
    assert stopped.value.code == 0, capfd.readouterr()
    wandb.finish()
    (files,) = (output / "wandb").glob("offline-run-*/files/media")
    (table,) = files.glob("table/weighting/*.json")
    logged = dict(json.loads(table.read_text())["data"])
    assert (
        logged["weights"] == "awr: progress over 4 frames (0.4 s); frames are drawn by their weight"
    )
    assert logged["frames"] == "21 in 2 episodes"
    assert "by sampling" in logged["a batch of 4 is worth"]
    assert "--weighting.horizon" in logged["warning"]
    (picture,) = files.glob("images/weighting/*.png")
    with Image.open(picture) as image:
        assert image.size == (960, 540)
