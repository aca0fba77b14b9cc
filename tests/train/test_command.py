"""Runs of `lerobot-topreward train`, beside those of LeRobot's own command."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.scripts import lerobot_train
from programs import start_python
from safetensors.torch import load_file

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.storage.weights import read_weights
from lerobot_topreward.train.config import WeightingConfig, from_params
from lerobot_topreward.train.schemes import Awr
from lerobot_topreward.train.trainer_config import trainer_arguments, training_episodes

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("kept_process")

ACT = (
    *("--policy.type=act", "--policy.dim_model=16", "--policy.n_heads=2", "--policy.latent_dim=4"),
    *(
        "--policy.dim_feedforward=16",
        "--policy.n_encoder_layers=1",
        "--policy.n_vae_encoder_layers=1",
    ),
    *("--policy.chunk_size=4", "--policy.n_action_steps=4"),
)
DIFFUSION = (
    *("--policy.type=diffusion", "--policy.down_dims=[8,16]", "--policy.n_groups=4"),
    *("--policy.diffusion_step_embed_dim=8", "--policy.horizon=4", "--policy.n_action_steps=2"),
    "--policy.drop_n_last_frames=1",
)
SMALL = (
    *("--policy.device=cpu", "--policy.push_to_hub=false", "--dataset.repo_id=local/x"),
    *("--batch_size=4", "--steps=3", "--log_freq=1", "--num_workers=0"),
)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=(12, 9, 10), cameras=(), environment_state=3, tasks=("pick", "place")
    )


def run(*options: str | Path) -> int:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, options)])
    return int(stopped.value.code or 0)


def on(root: Path, output: Path, *options: str) -> tuple[str, ...]:
    return (f"--dataset.root={root}", f"--output_dir={output}", *SMALL, *options)


def saved(output: Path, step: str = "last") -> Path:
    return output / "checkpoints" / step / "pretrained_model"


def parameters(output: Path, step: str = "last") -> dict[str, torch.Tensor]:
    return load_file(saved(output, step) / "model.safetensors")


def weighting_of(output: Path) -> WeightingConfig:
    config = json.loads((saved(output) / "train_config.json").read_text())
    assert config["sample_weighting"]["type"] == "topreward"
    return from_params(config["sample_weighting"]["extra_params"])


def stock(*options: str) -> None:
    """Train with LeRobot's own command."""
    train: Any = lerobot_train.train
    with trainer_arguments(options):
        train()


def assert_same_parameters(ours: Path, stocks: Path, *, moved: float) -> None:
    found, expected = parameters(ours), parameters(stocks)
    assert found.keys() == expected.keys()
    largest = max(float((found[name] - expected[name]).abs().max()) for name in found)
    assert largest < 0.01 * moved, largest


def test_act_is_trained_to_a_stock_checkpoint_that_resumes(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root, output = write_labels(recorded), tmp_path / "run"
    # The two forms that LeRobot's parser takes, for ours as well.
    form = ("--weighting.scheme=awr", "--weighting.apply=loss", "--weighting.beta", "0.7")
    options = on(root, output, *ACT, *form)
    assert run(*options) == 0
    printed = capfd.readouterr()
    assert "awr: progress over 4 frames (0.4 s)" in printed.out
    assert "--normalize task" in " ".join(printed.out.split())  # labels that do not say how
    assert "effective sample size" in printed.out
    assert "sample_weight_mean_weight:" in printed.err
    assert json.loads((saved(output) / "config.json").read_text())["type"] == "act"
    assert type(ACTPolicy.from_pretrained(saved(output))) is ACTPolicy
    scheme = Awr(beta=0.7, baseline="mean")
    assert weighting_of(output) == WeightingConfig(scheme=scheme, apply="loss", stationary="keep")
    before = parameters(output)

    resume = ("--resume=true", f"--config_path={saved(output) / 'train_config.json'}")
    assert run(*resume, "--steps=5") == 0
    assert weighting_of(output) == WeightingConfig(scheme=scheme, apply="loss", stationary="keep")
    assert "--normalize task" not in " ".join(capfd.readouterr().out.split())
    assert "not as in the checkpoint" not in capfd.readouterr().out
    assert any(not torch.equal(parameters(output)[name], before[name]) for name in before)

    assert run(*resume, "--steps=6", "--weighting.w_max=3", "--weighting.horizon=0.2") == 0
    printed = capfd.readouterr()
    assert "not as in the checkpoint: w_max 3.0, 20.0 before" in printed.out
    assert "not as in the checkpoint: horizon 0.2, unset before" in printed.out
    scheme = replace(scheme, w_max=3, horizon=0.2)
    assert weighting_of(output) == WeightingConfig(scheme=scheme, apply="loss", stationary="keep")


def test_frames_are_drawn_by_their_weight_and_again_when_resumed(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root, output = write_labels(recorded), tmp_path / "run"
    options = ("--weighting.scheme=filter", "--weighting.by=advantage", "--weighting.quantile=0.5")
    assert run(*on(root, output, *ACT, *options)) == 0  # by default
    printed = capfd.readouterr()
    assert "filter: progress over 4 frames (0.4 s); frames are drawn by their weight" in printed.out
    assert "a batch of 4 is worth" in printed.out
    assert "sample_weight_share_zero:0.000" in printed.err
    assert weighting_of(output).apply == "sampling"

    resume = ("--resume=true", f"--config_path={saved(output) / 'train_config.json'}")
    assert run(*resume, "--steps=5", "--weighting.scheme=awr") == 0
    expected = WeightingConfig(scheme=Awr(baseline="mean"), apply="sampling", stationary="keep")
    assert weighting_of(output) == expected
    assert "not as in the checkpoint: scheme awr, filter before" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("policy", [ACT, DIFFUSION], ids=["act", "diffusion"])
def test_uniform_weights_train_as_stock_does(
    recorded: Path, tmp_path: Path, policy: tuple[str, ...]
) -> None:
    ours, stocks = tmp_path / "ours", tmp_path / "stock"
    # An unlabelled dataset: plain behavior cloning needs no labels.
    assert run(*on(recorded, ours, *policy, "--weighting.scheme=uniform")) == 0
    stock(*on(recorded, stocks, *policy))
    start = tmp_path / "start"
    stock(*on(recorded, start, *policy, "--steps=1", "--policy.optimizer_lr=0"))
    moved = max(
        float((parameters(stocks)[name] - parameters(start)[name]).abs().max())
        for name in parameters(stocks)
    )
    assert moved > 0
    assert_same_parameters(ours, stocks, moved=moved)


@pytest.mark.slow
def test_weights_change_what_is_learned(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path
) -> None:
    root = write_labels(recorded)
    for name, scheme in (("awr", "awr"), ("uniform", "uniform")):
        assert run(*on(root, tmp_path / name, *DIFFUSION, f"--weighting.scheme={scheme}")) == 0
    config = json.loads((saved(tmp_path / "awr") / "config.json").read_text())
    assert config["type"] == "diffusion"
    with pytest.raises(AssertionError):
        assert_same_parameters(tmp_path / "awr", tmp_path / "uniform", moved=1e-5)


@pytest.mark.slow
def test_a_stock_checkpoint_is_fine_tuned_with_weights(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = write_labels(recorded, normalize="task")
    stock(*on(root, tmp_path / "stock", *ACT))
    path = f"--policy.path={saved(tmp_path / 'stock')}"
    # A preset for training from scratch does not get in the way.
    options = ("--config=act_so101", path, "--policy.n_action_steps=2", "--policy.chunk_size=4")
    assert run(*on(root, tmp_path / "tuned", *options)) == 0
    config = json.loads((saved(tmp_path / "tuned") / "config.json").read_text())
    assert (config["dim_model"], config["n_action_steps"]) == (16, 2)
    # The preset leaves the baseline to the labels, and the checkpoint says what that came to.
    assert "default for labels that are normalized per task" in capfd.readouterr().out
    weighting = weighting_of(tmp_path / "tuned")
    assert weighting.scheme == Awr(baseline="stage", horizon="episode")
    assert weighting.stationary == "drop"


@pytest.mark.slow
def test_a_streamed_dataset(recorded: Path, write_labels: WriteLabels, tmp_path: Path) -> None:
    root, output = write_labels(recorded), tmp_path / "run"
    options = ("--dataset.streaming=true", "--num_workers=1")
    assert run(*on(root, output, *ACT), *options) == 0
    assert saved(output).is_dir()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path
) -> None:
    root, output = write_labels(recorded), tmp_path / "run"
    options = on(root, output, *ACT, "--steps=100000", "--save_freq=2")
    command = ("-m", "lerobot_topreward", "train", *options)
    with start_python(*command, takes_ctrl_c=True) as program:
        while program.process.poll() is None and not saved(output, "000004").is_dir():
            time.sleep(0.05)
        program.process.send_signal(signal.SIGINT)
        ran = program.read()
    assert ran.returncode == 130, ran.stderr
    config = saved(output) / "train_config.json"
    assert f"lerobot-topreward train --resume=true --config_path={config}" in ran.stdout


def test_a_dry_run_starts_nothing(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root, output = write_labels(recorded), tmp_path / "run"
    options = on(root, output, *ACT, "--dataset.episodes=[2,0]")
    assert run(*options, "--dry-run") == 0
    printed = capfd.readouterr().out
    assert "22 in 2 episodes" in printed
    picture = tmp_path / "run_weights.png"
    assert str(picture) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = picture.with_suffix(".parquet")
    command = f"lerobot-topreward report --root {root} --weights {table}"
    assert command in printed
    fingerprint = open_source(repo_id=None, root=root, revision=None).fingerprints.dataset
    found = read_weights(table, fingerprint=fingerprint, frames=31)
    assert found.index.tolist() == [*range(12), *range(21, 31)]  # of the episodes trained on
    assert found.weight.mean() == pytest.approx(1)
    assert found.title in printed
    assert not output.exists()
    output.mkdir()
    assert run(*options, "--dry_run=true") == 0
    assert list(output.iterdir()) == []


def test_a_partly_labeled_dataset_needs_one_option(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    options = on(write_labels(recorded, unlabelled=[1]), tmp_path / "run", *ACT, "--dry-run")
    assert run(*options) == 2
    option = capfd.readouterr().err.partition("error: ")[2].split()[0]
    assert run(*options, option) == 0
    assert "whole episodes: 1" in capfd.readouterr().out


def test_only_the_main_process_prints(
    recorded: Path,
    write_labels: WriteLabels,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    options = on(write_labels(recorded), tmp_path / "run", *ACT)
    assert run(*options, "--dry-run") == 0
    assert run(*options, "--dry-run", "--weighting.beta=0") == 2
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_held_out_episodes_are_lerobots(recorded: Path) -> None:
    source = open_source(repo_id=None, root=recorded, revision=None)
    policy = ACTConfig(device="cpu", push_to_hub=False)
    for episodes in (None, [2, 0]):
        config = DatasetConfig(
            repo_id="local/x", root=str(recorded), eval_split=0.4, episodes=episodes
        )
        lerobots: Any = make_train_eval_datasets(TrainPipelineConfig(config, policy=policy))
        assert training_episodes(source, config) == lerobots[0].episodes
    config = DatasetConfig(repo_id="local/x", root=str(recorded), episodes=[2, 0])
    assert training_episodes(source, config) == [2, 0]


def test_the_paper_preset_is_the_papers(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    scoring = {"instruction": None, "sample_fps": 2.0, "final_frame": False, "prefixes": 15}
    root = write_labels(recorded, scoring=scoring)
    assert run(*on(root, tmp_path / "run", *ACT), "--config", "paper", "--dry-run") == 0
    assert "top-awr: progress from one scored prefix to the next" in capfd.readouterr().out
