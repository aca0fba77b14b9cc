import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lerobot_topreward.data.success import Success
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.evaluate.gvl import GvlAnswer, GvlResult
from lerobot_topreward.evaluate.summary import (
    summarize,
    summarize_gvl,
    summarize_success,
)
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.formulas import compare_formulas
from lerobot_topreward.judging.intervals import auc_estimate, mean_estimate
from lerobot_topreward.records import FrameRewards, PrefixScores, Segment
from lerobot_topreward.rewards import PAPER, Formula
from lerobot_topreward.simulation.truth import read_truth
from lerobot_topreward.storage import sidecar
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.storage.store import Shard

Run = Callable[..., tuple[int, str, str]]


def _scores(log_prob: list[float], *, episode: int = 0, start: int = 0) -> PrefixScores:
    prefixes = len(log_prob)
    return PrefixScores(
        segment=Segment(episode, start, 2 * prefixes, "stack"),
        control="none",
        prefix_length=2 * np.arange(1, prefixes + 1),
        frame_index=start + 2 * np.arange(prefixes),
        log_prob_true=np.array(log_prob, dtype=np.float32),
        log_prob_false=np.full(prefixes, -1, dtype=np.float32),
    )


def _rewards(progress: list[float], advantage: list[float], *, episodes: int = 1) -> FrameRewards:
    """The same rewards for each of some episodes."""
    frames = len(progress) * episodes
    return FrameRewards(
        index=np.arange(frames),
        episode_index=np.repeat(np.arange(episodes), len(progress)),
        frame_index=np.tile(np.arange(len(progress)), episodes),
        labelled=np.ones(frames, dtype=bool),
        log_prob_true=np.zeros(frames, dtype=np.float32),
        log_prob_false=np.zeros(frames, dtype=np.float32),
        progress=np.tile(np.array(progress, dtype=np.float32), episodes),
        advantage=np.tile(np.array(advantage, dtype=np.float32), episodes),
        scored=np.ones(frames, dtype=bool),
    )


def test_metrics_of_an_episode() -> None:
    progress = [0, 0.2, 0.4, 0.4, 0.4, 0.95, 0.9, 0.8]
    reward = _rewards(progress, [0.1, 0.1, 0, 0, 0.2, -0.1, -0.1, 0])
    [found] = episode_metrics([_scores([-4, -3, -2.5, -0.5])], reward, fps=2)
    assert (found.task, found.frames, found.seconds) == ("stack", 8, 4.0)
    assert found.voc == 1
    assert found.success_score == -2
    assert found.final_progress == pytest.approx((0.4 + 0.95 + 0.8) / 3)  # frames 3, 5 and 7
    assert found.max_progress == pytest.approx(0.95)
    assert found.seconds_to_90 == 2.5
    assert found.negative_share == 0.25
    assert found.longest_stall == 1.0  # frames 2 to 4
    assert found.regress == pytest.approx(0.15)
    assert found.log_odds == 0.5


def test_segments_of_an_episode_are_described_together() -> None:
    scores = [_scores([-3, -2]), _scores([-2, -3, -4], start=4)]
    reward = _rewards([0.5] * 10, [0.0] * 10)
    [found] = episode_metrics(scores, reward, fps=10)
    assert found.voc == pytest.approx(0)  # the mean of 1 and -1
    assert found.success_score == -3
    assert found.frames == 10


def test_an_episode_of_one_frame_has_no_voc() -> None:
    scores = PrefixScores(
        segment=Segment(0, 0, 1, "stack"),
        control="none",
        prefix_length=np.array([1]),
        frame_index=np.array([0]),
        log_prob_true=np.array([-1], dtype=np.float32),
        log_prob_false=np.array([-2], dtype=np.float32),
    )
    [found] = episode_metrics([scores], _rewards([1.0], [0.0]), fps=10)
    assert math.isnan(found.voc)
    assert (found.longest_stall, found.regress, found.seconds_to_90) == (0, 0, 0)


def test_undefined_values_are_counted_and_not_averaged() -> None:
    found = mean_estimate([1.0, math.nan, 3.0])
    assert (found.value, found.defined, found.undefined) == (2.0, 2, 1)
    assert 1 <= found.low < found.high <= 3
    alone = mean_estimate([1.0])
    assert alone.value == 1
    assert math.isnan(alone.low)
    assert math.isnan(mean_estimate([]).value)


def test_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [
        found.low <= 0 <= found.high
        for found in (mean_estimate(rng.normal(size=40)) for _ in range(200))
    ]
    assert 0.89 <= np.mean(covered) <= 0.99


def test_auc_and_its_interval() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = auc_estimate(scores, np.array([False, True, False, True, False, True]))
    assert found.value == pytest.approx(6 / 9)
    assert 0 <= found.low < found.value < found.high <= 1
    assert math.isnan(auc_estimate(scores, np.ones(6, dtype=bool)).value)


def test_summary_by_task_and_against_success() -> None:
    scores = [_scores([-3, -2, -1], episode=0), _scores([-3, -3, -3], episode=1)]
    rewards = _rewards([0.1] * 6, [0.0] * 6, episodes=2)
    metrics = episode_metrics(scores, rewards, fps=10)
    *tasks, everything = summarize(metrics)
    assert [group.name for group in tasks] == ["stack"]
    assert (everything.means["voc"].value, everything.means["voc"].undefined) == (1, 1)
    found = summarize_success(metrics, Success("a file", {0: True, 1: False, 5: True}))
    assert (found.successes, found.failures, found.unknown) == (1, 1, 0)
    assert found.auc.value == 1
    assert found.threshold is None  # two of each are needed


def test_what_debiasing_would_change() -> None:
    real = [_scores([-4, -3, -2, -1], episode=e) for e in range(4)]
    # Time alone explains the first two; of the others it explains nothing.
    still = [_scores([-4, -3, -2, -1], episode=e) for e in (0, 1)]
    still += [_scores([-4, -4, -4, -4], episode=e) for e in (2, 3)]
    success = {0: False, 1: False, 2: True, 3: True}
    static = [replace(scores, control="static") for scores in still]
    rows = {row.formula: row for row in compare_formulas(real, static, success=success).rows}
    before, after = rows[PAPER], rows[Formula(debias="static")]
    assert (before.episodes, before.voc.value, before.auc.value) == (4, 1, 0.5)
    assert (after.voc.value, after.voc.undefined, after.auc.value) == (1, 2, 1)
    assert Formula(debias="static") not in {
        row.formula for row in compare_formulas(real, [], success=success).rows
    }


def test_scores_of_the_sidecar_are_those_of_the_store(demo_dataset: Path) -> None:
    dataset = open_labelled(repo_id=None, root=demo_dataset, revision=None)
    assert dataset.episodes == list(range(8))
    assert dataset.source.root == demo_dataset.with_name("dataset_topreward")
    for scores in dataset.scores:
        table_file = dataset.store.path(scores.segment.episode_index, "none")
        assert table_file.is_file()
        fingerprint = dataset.source.fingerprints.episodes[scores.segment.episode_index]
        stored = dataset.store.read(Shard((scores.segment,), "none", fingerprint, video=None))
        assert stored is not None
        for name in ("prefix_length", "frame_index", "log_prob_true", "log_prob_false"):
            np.testing.assert_array_equal(getattr(scores, name), getattr(stored[0], name))


def test_tables_of_the_demo(demo_dataset: Path, run: Run, tmp_path: Path) -> None:
    truth = read_truth(DATASET)
    lines = [f"{episode},{int(known.success)}" for episode, known in truth.items()]
    file = tmp_path / "success.csv"
    file.write_text("\n".join(["episode_index,success", *lines]))
    code, out, _ = run("evaluate", "--root", str(demo_dataset), "--success-file", str(file))
    assert code == 0
    assert "8 of 40 labeled" in out
    assert "scaled per task" in out
    assert "the dataset's own columns are scaled per episode" in out
    assert "4 succeeded, 4 failed" in out
    assert "--min-success -0." in out


def test_json_of_the_demo(demo_dataset: Path, run: Run) -> None:
    code, out, _ = run("evaluate", "--root", str(demo_dataset), "--json")
    assert code == 0
    found = json.loads(out)
    assert [episode["episode_index"] for episode in found["episodes"]] == list(range(8))
    assert found["episodes"][1]["seconds_to_90"] is None  # it misses the cube
    assert found["success"] is None
    assert found["groups"][-1]["episodes"] == 8


def test_no_success_is_known(demo_dataset: Path, run: Run) -> None:
    _, out, _ = run("evaluate", "--root", str(demo_dataset))
    assert "no labels, so no AUC" in out


@pytest.mark.slow
def test_controls_are_scored_once_and_then_reported(
    demo_dataset: Path, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(demo_dataset.with_name("dataset_topreward"), root)
    other = ("--swapped-instruction", "open the drawer")
    controls = ("--controls", "static,reversed,swapped", "--control-episodes", "4", *other)
    code, out, err = run("evaluate", "--root", str(root), *controls, "--device", "cpu", "--json")
    assert code == 0
    assert "scored 4 of 4 episodes" in err  # what goes on is not mixed with the JSON
    judgment = json.loads(out)["judgment"]
    assert (judgment["level"], judgment["reasons"]) == (
        "usable",
        [found["text"] for found in judgment["evidence"]],
    )
    found = json.loads(out)["controls"]
    assert [control["control"] for control in found] == ["static", "reversed", "swapped"]
    assert [control["episodes"] for control in found] == [4, 4, 4]
    assert all(control["share"] < 0.2 for control in found)
    again, out, err = run("evaluate", "--root", str(root))
    assert again == 0
    assert "scored" not in err
    assert "the real videos of 4" in out
    assert "time alone explains little" in out
    assert "the model reads the instruction" in out
    assert "this reward: usable" in out


@pytest.mark.slow
def test_gvl_whose_answers_cannot_be_used_is_counted(
    demo_dataset: Path, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(demo_dataset.with_name("dataset_topreward"), root)
    arguments = ("--baseline", "gvl", "--control-episodes", "1", "--device", "cpu")
    code, out, _ = run("evaluate", "--root", str(root), *arguments)
    assert code == 0
    assert (
        "baseline GVL: 0 of 1 answers keep to the format; 1 break" in out
    )  # the demo's VLM cannot


def test_gvl_beside_the_rewards() -> None:
    real = [_scores([-4, -3, -2], episode=e) for e in range(3)]

    def answer(episode: int, percentages: list[float] | None) -> GvlAnswer:
        return GvlAnswer(
            segment=real[episode].segment,
            frame_index=np.array([2, 4]),
            percentages=None if percentages is None else np.array(percentages),
            reason="" if percentages else "no frame twice: 2",
            text="",
        )

    answers = (answer(0, [10.0, 50.0]), answer(1, [50.0, 10.0]), answer(2, None))
    found = summarize_gvl(GvlResult(answers), real)
    assert (found.segments, found.usable, dict(found.reasons)) == (3, 2, {"no frame twice": 1})
    assert found.voc.value == pytest.approx(0)
    assert found.voc_reward.value == pytest.approx(1)


def test_one_episode_of_one_frame(
    record_dataset: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    root, output = record_dataset(lengths=(1,)), tmp_path / "labelled"
    label = ("--vlm", "builtin:so101-demo", "--device", "cpu", "--camera", "front")
    code, _, err = run("label", "--root", str(root), *label, "--output", str(output))
    assert code == 0, err
    static = ("--controls", "static", "--device", "cpu")
    code, out, err = run("evaluate", "--root", str(output), *static)
    assert code == 0, err
    assert "mean over 1 episodes" in out
    assert "undefined in 1" in out
    assert "do not rise, so there is nothing to compare" in out
    code, out, _ = run("evaluate", "--root", str(output), "--json")
    found = json.loads(out)
    assert found["groups"][0]["voc"]["value"] is None
    assert found["controls"][0]["share"] is None


def test_without_controls_it_says_what_is_missing(demo_dataset: Path, run: Run) -> None:
    _, out, _ = run("evaluate", "--root", str(demo_dataset))
    assert "controls: none was scored" in out


def test_one_instruction_cannot_be_swapped(demo_dataset: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    arguments = ["--vlm", "builtin:so101-demo", "--device", "cpu", "--output", str(root)]
    run("label", "--root", str(demo_dataset), *arguments, "--instruction", "stack", "--episodes=0")
    code, out, _ = run("evaluate", "--root", str(root), "--controls", "swapped")
    assert code == 0
    assert "control swapped was left out: every episode has the same instruction" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--controls", "statik"], "did you mean static?"),
        (["--controls", "static", "--control-episodes", "0"], "--control-episodes must be"),
        (["--swapped-instruction", "stack"], "needs --controls swapped"),
        (["--controls", "static", "--vlm", "nowhere/at/all"], "--vlm 'nowhere/at/all' is neither"),
        (["--success-file", "none.csv"], "--success-file none.csv cannot be read"),
    ],
)
def test_mistakes(demo_dataset: Path, run: Run, arguments: list[str], message: str) -> None:
    code, _, err = run("evaluate", "--root", str(demo_dataset), *arguments)
    assert code == 2
    assert message in err


def test_an_unlabelled_dataset_is_refused(run: Run) -> None:
    code, _, err = run("evaluate", "--root", str(DATASET))
    assert code == 2
    assert "is not labeled" in err
    assert "lerobot-topreward label --root" in err


def test_labels_without_a_scored_frame_are_refused(
    demo_dataset: Path, run: Run, tmp_path: Path
) -> None:
    labels = demo_dataset.with_name("dataset_topreward") / sidecar.SIDECAR_NAME
    rewards, provenance = sidecar.read_sidecar(labels, fingerprint=None)
    sidecar.write_sidecar(
        tmp_path / sidecar.SIDECAR_NAME,
        replace(rewards, scored=np.zeros_like(rewards.scored)),
        fingerprint=str(sidecar.fingerprint_of(labels)),
        provenance=provenance,
    )
    code, _, err = run("evaluate", "--root", str(demo_dataset), "--labels", str(tmp_path))
    assert code == 2
    assert "has no labeled episode; label some, then evaluate" in " ".join(err.split())


def test_another_datasets_labels_are_refused(
    demo_dataset: Path, record_dataset: Callable[..., Path], run: Run
) -> None:
    other = record_dataset(lengths=(5,))
    labels = demo_dataset.with_name("dataset_topreward")
    code, _, err = run("evaluate", "--root", str(other), "--labels", str(labels))
    assert code == 2
    assert "must belong to this dataset" in err


def test_labels_that_do_not_say_how_they_were_made(
    record_dataset: Callable[..., Path], write_labels: Callable[..., Path], run: Run
) -> None:
    root = write_labels(record_dataset(lengths=(5, 5)))
    code, _, err = run("evaluate", "--root", str(root))
    assert code == 2
    assert "does not say how its scores were made" in err
