"""The demo's own episodes and four judges of known worth: the advice must be right."""

import json
from pathlib import Path

import pytest
from reward_models import build_robometer
from vllm_server import serve

from lerobot_topreward.cli import main
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.simulation.truth import read_truth
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig, find_folder
from lerobot_topreward.vlm.loading import load_vlm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_taught_vlm_is_advised_here_or_at_a_server(
    tmp_path: Path, tiny_vlm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = find_folder(BUILTIN)
    assert taught is not None
    dataset = taught.with_name("dataset")
    truth = read_truth(dataset)
    success = tmp_path / "success.csv"
    lines = [f"{episode},{str(known.success).lower()}" for episode, known in truth.items()]
    success.write_text("\n".join(["episode_index,success", *lines]))
    untrained = build_tiny_vlm(tmp_path / "untrained", config=TinyConfig(spread=0.2, seed=2))
    pytest.importorskip("qwen_vl_utils", reason="Robometer needs the extra robometer")
    robometer = build_robometer(tmp_path / "robometer", tiny_vlm)
    vlm = load_vlm(VlmConfig(vlm=BUILTIN, device="cpu"))
    options = ["--root", str(dataset), "--output", str(tmp_path / "out"), "--device", "cpu"]
    with serve(vlm, model="demo", root=str(taught)) as state:
        judges = [str(untrained), BUILTIN, f"{taught}@{state.url}", f"robometer={robometer}"]
        arguments = ["compare", "--judges", *judges, "--success-file", str(success), *options]
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--json"])
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["episodes"]) == 10
    assert sum(found["success"].values()) == 5
    levels = [judge["judgment"]["level"] for judge in found["judges"]]
    assert levels[0] == "cannot judge this dataset"
    assert levels[1] == levels[2] == "usable"
    # Some random weights rise a little with time; ten episodes do not make them usable.
    assert levels[3] != "usable"
    # The same model here and there: told apart by its speed at most.
    assert set(found["advice"]["use"]) <= {"B", "C"}
    assert found["advice"]["use"]
    assert "follows the video" in found["advice"]["sentence"]
    assert "tells success from failure" in found["advice"]["sentence"]
    same = {tuple(pair["judges"]): pair["value"] for pair in found["agreement"]}
    assert same["B", "C"] > 0.99
    assert abs(same["A", "B"]) < 0.8
