"""The second distribution, `lerobot_policy_topreward`, which LeRobot finds by its name."""

import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from patched_runs import WEIGHTED, Runs
from programs import run_python

REPOSITORY = Path(__file__).parents[2]
DISCOVERY = tomllib.loads((REPOSITORY / "discovery/pyproject.toml").read_text(encoding="utf-8"))


def test_its_version_is_that_of_the_project() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    project, ours = tomllib.loads(text)["project"], DISCOVERY["project"]
    named = [ours["dependencies"], *ours["optional-dependencies"].values()]
    for field in ("version", "requires-python", "license"):
        assert ours[field] == project[field]
    for (requirement,) in named:
        extra = re.fullmatch(r"lerobot-topreward\[(\w+)\]==(.*)", requirement)
        assert extra is not None
        assert extra[1] in project["optional-dependencies"]
        assert extra[2] == project["version"]
    # LeRobot imports the module that is called as the distribution.
    assert DISCOVERY["tool"]["setuptools"]["py-modules"] == [ours["name"]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which it is installed."""
    name = DISCOVERY["project"]["name"]
    (tmp_path / "site" / f"{name}-1.dist-info").mkdir(parents=True)
    shutil.copy(REPOSITORY / "discovery" / f"{name}.py", tmp_path / "site")
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
    (tmp_path / "site" / f"{name}-1.dist-info" / "METADATA").write_text(metadata)
    return tmp_path / "site"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stock_lerobot_train_needs_no_flag(
    runs: Runs, write_labels: Callable[..., Path], site: Path
) -> None:
    labeled = Runs(write_labels(runs.root), runs.folder)
    env = {"PYTHONPATH": str(site)}
    simulated = () if find_spec("lerobot_env_so101") is None else ("--env.type=so101_pick_place",)
    options = labeled.options(
        "run", "--steps=2", "--env_eval_freq=0", *WEIGHTED, *simulated, policy="act"
    )
    program = Path(sys.executable).with_name("lerobot-train")
    ran = run_python(program, *options, env=env)
    assert "sample_weight_mean_weight" in ran.stderr, ran.stderr
    assert labeled.saved("run").is_dir()
    resume = ("--resume=true", f"--config_path={labeled.saved('run')}", "--steps=3")
    ran = run_python("-m", "lerobot.scripts.lerobot_train", *resume, env=env)  # as the main module
    assert labeled.saved("run", "000003").is_dir(), ran.stderr
    # Our own command, which patches the trainer itself.
    options = labeled.options("ours", "--steps=2", "--weighting.beta=0.7", policy="act")
    ran = run_python("-m", "lerobot_topreward", "train", *options, env=env)
    assert ran.returncode == 0, ran.stderr
    assert labeled.saved("ours").is_dir()
