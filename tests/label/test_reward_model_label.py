"""Labels made by LeRobot's reward models, from the command line on, and what is made of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reward_models import build_classifier, build_robometer, build_topreward

from lerobot_topreward.cli import main
from lerobot_topreward.publish.card import CardFacts, card_section
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, read_sidecar

RecordDataset = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("kept_process")


def run(command: str, root: Path, *options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--root", str(root), *map(str, options)])
    return int(stopped.value.code or 0)


def shards(output: Path, control: str = "") -> list[Path]:
    return sorted(output.glob(f"topreward/*/episode_??????{control}.parquet"))


def provenance_of(output: Path) -> dict[str, Any]:
    found = open_labelled(repo_id=None, root=output, revision=None)
    return dict(found.provenance)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    tasks = ("pick up the cube", "open the drawer")
    return record_dataset(lengths=(14, 9, 21), tasks=tasks, cameras=("front",), size=(64, 64))


@pytest.fixture(scope="module")
def robometer(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("qwen_vl_utils", reason="Robometer needs the extra robometer")
    return build_robometer(tmp_path_factory.mktemp("judge") / "meter", tiny_vlm)


@pytest.fixture(scope="module")
def labelled_once(
    recorded: Path, robometer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("labelled") / "cubes"
    judge = ("--reward-model", "robometer", "--reward-path", robometer)
    assert run("label", recorded, *judge, "--output", output, "--control", "static") == 0
    return output


@pytest.fixture
def labelled(labelled_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(labelled_once, tmp_path / "cubes")


def test_progress_is_the_models_own_and_success_is_kept(labelled: Path) -> None:
    tables = [pq.read_table(path) for path in shards(labelled)]
    assert len(tables) == len(shards(labelled, ".static")) == 3
    assert all(table.column_names[-1] == "log_prob_success" for table in tables)
    found = open_labelled(repo_id=None, root=labelled, revision=None)
    assert (found.key.reward_model, found.key.vlm) == ("robometer", "meter")
    assert (found.key.prompt, found.key.head, found.formula.scale) == ("", None, "prob")
    assert shards(labelled)[0].parent.name == found.key.digest()
    for scores, curve, table in zip(found.scores, found.curves(), tables, strict=True):
        true, false = (table[f"log_prob_{name}"].to_numpy() for name in ("true", "false"))
        np.testing.assert_allclose(curve, np.exp(true), atol=1e-6)
        np.testing.assert_allclose(np.exp(true) + np.exp(false), 1, atol=1e-6)
        np.testing.assert_array_equal(scores.success, table["log_prob_success"].to_numpy())
        assert (scores.success != scores.log_prob_true).all()


def test_the_success_score_is_what_the_model_says_of_success(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = [
        np.mean(pq.read_table(path)["log_prob_success"].to_numpy()[-3:])
        for path in shards(labelled)
    ]
    assert run("evaluate", labelled, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    scores = [episode["success_score"] for episode in found["episodes"]]
    np.testing.assert_allclose(scores, ends, atol=1e-5)
    # Without the store only progress is known.
    shutil.rmtree(labelled / "topreward")
    assert run("evaluate", labelled, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["provenance"] == found["provenance"]
    assert all(
        one["success_score"] != other["success_score"] and one["voc"] == pytest.approx(other["voc"])
        for one, other in zip(found["episodes"], again["episodes"], strict=True)
    )


@pytest.mark.slow
def test_labels_are_made_once_and_judged_curated_and_trained_on(
    recorded: Path,
    robometer: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge = ("--reward-model", "robometer", "--reward-path", robometer)
    before = {path: path.read_bytes() for path in shards(labelled)}
    assert run("label", recorded, *judge, "--output", labelled) == 0
    said = capsys.readouterr().out
    assert "of these scored now  0" in said
    assert "this reward:" in said
    assert {path: path.read_bytes() for path in shards(labelled)} == before
    page = tmp_path / "page.html"
    assert run("report", labelled, "--output", page) == 0
    assert "meter (robometer)" in page.read_text(encoding="utf-8")
    options = ("--min-success=-20", "--force-rules", "--output", tmp_path / "curated")
    assert run("curate", labelled, *options, "--dry-run") in (0, 1)
    assert "labels   by meter (robometer)" in capsys.readouterr().out
    policy = ("--policy.type=act", "--policy.chunk_size=4", "--policy.n_action_steps=4")
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "train",
                f"--dataset.root={labelled}",
                "--dataset.repo_id=local/x",
                f"--output_dir={tmp_path / 'run'}",
                *policy,
                "--policy.device=cpu",
                "--policy.push_to_hub=false",
                "--weighting.scheme=awr",
                "--force-weights",
                "--dry-run",
            ]
        )
    assert not stopped.value.code
    assert "in 3 episodes" in capsys.readouterr().out


@pytest.mark.slow
def test_controls_ask_only_a_model_that_is_named(
    recorded: Path, robometer: Path, labelled: Path, tiny_vlm: Path, tmp_path: Path, capsys: Any
) -> None:
    judge = ("--reward-model", "robometer", "--reward-path", robometer)
    controls = ("--controls", "static,reversed,swapped")
    assert run("evaluate", labelled, *controls) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "by the reward model robometer, of meter; if you trust it, say so: --reward-model" in said
    )
    topreward = build_topreward(tmp_path / "meter", tiny_vlm)
    wrong = ("--reward-model", "topreward", "--reward-path", topreward)
    assert run("evaluate", labelled, *controls, *wrong) == 2
    assert run("evaluate", labelled, *judge) == 2
    assert "name some" in capsys.readouterr().err
    other = build_robometer(tmp_path / "other" / "meter", tiny_vlm, frame_pooling="boundary")
    moved = ("--reward-model", "robometer", "--reward-path", other)
    assert run("evaluate", labelled, *controls, *moved) == 2
    assert "--reward-path holds" in " ".join(capsys.readouterr().err.split())
    assert run("evaluate", labelled, *controls, "--server", "http://127.0.0.1:9", *judge) == 2
    assert run("evaluate", labelled, *controls, "--baseline", "gvl", *judge) == 2
    assert "made by a reward model" in " ".join(capsys.readouterr().err.split())
    assert run("evaluate", labelled, *controls, *judge) == 0
    assert [len(shards(labelled, f".{name}")) for name in ("reversed", "swapped")] == [3, 3]
    assert all("log_prob_success" in pq.read_schema(path).names for path in shards(labelled, ".*"))
    by_vlm = tmp_path / "by_vlm"
    assert run("label", recorded, "--vlm", tiny_vlm, "--output", by_vlm) == 0
    assert run("evaluate", by_vlm, "--vlm", tiny_vlm, *controls, *judge) == 2
    assert run("evaluate", by_vlm, *controls, *judge) == 2
    assert "made by a VLM, not by a reward model" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("value", [0.5, np.nan, None])
def test_a_shard_with_an_impossible_score_is_scored_again(
    recorded: Path, robometer: Path, labelled: Path, value: float | None, capsys: Any
) -> None:
    path, column = shards(labelled)[1], "log_prob_success"
    before = pq.read_table(path)
    at = before.column_names.index(column)
    values = [*before[column].to_pylist()[:-1], value]
    pq.write_table(
        before.set_column(at, before.schema.field(column), pa.array(values, pa.float32())), path
    )
    found = open_labelled(repo_id=None, root=labelled, revision=None)
    assert all(scores.log_prob_success is None for scores in found.scores)
    judge = ("--reward-model", "robometer", "--reward-path", robometer)
    assert run("label", recorded, *judge, "--output", labelled) == 0
    assert "episode 1 are damaged: scored again" in capsys.readouterr().out
    assert pq.read_table(path).equals(before)


def test_a_dry_run_says_how_often_it_would_ask(
    recorded: Path, robometer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ("--reward-model", "robometer", "--reward-path", robometer)
    output = tmp_path / "out"
    assert (
        run("label", recorded, *judge, "--output", output, "--dry-run", "--control", "static") == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "robometer, meter; prefixes: 24" in said
    assert "is not known before" in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ((), "prob"),
        (("--scale", "log-odds"), "log-odds"),
        (("--debias", "static"), "log-prob"),
        (("--formula", "auto"), "log-prob"),
        (("--debias", "blank", "--scale", "log-odds"), "log-odds"),
    ],
)
def test_what_progress_is_made_of(
    recorded: Path, tmp_path: Path, options: tuple[str, ...], scale: str
) -> None:
    judge = ("--reward-model", "reward_classifier")
    judge += ("--reward-path", str(build_classifier(tmp_path / "judge", size=64)))
    output = tmp_path / "out"
    assert run("label", recorded, *judge, "--output", output, *options) == 0
    made = provenance_of(output)
    assert made["scale"] == scale
    assert (made["scoring"]["reward_model"], made["scoring"]["vlm"]) == (
        "reward_classifier",
        "judge",
    )
    card = card_section(CardFacts(made, fps=10), source="a/b", repo_id="a/b", branch="main")
    assert "LeRobot's reward model `reward_classifier` was asked" in card
    assert "| Model | `judge` (`reward_classifier`), revision" in card
    assert "The prompt" not in card
    assert read_sidecar(output / SIDECAR_NAME, fingerprint=None)[0] is not None


@pytest.mark.slow
def test_labels_of_lerobots_topreward_are_log_probs(
    recorded: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    path = build_topreward(tmp_path / "top", tiny_vlm, fps=2.0)
    judge = ("--reward-model", "topreward", "--reward-path", path)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert run("label", recorded, *judge, "--output", theirs, "--no-final-frame") == 0
    vlm = ("--vlm", tiny_vlm, "--device", "cpu", "--engine", "per-prefix", "--no-final-frame")
    assert run("label", recorded, *vlm, "--output", ours) == 0
    assert provenance_of(theirs)["scale"] == "log-prob"
    assert {path.parent.name for path in shards(theirs)} != {
        path.parent.name for path in shards(ours)
    }
    for one, other in zip(shards(theirs), shards(ours), strict=True):
        found, expected = pq.read_table(one), pq.read_table(other)
        np.testing.assert_allclose(found["log_prob_true"], expected["log_prob_true"], atol=1e-4)
        assert "log_prob_success" not in found.column_names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--vlm", "a/b"), "--vlm a/b is about a VLM"),
        (("--vlm-revision", "x"), "--vlm-revision x is about a VLM"),
        (("--dtype", "float32"), "--dtype float32 is about a VLM"),
        (("--quantize", "4bit"), "--quantize 4bit is about a VLM"),
        (("--device-map", "auto"), "--device-map auto is about a VLM"),
        (("--engine", "per-prefix"), "--engine per-prefix is about a VLM"),
        (("--max-pixels", "9"), "--max-pixels 9 is about a VLM"),
        (("--server", "http://h:1"), "--server http://h:1 is about a VLM"),
        (("--scale", "prob", "--debias", "static"), "leave out one of them"),
        (("--reward-model", "a:b:c"), "must be a name, or PACKAGE:NAME"),
        (("--reward-model", ":"), "must be a name, or PACKAGE:NAME"),
        (("--reward-path", "no_such_folder"), "is neither a folder here nor a Hub id"),
        (("--reward-model", "sarms"), "is not registered with LeRobot"),
    ],
)
def test_what_makes_no_sense_together_is_refused(
    recorded: Path, tmp_path: Path, options: tuple[str, ...], said: str, capsys: Any
) -> None:
    judge = () if "--reward-model" in options else ("--reward-model", "topreward")
    assert run("label", recorded, *judge, *options, "--output", tmp_path / "out") == 2
    assert said.replace(" ", "") in "".join(capsys.readouterr().err.split()).replace("=", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["reward-path", "reward-revision"])
def test_a_path_needs_a_model(recorded: Path, name: str, capsys: Any) -> None:
    assert run("label", recorded, f"--{name}", "x") == 2
    assert "needs --reward-model" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "change", [{"reward_model": None}, {"reward_model": ""}, {"reward_model": 1}]
)
def test_a_key_of_no_reward_model_is_refused(labelled_once: Path, change: dict[str, Any]) -> None:
    stored = provenance_of(labelled_once)["scoring"]
    assert ScoreKey.from_json(stored).to_json() == stored
    with pytest.raises(ValueError, match=r"one is empty|validation error"):
        ScoreKey.from_json({**stored, **change})
    with pytest.raises(ValueError, match="has the fields"):
        ScoreKey.from_json({**stored, "server": "vllm 0.32.0"})
