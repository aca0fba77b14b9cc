"""Labels made by asking servers, from the command line on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from vllm_server import serve

from lerobot_topreward.cli import main
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.vlm.loading import Vlm

RecordDataset = Callable[..., Path]


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    tasks = ("pick up the cube", "open the drawer")
    return record_dataset(lengths=(14, 9, 21), tasks=tasks, cameras=("front",))


def run(command: str, root: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--root", str(root), *options])
    return int(stopped.value.code or 0)


def shards(output: Path, control: str = "") -> dict[str, Path]:
    pattern = f"topreward/*/episode_??????{control}.parquet"
    return {path.name: path for path in sorted(output.glob(pattern))}


def test_labels_of_a_server_are_those_of_the_built_in_scorer(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    vlm = ("--vlm", str(tiny_vlm))
    assert run("label", recorded, *vlm, "--device", "cpu", "--output", str(here)) == 0
    capsys.readouterr()
    with serve(served_vlm) as state:
        server = ("--server", state.url)
        options = (*vlm, "--output", str(there), *server, "--control", "static")
        assert run("label", recorded, *options) == 0
        said = capsys.readouterr().out
        assert "vllm 0.32.0, tiny, mode exact; requests: 24" in said.replace("\n", " ")
        asked = len(state.bodies)
        # Two more before the first episode; nothing is asked again.
        assert asked == 24 + 2
        assert run("label", recorded, *options) == 0
        assert len(state.bodies) == asked
        assert run("evaluate", there, *vlm, *server, "--controls", "static,reversed") == 0
        assert len(state.bodies) == asked + 12 + 2
    assert len(shards(here)) == len(shards(there)) == 3
    for name, path in shards(here).items():
        ours, theirs = pq.read_table(shards(there)[name]), pq.read_table(path)
        assert ours.schema.names == theirs.schema.names
        for column in ("log_prob_true", "log_prob_false"):
            np.testing.assert_allclose(ours[column], theirs[column], atol=1e-4, rtol=0)
    folder = shards(there)["episode_000000.parquet"].parent
    made = json.loads((folder / "run.json").read_text())
    key = ScoreKey.from_json(made["scoring"])
    assert (key.server, key.server_model) == ("vllm 0.32.0", "tiny")
    assert (key.server_video, key.template) == ("exact", "paper")
    assert folder.name == key.digest()
    assert {path.parent.name for path in shards(here).values()} != {folder.name}
    assert len(shards(there, ".reversed")) == 3


def test_a_dry_run_asks_nothing(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve(served_vlm) as state:
        options = ("--vlm", str(tiny_vlm), "--output", str(tmp_path / "out"))
        options += ("--server", state.url, "--control", "static", "--dry-run")
        assert run("label", recorded, *options) == 0
        assert "mode exact; requests: 24" in capsys.readouterr().out.replace("\n", " ")
        assert state.bodies == []
    assert not (tmp_path / "out").exists()


def test_a_server_is_not_asked_to_choose_a_model(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("label", recorded, "--vlm", "auto", "--server", "http://127.0.0.1:9") == 2
    assert "with a --server, give the model that it runs" in capsys.readouterr().err


def test_controls_need_the_server_of_the_labels(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vlm, there = ("--vlm", str(tiny_vlm)), tmp_path / "there"
    controls = ("--controls", "static")
    with serve(served_vlm) as state:
        assert run("label", recorded, *vlm, "--output", str(there), "--server", state.url) == 0
        capsys.readouterr()
        assert run("evaluate", there, *vlm, *controls) == 2
        assert "made by a server (vllm 0.32.0, model tiny)" in capsys.readouterr().err
        state.version = "0.33.1"
        assert run("evaluate", there, *vlm, *controls, "--server", state.url) == 2
        assert "the server is now vllm 0.33.1" in capsys.readouterr().err.replace("\n", " ")
    here = tmp_path / "here"
    assert run("label", recorded, *vlm, "--output", str(here)) == 0
    assert run("evaluate", here, *vlm, *controls, "--server", "http://127.0.0.1:9") == 2
    assert "not by a server" in capsys.readouterr().err
