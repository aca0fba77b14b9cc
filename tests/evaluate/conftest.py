"""A labeled dataset, and the command line to ask about it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lerobot_topreward.cli import main
from lerobot_topreward.demo.command import DATASET

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="package")
def demo_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled episodes, some of them labelled by the bundled VLM."""
    root = tmp_path_factory.mktemp("evaluate") / "dataset"
    shutil.copytree(DATASET, root)
    arguments = ["label", "--root", str(root), "--vlm", "builtin:so101-demo", "--scale", "prob"]
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--episodes", "0:8", "--prefixes", "9", "--device", "cpu"])
    assert done.value.code == 0
    return root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main([*arguments])
        said = capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, said.out, said.err

    return call
