"""A reward that cannot judge a dataset weights none of its frames unasked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from provenance import provenance

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns

RecordDataset = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("kept_process")


def run(root: Path, output: Path, *options: str) -> int:
    arguments = (
        *(f"--dataset.root={root}", "--dataset.repo_id=local/x", f"--output_dir={output}"),
        *("--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false"),
        *("--policy.chunk_size=4", "--policy.n_action_steps=4", "--policy.dim_model=16"),
        *("--policy.n_heads=2", "--policy.dim_feedforward=16", "--policy.n_encoder_layers=1"),
        *("--policy.n_vae_encoder_layers=1", "--batch_size=4", "--steps=1", "--num_workers=0"),
    )
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments, *options])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def judged(record_dataset: RecordDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes whose scores lie within 0.05 nats."""
    root = record_dataset(lengths=(12, 9, 10, 11, 12, 9), cameras=(), environment_state=3)
    source = open_source(repo_id=None, root=root, revision=None)
    frames = source.frames
    noise = np.random.default_rng(0).uniform(0, 1, len(frames.index)).astype(np.float32)
    rewards = FrameRewards(
        index=frames.index,
        episode_index=frames.episode_index,
        frame_index=frames.frame_index,
        labelled=np.ones(len(noise), dtype=bool),
        log_prob_true=-5 + 0.05 * noise,
        log_prob_false=np.full(len(noise), -1, dtype=np.float32),
        progress=noise,
        advantage=noise - np.float32(0.5),
        scored=np.ones(len(noise), dtype=bool),
    )
    output = tmp_path_factory.mktemp("judged") / "dataset"
    write_columns(
        root,
        rewards,
        output,
        fingerprint=source.fingerprints.dataset,
        provenance=provenance(dataset=source.repo_id),
    )
    return output


@pytest.mark.slow
def test_a_reward_of_noise_weights_nothing_unless_forced(
    judged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(judged, tmp_path / "run") == 2
    printed = capfd.readouterr()
    assert "this reward: cannot judge this dataset" in printed.out
    said = " ".join(printed.err.split())
    assert "--weighting.scheme=awr weights by a reward that cannot judge this dataset" in said
    assert "makes progress of noise" in said
    assert "--force-weights uses it all the same" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
    # What it would do can be looked at, and plain behavior cloning needs no reward.
    assert run(judged, tmp_path / "run", "--dry-run") == 0
    assert run(judged, tmp_path / "plain", "--weighting.scheme=uniform") == 0
    assert "this reward" not in capfd.readouterr().out.partition("uniform:")[2]
    assert run(judged, tmp_path / "run", "--force-weights") == 0
    assert (tmp_path / "run/checkpoints/last").exists()


def test_labels_from_elsewhere_are_not_judged(
    judged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sidecar = judged / "topreward_progress.parquet"
    assert run(judged, tmp_path / "run", f"--weighting.sidecar={sidecar}", "--dry-run") == 0
    assert "the reward was not judged: --weighting.sidecar=" in capfd.readouterr().out
