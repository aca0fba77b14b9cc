import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.cli import main

# For the module beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from cups import GOOD, hold, write_labels

RecordDataset = Callable[..., Path]
Run = Callable[..., str]


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=(24, 21, 30, 22, 26), tasks=("stack the cups", "pour"), cameras=("front",)
    )


@pytest.fixture(scope="session")
def dataset(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five labelled episodes; meta/episodes knows which succeeded."""
    root = tmp_path_factory.mktemp("curate") / "cups"
    write_labels(recorded, root)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    success = pa.array([episode in GOOD for episode in table["episode_index"].to_pylist()])
    pq.write_table(table.append_column("success", success), path)
    return root


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return what it printed, which must be an exit code of 0."""

    def command(*options: str | Path, code: int = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["curate", *map(str, options)])
        said = capfd.readouterr()
        assert stopped.value.code == code, said
        assert "Traceback" not in said.err
        return " ".join((said.out if code == 0 else said.err).split())

    return command


@pytest.fixture
def holding(record_dataset: RecordDataset, tmp_path: Path) -> Path:
    """Two episodes of 40 frames at 10 Hz; the second stands still in 12 and 13 at its ends."""
    root = tmp_path / "recorded"
    shutil.copytree(record_dataset(lengths=(40, 40), cameras=("front",)), root)
    hold(root, 0, head=0, tail=0)
    hold(root, 1, head=12, tail=13)
    source = write_labels(root, tmp_path / "source", ends=(-5, -5))
    return source
