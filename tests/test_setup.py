"""scripts/setup.sh, with pretended interpreters on a PATH that holds nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TOOLS = ("cat", "cksum", "cp", "dirname", "grep", "mkdir", "rm", "sh")

# Answers what setup.sh asks of an interpreter, and notes what it was to install.
PYTHON = """#!{sh}
case "$*" in
    "-c "*) "{real}" -c "import sys; sys.version_info = {version}; $2" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "{name}" >"$3/made-by" ;;
    "-m pip --version") exit {without_pip} ;;
    "-m pip install "*) echo "pip $*" >>"$LOG"; exit "${{PIP_STATUS:-0}}" ;;
    *) exit 64 ;;
esac
"""
# Like pyenv's shim of a version that is installed but switched off.
BROKEN = """#!{sh}
echo "pyenv: command not found" >&2
exit 127
"""
UV = """#!{sh}
case "$1" in
    --version) echo "uv 0.0" ;;
    venv) mkdir -p .venv/bin && cp "{inside}" .venv/bin/python && echo "uv $*" >>"$LOG" ;;
    pip) echo "uv $*" >>"$LOG" ;;
esac
"""


class Machine:
    """A copy of the set-up script beside a PATH and a home to be filled by the test."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "check out"  # a space, for the quoting
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.log = folder / "log"
        for made in (self.checkout / "scripts", self.bin, self.home):
            made.mkdir(parents=True)
        shutil.copy(REPOSITORY / "scripts/setup.sh", self.checkout / "scripts")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        (self.checkout / "constraints.txt").write_text("numpy==2.2.6\n")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        self.sh = shutil.which("sh")

    def add(
        self,
        path: str | Path,
        script: str,
        *,
        version: tuple[int, ...] = (3, 12, 1),
        without_pip: int = 0,
        inside: str | Path = "",
    ) -> Path:
        target = self.bin / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            script.format(
                sh=self.sh,
                real=sys.executable,
                name=target.name,
                version=version,
                without_pip=without_pip,
                inside=inside,
            )
        )
        target.chmod(0o755)
        return target

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/setup.sh", *args],
            cwd=self.checkout,
            env={"PATH": str(self.bin), "HOME": str(self.home), "LOG": str(self.log), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def made_by(self) -> str:
        return (self.checkout / ".venv/made-by").read_text().strip()

    @property
    def installed(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("version", "suits"),
    [((3, 11, 9), False), ((3, 12, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)],
)
def test_takes_the_versions_that_the_pins_have_wheels_for(
    machine: Machine, version: tuple[int, ...], suits: bool
) -> None:
    machine.add("python3", PYTHON, version=version)
    assert (machine.run().returncode == 0) is suits


def test_says_in_one_sentence_that_there_is_no_python(machine: Machine) -> None:
    machine.add("python3", PYTHON, version=(3, 11, 7))
    result = machine.run()
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "no Python 3.12 or 3.13 was found" in result.stderr
    assert not (machine.checkout / ".venv").exists()


def test_skips_broken_shims_of_python_and_uv(machine: Machine) -> None:
    machine.add("python3.12", BROKEN)
    machine.add("uv", BROKEN)
    machine.add("python3.13", PYTHON)
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.made_by == "python3.13"
    (install,) = machine.installed
    assert install.startswith("pip -m pip install ")
    assert install.endswith(" --constraint constraints.txt --editable .")


def test_finds_a_version_that_pyenv_has_switched_off(machine: Machine) -> None:
    machine.add("python3.12", BROKEN)
    machine.add("python3", PYTHON, version=(3, 11, 7))
    machine.add(machine.home / ".pyenv/versions/3.12.1/bin/python", PYTHON)
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.made_by == "python"


def test_python_variable_comes_first(machine: Machine, tmp_path: Path) -> None:
    machine.add("python3.12", PYTHON)
    chosen = machine.add(tmp_path / "chosen python", PYTHON)
    assert machine.run(PYTHON=str(chosen)).returncode == 0
    assert machine.made_by == "chosen python"


def test_an_unsuitable_python_variable_is_mentioned_and_passed_over(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    result = machine.run(PYTHON="python2")
    assert result.returncode == 0
    assert "PYTHON=python2 is not a working Python 3.12 or 3.13" in result.stderr
    assert machine.made_by == "python3.12"


def test_uv_alone_brings_a_python(machine: Machine, tmp_path: Path) -> None:
    inside = machine.add(tmp_path / "inside", PYTHON)
    machine.add("uv", UV, inside=inside)
    result = machine.run("dev")
    assert result.returncode == 0, result.stderr
    venv, install = machine.installed
    assert venv == "uv venv --quiet --seed --python 3.12 .venv"
    assert install == (
        "uv pip install --python .venv/bin/python --constraint constraints.txt --editable .[dev]"
    )


def test_uv_uses_the_python_that_was_found(machine: Machine, tmp_path: Path) -> None:
    inside = machine.add(tmp_path / "inside", PYTHON)
    found = machine.add("python3.12", PYTHON)
    machine.add("uv", UV, inside=inside)
    assert machine.run().returncode == 0
    assert machine.installed[0] == f"uv venv --quiet --seed --python {found} .venv"


def test_installs_again_only_when_the_requirements_change(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    for _ in range(2):
        assert machine.run("dev").returncode == 0
    assert len(machine.installed) == 1
    (machine.checkout / "constraints.txt").write_text("numpy==2.3.0\n")
    assert machine.run("dev").returncode == 0
    assert len(machine.installed) == 2


def test_installs_only_the_extras_that_are_missing(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    for extras in ((), ("dev",), ("dev", "sim"), ("sim",), ("dev",), ()):
        assert machine.run(*extras).returncode == 0
    assert [line.rsplit(" ", 1)[1] for line in machine.installed] == [".", ".[dev]", ".[dev,sim]"]


def test_going_back_to_earlier_requirements_installs_again(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    constraints = machine.checkout / "constraints.txt"
    for pin, extra in (("numpy==1", "dev"), ("numpy==2", "sim"), ("numpy==1", "dev")):
        constraints.write_text(f"{pin}\n")
        assert machine.run(extra).returncode == 0
    assert len(machine.installed) == 3


def test_a_failed_installation_is_taken_up_again(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    assert machine.run(PIP_STATUS="3").returncode == 3
    assert machine.run().returncode == 0
    assert len(machine.installed) == 2


def test_a_failed_change_of_requirements_forgets_the_earlier_ones(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    constraints = machine.checkout / "constraints.txt"
    for pin, status in (("numpy==1", "0"), ("numpy==2", "3"), ("numpy==1", "0")):
        constraints.write_text(f"{pin}\n")
        assert machine.run(PIP_STATUS=status).returncode == int(status)
    assert len(machine.installed) == 3


@pytest.mark.parametrize("script", [BROKEN, PYTHON], ids=["broken", "too old"])
def test_remakes_an_environment_whose_python_will_not_do(machine: Machine, script: str) -> None:
    machine.add("python3.12", PYTHON)
    assert machine.run().returncode == 0
    machine.add(machine.checkout / ".venv/bin/python", script, version=(3, 11, 7))
    leftover = machine.checkout / ".venv/leftover"
    leftover.touch()
    assert machine.run().returncode == 0
    assert not leftover.exists()
    assert len(machine.installed) == 2


def test_remakes_an_environment_cut_short_before_it_had_pip(machine: Machine) -> None:
    machine.add("python3.12", PYTHON)
    machine.add(machine.checkout / ".venv/bin/python", PYTHON, without_pip=1)
    assert machine.run().returncode == 0
    assert machine.made_by == "python3.12"
    assert len(machine.installed) == 1


def test_says_when_uv_cannot_fetch_a_python(machine: Machine) -> None:
    machine.add("uv", UV, inside="/nonexistent")
    result = machine.run()
    assert result.returncode == 1
    assert "uv could not fetch one" in result.stderr.splitlines()[-1]


def test_keeps_the_environment_when_nothing_can_replace_it(machine: Machine) -> None:
    leftover = machine.checkout / ".venv/leftover"
    leftover.parent.mkdir()
    leftover.touch()
    assert machine.run().returncode == 1
    assert leftover.exists()
