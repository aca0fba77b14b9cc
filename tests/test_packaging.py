"""What the wheel holds, and rules about imports that no linter knows."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lerobot_topreward

REPOSITORY = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def _source_folders() -> dict[str, Path]:
    """Every folder with an ``__init__.py``, by the name under which it is imported."""
    mapped = SETUPTOOLS["package-dir"]
    return {
        ".".join((package, *init.parent.relative_to(REPOSITORY / folder).parts)): init.parent
        for package, folder in mapped.items()
        for init in (REPOSITORY / folder).rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    assert sorted(_source_folders()) == sorted(SETUPTOOLS["packages"])


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without ``__init__.py`` imports here and vanishes from the wheel."""
    folders = {
        module.parent
        for folder in SETUPTOOLS["package-dir"].values()
        for module in (REPOSITORY / folder).rglob("*.py")
    }
    assert folders == set(_source_folders().values())


def test_version_is_the_one_in_pyproject() -> None:
    assert lerobot_topreward.__version__ == PYPROJECT["project"]["version"]


def test_changelog_begins_with_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    first = next(line for line in changelog.splitlines() if line.startswith("## ["))
    assert first.startswith(("## [Unreleased]", f"## [{PYPROJECT['project']['version']}]"))


def test_constraints_pin_every_direct_requirement_within_its_range() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    pins = [
        Requirement(line)
        for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    ]
    assert all(pin.url is None for pin in pins)
    pinned = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    for text in (*project["dependencies"], *(text for extra in extras for text in extra)):
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{text}: not in constraints.txt, run make constraints"
        assert requirement.specifier.contains(version), f"{text}: pinned to {version}"


def test_versions_written_elsewhere_are_those_of_the_project() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PYPROJECT["project"]["version"]
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for repo in hooks["repos"]:
        for hook in repo["hooks"]:
            assert set(hook["additional_dependencies"]) <= set(pins)


@pytest.mark.parametrize("folder", ["policies", "train", "configs"])
def test_ruff_refuses_a_bare_import_of_a_mapped_folder(folder: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "x.py", "-"],
        input=f"import {folder}\n",
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TID251" in result.stdout, result.stderr


def _imports(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_only_the_vlm_package_imports_transformers() -> None:
    importers = {
        module.relative_to(REPOSITORY)
        for folder in _source_folders().values()
        for module in folder.glob("*.py")
        if "transformers" in _imports(module)
    }
    rest = {module for module in importers if module.parent != Path("lerobot_topreward/vlm")}
    assert rest == {Path("lerobot_topreward/simulation/tiny_vlm.py")}  # makes a checkpoint


# A package or module imports only those on lines above its own; `demo` alone runs other commands.
ORDER = (
    "errors records",
    "rewards",
    "files hub_errors console config lerobot_features priority",
    "vlm",
    "data",
    "storage",
    "scoring judging",
    "publish reward_model online",
    "label watch check compare evaluate curate report serve_args",
    "policies",
    "train",
    "plugin",
    "simulation",
    "demo",
    "cli",
    "__main__",
)
LEVEL = {name: level for level, line in enumerate(ORDER) for name in line.split()}


def _inner_imports(module: Path) -> set[str]:
    """The packages of ours that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("lerobot_topreward.")}


def test_a_package_imports_only_what_stands_before_it() -> None:
    wrong: list[str] = []
    for package, folder in _source_folders().items():
        for module in folder.glob("*.py"):
            room = package.partition(".")[2].partition(".")[0] or module.stem
            for name in _inner_imports(module) - {room}:
                if room in LEVEL and LEVEL[name] >= LEVEL[room]:
                    wrong.append(f"{module.relative_to(REPOSITORY)} imports {name}")
    assert sorted(wrong) == []


def test_no_module_is_longer_than_350_lines() -> None:
    folders = [*_source_folders().values(), REPOSITORY / "benchmarks"]
    modules = [module for folder in folders for module in folder.glob("*.py")]
    modules += (REPOSITORY / "tests").rglob("*.py")
    long = {
        str(module.relative_to(REPOSITORY))
        for module in modules
        if len(module.read_text(encoding="utf-8").splitlines()) > 350
    }
    assert sorted(long) == []


# What reads a command line names its flags; so does who quotes another program's.
NAMES_FLAGS = {
    "lerobot_topreward/cli.py",
    "lerobot_topreward/config.py",
    "lerobot_topreward/console.py",
    "lerobot_topreward/data/info.py",  # LeRobot's converter, here and below
    "lerobot_topreward/hub_errors.py",
    "lerobot_topreward/scoring/launch/job_plan.py",  # uv's own
    "lerobot_topreward/serve_args/command.py",  # vLLM's own
    "policies/choice.py",  # lerobot-train's own flags, here and below
    "train/arguments.py",
    "train/checkpoint.py",
    "train/command.py",
    "train/lerobot_patch.py",
    "train/trainer_config.py",
}


def test_only_the_command_line_names_flags() -> None:
    """Elsewhere a message says `max_stall`, which the console spells as the command line does."""
    naming: set[str] = set()
    for folder in _source_folders().values():
        for module in folder.glob("*.py"):
            nodes = [*ast.walk(ast.parse(module.read_text(encoding="utf-8")))]
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            texts = [
                node.value
                for node in nodes
                if isinstance(node, ast.Constant) and id(node) not in docstrings
            ]
            if any(
                re.search(r"(?<![\w-])--[a-z]", text) for text in texts if isinstance(text, str)
            ):
                naming.add(str(module.relative_to(REPOSITORY)))
    assert sorted(naming - NAMES_FLAGS) == []


@pytest.mark.slow
def test_the_wheel_holds_every_source_and_data_file_and_nothing_else(tmp_path: Path) -> None:
    # By way of the sdist, as a release is built; the installed setuptools needs no network.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, REPOSITORY],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {Path(name) for name in archive.namelist()}
    held = {path for path in held if not path.parts[0].endswith(".dist-info")}

    expected: set[Path] = set()
    for package, folder in _source_folders().items():
        inside = Path(*package.split("."))
        expected |= {inside / module.name for module in folder.glob("*.py")}
        for pattern in SETUPTOOLS["package-data"].get(package, []):
            expected |= {
                inside / file.relative_to(folder)
                for file in folder.glob(pattern)
                if file.is_file() and "__pycache__" not in file.parts
            }
    assert Path("lerobot_topreward/py.typed") in expected
    assert held == expected
