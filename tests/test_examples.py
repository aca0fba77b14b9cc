"""The examples run as they stand, on the bundled dataset, and the public names are what they use."""

import ast
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lerobot_topreward
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_public_names_can_be_imported_and_are_few() -> None:
    assert len(lerobot_topreward.__all__) <= 21
    for name in lerobot_topreward.__all__:
        assert getattr(lerobot_topreward, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lerobot_topreward.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_imports_neither_torch_nor_lerobot() -> None:
    code = "import sys, lerobot_topreward; print({'torch', 'lerobot', 'numpy'} & {*sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "set()\n"


@pytest.fixture
def run_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run an example as a program and return what it printed."""

    def run(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_label_judge_curate_then_weight_a_loop(
    run_example: Callable[..., str], tmp_path: Path
) -> None:
    printed = run_example("label_judge_curate.py", tmp_path)
    assert "12 episodes labeled, 0 failed" in printed
    assert "dropped" in printed
    assert (tmp_path / "good/meta/info.json").is_file()
    printed = run_example("weight_own_loop.py", tmp_path / "good")
    losses = [float(line.split()[-1]) for line in printed.splitlines() if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_own_check(run_example: Callable[..., str]) -> None:
    lines = run_example("own_check.py").splitlines()
    found = [line.split(": ")[1] for line in lines]
    assert set(found) == {"ends in motion", "idle"}
    assert found.count("ends in motion") < 10


@pytest.mark.slow
def test_own_scorer(run_example: Callable[..., str]) -> None:
    printed = run_example("own_scorer.py")
    progress = [float(line.split()[-1]) for line in printed.splitlines()]
    assert len(progress) >= 8
    assert min(progress) >= 0
    assert max(progress) <= 1


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((EXAMPLES / "score_a_clip.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    values: dict[str, object] = {}
    exec(compile(ast.parse(code), "score_a_clip.ipynb", "exec"), values)
    assert "log P(True)" in capsys.readouterr().out


@pytest.mark.slow
def test_online_rewards_rise_on_success_alone(run_example: Callable[..., str]) -> None:
    try:
        require_simulation()
    except UserError as error:
        pytest.skip(str(error))
    threads = torch.get_num_threads()
    lines = run_example("online_rewards.py", "--unpaced", "--episodes", "2").splitlines()
    torch.set_num_threads(threads)
    found = {line.split()[2]: line for line in lines}
    rewards = {truth: float(line.split()[6]) for truth, line in found.items()}
    assert rewards["success"] > rewards["failure"]
    for truth, line in found.items():
        assert f"said {truth}" in line
        assert "0 images skipped" in line
