import json
from pathlib import Path

import pytest

from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm


def make_servable(folder: Path) -> Path:
    """Have images normalized as videos are, as in the real checkpoints and as vLLM takes for granted."""
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    for name in ("image_mean", "image_std"):
        settings["image_processor"][name] = settings["video_processor"][name]
    file.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    return make_servable(build_tiny_vlm(folder, config=TinyConfig(spread=0.2)))


@pytest.fixture(scope="session")
def served_vlm(served_folder: Path) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(served_folder), device="cpu"))
