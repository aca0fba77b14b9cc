from pathlib import Path

import pytest

from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm


@pytest.fixture(scope="session")
def served_vlm(tiny_vlm: Path) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu"))
