import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cups import contents, decisions, frame, labelled
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.curate.trim import find_spans, trim_dataset
from lerobot_topreward.data.dataset import open_source

RecordDataset = Callable[..., Path]
Run = Callable[..., str]


@pytest.mark.slow
def test_what_stands_still_is_trimmed_without_touching_a_video(
    run: Run, holding: Path, tmp_path: Path
):
    before = contents(holding)
    options = ("--min-voc", "-1", "--trim", "--output", tmp_path / "short")
    said = run("--root", holding, *options, "--trim-margin", "0.3")
    # Movement in frames 13..25, with the margin 10..28; the VLM's own scores are at 10 and 30.
    assert "trimmed: 1 of 2 episodes, 1.9 s in all" in said
    assert contents(holding) == before
    record = json.loads((tmp_path / "short/curation.json").read_text())
    assert record["trimmed"] == {"1": [10, 31]}

    made = LeRobotDataset("local/short", root=tmp_path / "short")
    whole = LeRobotDataset("local/source", root=holding)
    assert (made.num_frames, made.meta.total_frames) == (61, 61)
    for new in range(61):
        ours, theirs = frame(made, new), frame(whole, new if new < 40 else new + 10)
        for name in ("observation.images.front", "observation.state", "topreward.log_prob"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert int(ours["index"]) == new
        assert float(ours["timestamp"]) == pytest.approx((new % 40) / 10, abs=1e-6)
    assert made.meta.episodes is not None
    assert list(made.meta.episodes["length"]) == [40, 21]
    assert made.meta.stats is not None
    held = np.array([frame(made, i)["action"] for i in range(61)])
    np.testing.assert_allclose(made.meta.stats["action"]["mean"], held.mean(axis=0), rtol=1e-5)

    short, long = labelled(tmp_path / "short"), labelled(holding)
    wanted = {
        int(f): v
        for f, v in zip(long.scores[1].frame_index, long.scores[1].log_prob_true, strict=True)
    }
    found = {
        int(f) + 10: v
        for f, v in zip(short.scores[1].frame_index, short.scores[1].log_prob_true, strict=True)
    }
    assert found == {end: wanted[end] for end in (10, 15, 20, 25, 30)}

    again = ("--min-voc", "-1", "--trim", "--trim-margin", "0.3")
    assert "trimmed: 0" not in run(
        "--root", tmp_path / "short", *again, "--output", tmp_path / "same"
    )
    assert labelled(tmp_path / "same").source.fingerprints == short.source.fingerprints


@pytest.mark.slow
def test_trimming_and_dropping_together(run: Run, holding: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", holding, {"0": "drop"})
    options = ("--min-voc", "-1", "--decisions", path, "--trim", "--trim-margin", "0.3")
    run("--root", holding, *options, "--output", tmp_path / "short")
    made = LeRobotDataset("local/short", root=tmp_path / "short")
    whole = LeRobotDataset("local/source", root=holding)
    assert made.num_frames == 21
    image = "observation.images.front"
    difference = np.asarray(frame(made, 20)[image]) - np.asarray(frame(whole, 40 + 30)[image])
    assert np.abs(difference).mean() < 0.03
    # A trimmed dataset can be edited further by LeRobot.
    run("--root", tmp_path / "short", "--keep-top", "1", "--output", tmp_path / "copy")


def test_an_outcome_is_never_trimmed(run: Run, holding: Path, tmp_path: Path):
    root = tmp_path / "outcome"
    shutil.copytree(holding, root)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    done = [index in (39, 79) for index in range(80)]
    table = table.append_column("next.done", pa.array(done))
    described = json.loads((table.schema.metadata or {})[b"huggingface"])
    described["info"]["features"]["next.done"] = {"dtype": "bool", "_type": "Value"}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    options = ("--min-voc", "-1", "--trim", "--trim-margin", "0.3")
    run("--root", root, *options, "--output", tmp_path / "short")
    record = json.loads((tmp_path / "short/curation.json").read_text())
    assert record["trimmed"] == {"1": [10, 40]}
    # Neither by who leaves no margin, where there are no labels whose ends would stay.
    source = open_source(repo_id=None, root=root, revision=None)
    assert find_spans(source, None, [1], margin=0) == {1: range(13, 40)}


@pytest.mark.slow
def test_time_is_exact_after_half_an_hour(record_dataset: RecordDataset):
    # From 2048 s on float32 knows time to 1.2e-4 s only; LeRobot tolerates 1e-4 s.
    root = record_dataset(lengths=(6400,), cameras=(), fps=3)
    trim_dataset(root, {0: range(6301, 6400)})
    timestamp = pq.read_table(root / "data")["timestamp"].to_numpy()
    np.testing.assert_array_equal(timestamp, (np.arange(99) / 3).astype(np.float32))
