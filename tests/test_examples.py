"""The examples run as they stand, on the bundled dataset, and the public names are what they use."""

import ast
import base64
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import JobHardware
from packaging.requirements import Requirement

import lerobot_topreward
from lerobot_topreward.cli import main
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation
from lerobot_topreward.vlm.identity import BUILTIN
from lerobot_topreward.vlm.published import ROOM, SIZES

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
def test_the_notebook_for_colab_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the demo's dataset and VLM in place of its parameters; nothing is installed or pushed."""
    monkeypatch.chdir(tmp_path)
    # All that it takes of IPython, which only notebooks have.
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str))
    commands: list[list[str]] = []

    def run(command: str) -> None:
        program, *words = shlex.split(command)
        commands.append(words)
        if program == "lerobot-topreward":
            with pytest.raises(SystemExit) as stopped:
                main(words)
            assert stopped.value.code == 0, capsys.readouterr()

    cells = json.loads((EXAMPLES / "label_on_colab.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    values: dict[str, Any] = {"run": run}
    exec(code[0], values)  # its parameters
    # As far as its own arithmetic goes, the largest checkpoint that fits into a T4's 15 GB.
    assert SIZES[values["VLM"]] == max(size for size in SIZES.values() if size * ROOM < 15e9)
    assert values["DTYPE"] == "float16"
    values |= {"DATASET": f"--root {DATASET}", "EPISODES": "0:2", "VLM": BUILTIN}
    values |= {"DTYPE": "float32", "PUSH": False}
    for cell in code[1:]:
        # As a notebook reads them: braces name variables, `!` and `%` begin a command.
        exec(re.sub(r"^( *)[!%](.*)$", r"\1run(f'\2')", cell, flags=re.MULTILINE), values)
    installed, dry, label, evaluate, report = commands
    assert installed == ["install", "-q", "lerobot-topreward"]
    assert dry == [*label, "--dry-run"]
    assert [evaluate[0], report[0]] == ["evaluate", "report"]
    printed = capsys.readouterr().out
    assert re.search("episodes labelled +2", printed)
    assert "static" in printed
    page = base64.b64encode((tmp_path / "report.html").read_bytes()).decode()
    shown = values["SHOW"].replace("CONTENT", values["content"])
    assert shown.count(page) == 1
    assert code[-1].strip().endswith("lerobot-topreward label {OPTIONS} --push-to-hub")


def test_the_script_for_jobs_names_what_it_needs() -> None:
    """As PEP 723 and `hf jobs uv run` read it."""
    from huggingface_hub.cli._uv_script_header import parse_uv_script_header

    text = (EXAMPLES / "label_on_jobs.py").read_text(encoding="utf-8")
    launch = parse_uv_script_header(text)
    assert launch is not None
    assert launch.secrets == ["HF_TOKEN"]
    assert launch.flavor in {flavor.value for flavor in JobHardware}
    lines = text.partition('# ///\n"""')[0].splitlines()[1:]
    header = tomllib.loads("\n".join(line[2:] for line in lines))
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    assert header["requires-python"] == project["requires-python"]
    (package,) = map(Requirement, header["dependencies"])
    assert package.name == project["name"]
    assert package.extras <= project["optional-dependencies"].keys()
    assert package.specifier.contains(project["version"])


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
