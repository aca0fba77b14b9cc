"""Checkpoints of other versions and of strangers are resumed, or refused with what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lerobot_topreward.cli import main
from lerobot_topreward.train.config import WeightingConfig, from_params
from lerobot_topreward.train.schemes import Awr, Filter

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_process")]


def run(*options: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *options])
    return int(stopped.value.code or 0)


@pytest.fixture
def checkpoint(
    record_dataset: RecordDataset, write_labels: WriteLabels, tmp_path: Path
) -> Callable[..., Path]:
    """Train for a step, and return the configuration that was saved."""

    def train(*options: str) -> Path:
        # By which a run of today would choose another baseline.
        recorded = record_dataset(lengths=(12, 9), cameras=(), environment_state=3)
        root = write_labels(recorded, normalize="task")
        output = tmp_path / "run"
        small = (
            *(f"--dataset.root={root}", "--dataset.repo_id=local/x", f"--output_dir={output}"),
            *("--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false"),
            *("--policy.chunk_size=4", "--policy.n_action_steps=4", "--policy.dim_model=16"),
            *("--policy.n_heads=2", "--policy.dim_feedforward=16", "--policy.n_encoder_layers=1"),
            *("--policy.n_vae_encoder_layers=1", "--batch_size=4", "--steps=1", "--num_workers=0"),
        )
        assert run(*small, *options) == 0
        return output / "checkpoints/last/pretrained_model/train_config.json"

    return train


def change_params(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace the options of the weighting in a saved configuration."""
    config = json.loads(path.read_text())
    config["sample_weighting"]["extra_params"] = change(config["sample_weighting"]["extra_params"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        pytest.param((), Awr(baseline="mean", discount=None), id="awr"),
        pytest.param(
            ("--weighting.scheme=filter", "--weighting.quantile=0.5"),
            Filter(quantile=0.5),
            id="filter",
        ),
    ],
)
def test_an_older_checkpoint_goes_on_as_it_was_trained(
    checkpoint: Callable[..., Path], options: tuple[str, ...], scheme: Any
) -> None:
    """It says nothing of the options that came later, and their defaults may be others by now."""
    path = checkpoint(*options)
    later = {"apply", "stationary", "baseline", "discount"}
    if isinstance(scheme, Awr):
        later.add("horizon")  # which was saved, but unset
    change_params(path, lambda p: {name: value for name, value in p.items() if name not in later})
    assert run("--resume=true", f"--config_path={path}", "--steps=2") == 0
    resumed = path.parents[2] / "last/pretrained_model/train_config.json"
    params = json.loads(resumed.read_text())["sample_weighting"]["extra_params"]
    assert from_params(params) == WeightingConfig(scheme=scheme, apply="loss", stationary="keep")


def test_a_damaged_checkpoint(
    checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture
) -> None:
    path = checkpoint()
    saved = json.loads(path.read_text())["sample_weighting"]["extra_params"]
    for damage, said in (
        ({"apply": 5}, "weighting.apply must be loss or sampling; got 5"),
        ({"stationary": None}, "weighting.stationary must be auto, keep or drop; got nothing"),
        ({"baseline": ["stage"]}, "weighting.baseline must be auto, mean or stage; got ['stage']"),
        ({"horizon": {"a": 1}}, "weighting.horizon must be episode or a finite number; got"),
        ({"horizon": 1e308}, "weighting.horizon must be 0..1e+15; got 1e+308"),
        ({"discount": "x" * 10_000}, "weighting.discount must be a finite number; got 'xxxx"),
        ({"scheme": 3}, "weighting.scheme must be awr, top-awr, rabc, filter or uniform; got 3"),
        ({"__class__": 1}, "weighting.__class__ is no option"),
        (None, "extra_params"),
        (3, "extra_params"),
    ):
        change_params(path, lambda _, d=damage: saved | d if isinstance(d, dict) else d)
        capfd.readouterr()
        code = run("--resume=true", f"--config_path={path}", "--steps=2")
        printed = capfd.readouterr().err
        assert code == 2, damage
        assert said in printed, printed
        assert "Traceback" not in printed
        assert len(printed) < 2000
