import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.publish.card import CardFacts, card_section
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.rewards import Formula, label_rewards, make_curves
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, read_sidecar
from lerobot_topreward.vlm.identity import BUILTIN

RecordDataset = Callable[..., Path]


def run(*options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


def reopen(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def scored(
    curve: Sequence[float], *, episode: int = 0, start: int = 0, control: str = "none"
) -> PrefixScores:
    log_prob = np.array(curve, dtype=np.float32)
    return PrefixScores(
        segment=Segment(episode, start, len(curve), "pick up the cube"),
        control=control,
        prefix_length=np.arange(1, len(curve) + 1),
        frame_index=start + np.arange(len(curve)),
        log_prob_true=log_prob,
        log_prob_false=np.full_like(log_prob, -1),
    )


LESS_STATIC = Formula(debias="static")
REAL = [scored([-9, -7, -5, -2]), scored([-8, -6, -5, -5], episode=1)]
STATIC = [
    scored([-8, -6, -5, -5], episode=1, control="static"),
    scored([-9, -8, -8, -8], control="static"),
]


def test_the_static_curve_is_subtracted() -> None:
    debiased = make_curves(REAL, LESS_STATIC, STATIC)
    assert [curve.tolist() for curve in debiased] == [[0, 1, 3, 6], [0, 0, 0, 0]]


def test_every_segment_needs_its_own_static_curve() -> None:
    with pytest.raises(ValueError, match="episode 1 must have a static curve"):
        make_curves(REAL, LESS_STATIC, STATIC[1:])
    short = replace(STATIC[1], prefix_length=np.array([1, 2, 3, 5]))
    with pytest.raises(ValueError, match="episode 0 must have a static curve of the same prefixes"):
        make_curves(REAL, LESS_STATIC, [STATIC[0], short])


def test_progress_is_debiased_and_log_probs_stay_raw() -> None:
    frames = np.repeat([0, 1], 4)
    rewards = label_rewards(REAL, frames, horizon=1, formula=LESS_STATIC, controls=STATIC)
    first, second = rewards.episode(0), rewards.episode(1)
    assert first.progress.tolist() == pytest.approx([0, 1 / 6, 3 / 6, 1])
    assert first.advantage.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 3 / 6])
    assert first.log_prob_true.tolist() == [-9, -7, -5, -2]
    assert second.log_prob_true.tolist() == [-8, -6, -5, -5]
    assert second.progress.tolist() == [1, 1, 1, 1]  # a constant, as everywhere
    each = label_rewards(
        REAL,
        frames,
        horizon=1,
        formula=LESS_STATIC,
        controls=STATIC,
        normalize="task",
        quantiles=(0.0, 1.0),
    )
    # Time alone made all of the second curve, and its task says so.
    assert each.episode(1).progress.tolist() == [0, 0, 0, 0]
    assert each.episode(0).progress.tolist() == pytest.approx([0, 1 / 6, 3 / 6, 1])


def test_probabilities_are_not_debiased(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="log-probabilities are debiased"):
        Formula("prob", "static")
    assert run("--root", DATASET, "--debias", "static", "--scale", "prob") == 2
    assert "--debias static subtracts log-probs, which --scale prob" in capfd.readouterr().err


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(31, 18, 25), cameras=("front",))


@pytest.mark.slow
def test_labels_are_debiased_and_made_again_without_the_vlm(
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    output = tmp_path / "labelled"
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options) == 0
    raw, _ = read_sidecar(output / SIDECAR_NAME, fingerprint=None)
    assert run(*options, "--debias", "static") == 0  # scores the static control alone
    dataset = reopen(output)
    assert dataset.provenance["debias"] == dataset.formula.debias == "static"
    debiased, _ = read_sidecar(output / SIDECAR_NAME, fingerprint=None)
    assert debiased.log_prob_true.tolist() == raw.log_prob_true.tolist()
    assert np.abs(debiased.progress - raw.progress).max() > 0.05
    assert dataset.baselines
    curves = dataset.curves()
    for real, curve in zip(dataset.scores, curves, strict=True):
        assert curve[0] == pytest.approx(0, abs=1e-5)  # one image is as still as can be
        rows = np.flatnonzero(debiased.episode_index == real.segment.episode_index)
        expected = (curve - curve.min()) / np.ptp(curve)
        got = debiased.progress[rows][real.prefix_length - 1]
        np.testing.assert_allclose(got, expected, atol=1e-6)

    def refuse(*_: object) -> None:
        raise AssertionError("the VLM was loaded")

    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)
    assert run(*options, "--debias", "static") == 0
    assert run(*options) == 0
    again, _ = read_sidecar(output / SIDECAR_NAME, fingerprint=None)
    assert again.progress.tolist() == raw.progress.tolist()
    assert reopen(output).baselines == ()


@pytest.mark.slow
def test_episodes_without_a_static_control_are_left_out(
    recorded: Path, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    output = tmp_path / "labelled"
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options) == 0
    capfd.readouterr()
    assert run(*options, "--debias", "static", "--episodes", "0:2") == 0
    printed = capfd.readouterr().out
    assert "left without rewards: 1 of the episodes" in printed
    assert "episodes labelled    2" in printed
    assert reopen(output).episodes == [0, 1]
    assert run(*options, "--debias", "static") == 0
    assert reopen(output).episodes == [0, 1, 2]


def test_a_labelled_dataset_stays_debiased(recorded: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled"
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output, "--debias", "static")
    assert run(*options, "--normalize", "task") == 0
    written = read_sidecar(output / SIDECAR_NAME, fingerprint=None)[0].progress
    dataset = reopen(output)
    np.testing.assert_allclose(dataset.rewards().progress, written, atol=1e-6)
    # As on the Hub, where no store is: the sidecar says it all.
    shutil.rmtree(dataset.store.folder)
    alone = reopen(output)
    assert alone.baselines == ()
    assert alone.rewards().progress.tolist() == written.tolist()
    # Scaled within each episode it does not say how episodes compare: the raw scores do.
    assert run(*options) == 0
    shutil.rmtree(dataset.store.folder)
    alone = reopen(output)
    episodes = alone.source.frames.episode_index
    raw = label_rewards(alone.scores, episodes, horizon=alone.horizon, normalize="task")
    assert alone.rewards().progress.tolist() == raw.progress.tolist()


def test_the_card_says_so() -> None:
    key = ScoreKey(vlm="t", vlm_revision="0", dtype="float32", prompt="?", camera="front")
    made = {
        "scoring": key.to_json(),
        "normalize": "episode",
        "scale": "log-prob",
        "debias": "none",
        "horizon_frames": 10,
        "episodes_labelled": 1,
        "episodes_total": 1,
    }

    def write_card(debias: str) -> str:
        facts = CardFacts({**made, "debias": debias}, fps=10)
        return card_section(facts, source="me/robot", repo_id="me/robot", branch="main")

    said = "less that of the first frame repeated as often (time alone), scaled to 0..1"
    assert said not in write_card("none")
    assert f"| `topreward.progress` | the same, {said}, within each episode |" in write_card(
        "static"
    )


@pytest.mark.slow
def test_debiasing_changes_little_where_the_static_curve_is_flat(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    options = ("--root", DATASET, "--vlm", BUILTIN, "--device", "cpu", "--output", tmp_path / "a")
    assert run(*options) == 0
    raw = pq.read_table(tmp_path / "a" / SIDECAR_NAME)
    assert run(*options, "--debias", "static") == 0
    debiased = pq.read_table(tmp_path / "a" / SIDECAR_NAME)
    printed = capfd.readouterr().out
    assert "of these scored now  40" in printed
    assert debiased["log_prob_true"] == raw["log_prob_true"]
    change = np.abs(debiased["progress"].to_numpy() - raw["progress"].to_numpy())
    assert 0 < change.mean() < 0.05
