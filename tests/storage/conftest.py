import shutil
import sys
from pathlib import Path

import pytest

from lerobot_topreward.cli import main

# For the module beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from trips import LENGTHS, TASKS, Label, RecordDataset, Run


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=LENGTHS, tasks=TASKS, cameras=("front",), size=(64, 64), file_per_episode=True
    )


@pytest.fixture(scope="session")
def labelled(recorded: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes of two tasks, labelled by the command; a test may not change them."""
    output = tmp_path_factory.mktemp("round-trips") / "labelled"
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, ("--root", recorded, "--vlm", tiny_vlm, "--output", output))])
    assert stopped.value.code == 0
    return output


@pytest.fixture(scope="session")
def others(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Another dataset, labelled alike."""
    source = record_dataset(lengths=(7, 10), tasks=TASKS, cameras=("front",), size=(64, 64), seed=1)
    output = tmp_path_factory.mktemp("round-trips") / "others"
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, ("--root", source, "--vlm", tiny_vlm, "--output", output))])
    assert stopped.value.code == 0
    return output


@pytest.fixture
def copy(labelled: Path, tmp_path: Path) -> Path:
    """The labelled dataset, to be changed."""
    return shutil.copytree(labelled, tmp_path / "copy")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    return call


@pytest.fixture
def label(run: Run, tiny_vlm: Path) -> Label:
    """Label a dataset and return how many episodes went through the VLM."""

    def call(root: Path, output: Path) -> int:
        code, out, err = run("label", "--root", root, "--vlm", tiny_vlm, "--output", output)
        assert code == 0, err
        [line] = [line for line in out.splitlines() if line.startswith("of these scored now")]
        return int(line.split()[-1])

    return call
