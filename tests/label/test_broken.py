"""label says what is broken before a VLM is loaded, and labels it all the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import change_rows

from lerobot_topreward.cli import main
from lerobot_topreward.storage.reader import open_labelled


@pytest.fixture
def gapped(record_dataset: Callable[..., Path], tmp_path: Path) -> Path:
    """Three episodes, the second of which has a value that is not finite."""
    root = shutil.copytree(record_dataset(cameras=("front",)), tmp_path / "gapped")

    def lose_value(action: np.ndarray, episode: np.ndarray) -> None:
        action[np.flatnonzero(episode == 1)[3], 0] = np.nan

    change_rows(root, "action", lose_value)
    return root


def test_a_broken_episode_is_named_labeled_and_marked(
    gapped: Path, tiny_vlm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["label", "--root", str(gapped), "--vlm", str(tiny_vlm), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "episode 1 is broken: not finite: action.0 not finite in 1 frames" in printed
    assert printed.index("is broken") < printed.index("scored")
    assert "--skip-check leaves this out" in printed
    copy = gapped.with_name("gapped_topreward")
    assert open_labelled(repo_id=None, root=copy, revision=None).episodes == [0, 1, 2]
    (run,) = (copy / "topreward").rglob("run.json")
    assert list(json.loads(run.read_text())["broken"]) == ["1"]

    with pytest.raises(SystemExit) as stopped:
        main([*options, "--skip-check", "--horizon", "0.5"])
    assert stopped.value.code == 0
    assert "is broken" not in capsys.readouterr().out

    with pytest.raises(SystemExit):
        main(["curate", "--root", str(copy), "--min-voc", "-1"])
    assert "not finite" in capsys.readouterr().out


def test_it_is_said_before_a_vlm_is_looked_for(
    gapped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--root", str(gapped), "--vlm", str(gapped / "none"), "--device", "cpu"])
    assert stopped.value.code == 2
    assert "episode 1 is broken" in capsys.readouterr().out
