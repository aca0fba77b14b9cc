import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lerobot_topreward.storage.reader import LabelledDataset

# For the module beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from scored import TASKS, label, reopen

RecordDataset = Callable[..., Path]


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(31, 18, 25, 12), tasks=TASKS, cameras=("front",))


@pytest.fixture(scope="session")
def labelled(recorded: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label(recorded, tiny_vlm, tmp_path_factory.mktemp("labels") / "dataset")


@pytest.fixture
def dataset(labelled: Path, tmp_path: Path) -> LabelledDataset:
    """A labelled dataset that a test may score controls of."""
    return reopen(Path(shutil.copytree(labelled, tmp_path / "dataset")))
