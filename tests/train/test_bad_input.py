import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.scripts import lerobot_train

from lerobot_topreward.cli import main
from lerobot_topreward.config import load_preset
from lerobot_topreward.errors import UserError

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("kept_process")

ACT = ("--policy.type=act", "--policy.chunk_size=4", "--policy.n_action_steps=4")
CPU = ("--policy.device=cpu", "--policy.push_to_hub=false")
FRAMES = 21


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(12, 9), cameras=(), environment_state=3)


@pytest.fixture
def refused(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """Run the command, expect exit code 2 before training starts, and return what it said."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("training started")

    monkeypatch.setattr(lerobot_train, "make_train_eval_datasets", never)
    monkeypatch.chdir(tmp_path)

    def run(root: Path | None, *options: str, policy: tuple[str, ...] = ACT) -> str:
        dataset = () if root is None else ("--dataset.repo_id=local/x", f"--dataset.root={root}")
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["train", *dataset, *policy, *CPU, *options])
        said = capfd.readouterr()
        assert stopped.value.code == 2, said
        assert "Traceback" not in said.err
        assert "usage:" not in said.err
        message = said.err[said.err.index("error: ") :].strip()
        assert len(message.splitlines()) <= 2
        assert not (tmp_path / "outputs").exists()
        return message

    return run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--weighting.scheme=awrr"], "rabc, filter or uniform; got 'awrr'. Did you mean awr?"),
        (["--weighting.betta=1"], "--weighting.betta is no option; did you mean --weighting.beta?"),
        (["--weighting.beta=0"], "--weighting.beta must be > 0; got 0"),
        (["--weighting.beta=-1"], "--weighting.beta must be > 0; got -1"),
        (["--weighting.beta=warm"], "--weighting.beta must be a finite number; got 'warm'"),
        (["--weighting.scheme=filter"], "must have one of --weighting.threshold and"),
        (
            ["--weighting.scheme=filter", "--weighting.threshold=-1e-6"],
            "all 21 frames weigh nothing, so nothing would be learned; lower --weighting.threshold",
        ),
        (["--weighting.horizon=0.01"], "--weighting.horizon must be at least one frame, 0.1 s"),
        (
            ["--weighting.apply=sampling", "--weighting.normalize=batch"],
            "--weighting.normalize=batch scales the losses of a batch, which --weighting.apply=",
        ),
        (
            ["--weighting.apply=sampling", "--dataset.streaming=true", "--num_workers=1"],
            "streamed does not allow; leave out --dataset.streaming, or use --weighting.apply=loss",
        ),
        (["--weighting.apply=draw"], "--weighting.apply must be loss or sampling; got 'draw'"),
        (["--weighting.sidecar=/nowhere.parquet"], "there is no /nowhere.parquet"),
        (["--weigthing.beta=1"], "did you mean --weighting.beta?"),
        (["--polcy.type=act"], "lerobot-train: unrecognized arguments: --polcy.type=act"),
        (["--policy.chunk_size=x"], "Couldn't parse 'x' into an int"),
        (["--policy.chunk_size=2"], "The chunk size is the upper bound"),
        (["--steps"], "argument --steps: expected one argument"),
        (["--policy.path=/nowhere", "--policy.type=act"], "Cannot specify both --policy.path"),
        (["--policy.discover_packages_path=nowhere"], "Failed to load plugin 'nowhere'"),
        (
            ["--policy.discover_packages_path=lerobot_topreward.policies"],
            "is for lerobot-train; leave it out",
        ),
        (["--dry-run", "--output_dir=/proc/run"], "/proc/run_weights.png cannot be written"),
        (["--config_path=/nowhere.json"], "No such file or directory: '/nowhere.json'"),
        (["--resume=true"], "A config_path is expected when resuming"),
        (["--job.target=a10g-small"], "--job.target=a10g-small runs LeRobot's own trainer"),
        (["--sample_weighting.type=rabc", "--weighting.beta=1"], "is LeRobot's own weighting"),
        (["--sample_weighting.type=rabc"], "is LeRobot's own weighting"),
        (["--dataset.streaming=true", "--num_workers=0"], "needs --num_workers=1 or more; got 0"),
        (["--dataset.repo_type=bucket", "--dataset.streaming=true"], "cannot be weighted"),
        (["--dataset.episodes=[7]"], "[7] has no frames; the dataset has episodes 0..1"),
        (["--dataset.eval_split=2"], "eval_split must be in [0.0, 1.0), got 2.0"),
        (["--policy.push_to_hub=true"], "'repo_id' argument missing"),
        (["--config=papr"], "presets: act_so101, diffusion_so101, laptop, paper"),
        (["--config=paper", "--weighting.scheme=awr"], "--weighting.span is an option of top-awr"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_met(
    refused: Callable[..., str],
    recorded: Path,
    write_labels: WriteLabels,
    options: list[str],
    expected: str,
) -> None:
    assert expected in refused(write_labels(recorded), *options)


def test_an_unlabelled_dataset_is_told_the_label_command(
    refused: Callable[..., str], recorded: Path
) -> None:
    assert f"lerobot-topreward label --root {recorded}" in refused(recorded)


def test_episodes_without_labels(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels
) -> None:
    said = refused(write_labels(recorded, unlabelled=[1]))
    assert "9 of 21 frames have no reward label, in 1 of 2 episodes (1)" in said
    assert said.startswith("error: --weighting.unlabelled_weight=0 trains on the labeled frames")


def test_a_stale_sidecar(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded)
    rewrite(root, "action", np.zeros((FRAMES, 6)))
    said = refused(root, "--weighting.source=sidecar")
    assert "topreward_progress.parquet is stale" in said
    assert "record that into local/dataset and label local/dataset again" in said
    assert "--weighting.source=columns" in said


def test_columns_of_an_earlier_version(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded, sidecar=False)
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    del info["features"]["topreward.scored"]
    path.write_text(json.dumps(info))
    (path,) = root.glob("data/*/*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["topreward.scored"]), path)
    options = ("--weighting.scheme=top-awr", "--weighting.span=prefix")
    assert "--weighting.span=prefix must know" in refused(root, *options)


def test_columns_and_sidecar_that_disagree(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded)
    rewrite(root, "topreward.progress", np.zeros(FRAMES))
    said = refused(root)
    assert "disagree: progress of 21 frames, first frame 0 of episode 0" in said
    assert "--weighting.source=sidecar or --weighting.source=columns" in said


def rewrite(root: Path, name: str, values: np.ndarray) -> None:
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    field = table.schema.field(name)
    column = pa.array(list(values), type=field.type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), field, column), path)


def test_a_policy_without_a_loss_per_sample(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded)
    said = refused(root, "--weighting.apply=loss", policy=("--policy.type=vqbet",))
    assert "--policy.type 'vqbet' has no per-sample loss" in said
    assert "act, diffusion" in said


def test_an_output_folder_that_exists(
    refused: Callable[..., str], recorded: Path, write_labels: WriteLabels, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    said = refused(write_labels(recorded), f"--output_dir={output}")
    assert f"Output directory {output} already exists" in said
    assert "--resume=true" in said


def test_a_dataset_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    assert f"--dataset.root {tmp_path} must hold a LeRobot dataset" in refused(tmp_path)
    said = refused(None, "--dataset.repo_id=nobody/nothing")
    assert "--dataset.repo_id 'nobody/nothing'" in said
    assert "Missing required field(s) --dataset" in refused(None)


def test_a_flat_preset_is_not_for_training(
    refused: Callable[..., str], recorded: Path, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.yaml"
    for text, expected in (
        ("steps: 3\n", "must have a section 'train:'"),
        ("label:\n  prefixes: 4\n", "has no section 'train'; it is for: label"),
        ("train: 3\n", "section 'train' must be a mapping"),
        ("train: {}\nsteps: 3\n", "train, serve-args, demo there can be no options; got steps"),
        ("train:\n  weighting: awr\n", "'weighting:' must be a mapping"),
    ):
        preset.write_text(text)
        assert expected in refused(recorded, f"--config={preset}")


def test_presets_have_sections_for_the_commands(tmp_path: Path) -> None:
    assert load_preset("paper", section="label")["prefixes"] == 15
    assert load_preset("paper", section="train")["weighting"]["scheme"] == "top-awr"
    assert load_preset("laptop", section="label")["vlm"] == "Qwen/Qwen3-VL-2B-Instruct"
    with pytest.raises(UserError, match="act_so101 has no section 'label'; it is for: train"):
        load_preset("act_so101", section="label")
    preset = tmp_path / "mine.yaml"
    preset.write_text("sample-fps: 4\n")
    assert load_preset(str(preset), section="label") == {"sample_fps": 4}
    preset.write_text("label: {sample-fps: 4}\ndemo: {}\n")
    assert load_preset(str(preset), section="label") == {"sample_fps": 4}
    assert load_preset(str(preset), section="demo") == {}


@pytest.mark.parametrize("package", ["diffusers", "wandb"])
def test_what_is_not_installed(
    refused: Callable[..., str],
    recorded: Path,
    write_labels: WriteLabels,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    options = {
        "diffusers": ("--policy.type=diffusion", "--policy.drop_n_last_frames=1"),
        "wandb": (*ACT, "--wandb.enable=true"),
    }
    said = refused(write_labels(recorded), policy=options[package])
    assert "pip install 'lerobot-topreward[train]'" in said
    assert package in said


def test_training_that_cannot_go_on(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = write_labels(recorded, sidecar=False)
    rewrite(root, "action", np.full((FRAMES, 6), np.nan))
    options = (*ACT, "--policy.dim_model=16", "--policy.n_heads=2", "--policy.dim_feedforward=16")
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("train", "--dataset.repo_id=local/x", f"--dataset.root={root}", *options),
                *(*CPU, "--batch_size=2", "--num_workers=0", "--steps=2"),
                f"--output_dir={tmp_path / 'run'}",
            ]
        )
    assert stopped.value.code == 1
    printed = capfd.readouterr()
    assert "training stopped: step 1: the loss of these frames is NaN or infinite" in printed.out
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_video_that_is_missing(
    record_dataset: RecordDataset, write_labels: WriteLabels, refused: Callable[..., str], dry: Any
) -> None:
    recorded = record_dataset(lengths=(6, 5, 4), cameras=("front", "wrist"), file_per_episode=True)
    root = write_labels(recorded)
    [lost] = (root / "videos/observation.images.wrist").glob("*/file-001.mp4")
    lost.unlink()
    said = refused(root, *dry)
    assert (
        f"the dataset is incomplete: {lost} is missing. Restore it, or leave its episodes" in said
    )
    assert str(lost) in refused(root, *dry, "--dataset.episodes=[1,2]")
    dataset = ("--dataset.repo_id=local/x", f"--dataset.root={root}")
    with pytest.raises(SystemExit) as done:
        main(["train", *dataset, *ACT, *CPU, "--dataset.episodes=[0,2]", "--dry-run"])
    assert done.value.code == 0
