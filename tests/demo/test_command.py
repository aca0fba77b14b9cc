import re
from pathlib import Path
from typing import Any

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from lerobot_topreward.cli import main


@pytest.mark.slow
def test_the_demo_meets_its_own_bounds(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--output", str(tmp_path)])
    assert not stopped.value.code
    printed = capfd.readouterr().out
    numbers = {
        name: float(re.search(rf"{name}\s+(-?[\d.]+)", printed)[1])  # pyright: ignore[reportOptionalSubscript]
        for name in ("VOC on successes", "success ROC-AUC", "static videos: VOC", "rise")
    }
    assert numbers["VOC on successes"] >= 0.93
    assert numbers["success ROC-AUC"] >= 0.95
    assert numbers["static videos: VOC"] <= 0.3
    assert numbers["rise"] <= 15.0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
    dataset: Any = LeRobotDataset("local/demo", root=tmp_path / "dataset", video_backend="pyav")
    assert dataset.num_episodes == 40
    assert bool(dataset[0]["topreward.labelled"])
    # What the simulator knows is carried along, and was never read.
    assert (tmp_path / "dataset" / "truth.parquet").is_file()


def test_the_demo_refuses_a_folder_that_it_cannot_make(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--output", str(tmp_path / "file" / "demo")])
    assert stopped.value.code == 2
    assert "cannot be made" in capfd.readouterr().err
