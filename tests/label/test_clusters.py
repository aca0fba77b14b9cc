"""Labels made on a real Slurm and a real Ray of one node are those of one process, byte for byte."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import slurm_jobs, start_ray, start_slurm, wait_until
from programs import run_python, start_python
from spreading import KILLS, contents, for_clusters, has_whole_share, kill_one, scored

from lerobot_topreward.cli import main

_LIMIT_S = 500  # of one run on a cluster

RecordDataset = Callable[..., Path]
pytestmark = [for_clusters, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with start_slurm() as env:
        yield env


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    with start_ray() as address:
        yield address


@pytest.fixture(scope="module")
def options(record_dataset: RecordDataset, tiny_vlm: Path) -> list[str]:
    root = record_dataset(lengths=[20] * 12, cameras=("front",), file_per_episode=True)
    given = ("--root", root, "--vlm", tiny_vlm, "--dtype", "float32", "--control", "blank")
    return [*map(str, given), "--engine", "per-prefix", "--sample-fps", "10"]


@pytest.fixture(scope="module")
def whole(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels made by one process."""
    output = tmp_path_factory.mktemp("whole") / "labelled"
    with pytest.raises(SystemExit) as stopped:
        main(["label", *options, "--output", str(output)])
    assert stopped.value.code == 0
    return output


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    return "tasks: 2\ngpus_per_task: 0\ncpus_per_task: 1\nmem_per_cpu_gb: 2\n"


def _label(options: list[str], output: Path, launch: str, config: Path) -> list[str]:
    spread = ["--launch", launch, "--launch-config", str(config)]
    return ["-m", "lerobot_topreward", "label", *options, "--output", str(output), *spread]


@pytest.fixture
def on_slurm(
    options: list[str], tasks: str, slurm: dict[str, str], tmp_path: Path
) -> Callable[[Path], None]:
    """Submit the command to Slurm; its jobs go on by themselves."""
    config = tmp_path / "slurm.yaml"
    config.write_text(f'{tasks}partition: main\ntime: "00:10:00"\nsbatch: [comment=labels]\n')

    def submit(output: Path) -> None:
        arguments = _label(options, output, "slurm", config)
        ended = run_python(*arguments, env=slurm, limit_s=_LIMIT_S)
        assert ended.returncode == 0, ended.stderr
        assert "submitted            Slurm jobs" in ended.stdout

    return submit


def test_slurm_makes_the_labels_of_one_process(
    on_slurm: Callable[[Path], None], slurm: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    on_slurm(output)
    wait_until(lambda: not slurm_jobs(slurm), limit_s=_LIMIT_S)
    assert contents(output) == contents(whole)
    printed = output.glob("topreward/logs/*/finish/slurm_logs/*.out")
    assert any("episodes labelled    12" in path.read_text() for path in printed)


@pytest.mark.parametrize("seed", KILLS or [0])
def test_a_killed_task_of_slurm_costs_one_episode(
    on_slurm: Callable[[Path], None],
    slurm: dict[str, str],
    whole: Path,
    tmp_path: Path,
    seed: int,
) -> None:
    output = tmp_path / "labelled"
    on_slurm(output)
    kill_one(output, lambda: bool(slurm_jobs(slurm)), random.Random(seed))
    wait_until(lambda: not slurm_jobs(slurm), limit_s=_LIMIT_S)
    kept = scored(output)
    assert len(kept) < 13
    assert not (output / "meta" / "info.json").exists()
    on_slurm(output)
    wait_until(lambda: not slurm_jobs(slurm), limit_s=_LIMIT_S)
    assert kept.items() <= scored(output).items()
    assert contents(output) == contents(whole)


@pytest.fixture
def ray_config(tasks: str, ray: str, tmp_path: Path) -> Path:
    config = tmp_path / "ray.yaml"
    config.write_text(f'{tasks}address: "{ray}"\n')
    return config


def test_ray_makes_the_labels_of_one_process(
    options: list[str], ray_config: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    ended = run_python(*_label(options, output, "ray", ray_config), limit_s=_LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    assert "scored 12 of 12 episodes" in ended.stdout
    assert contents(output) == contents(whole)


@pytest.mark.parametrize("seed", KILLS or [0])
def test_a_killed_task_of_ray_costs_one_episode(
    options: list[str], ray_config: Path, whole: Path, tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "labelled"
    arguments = _label(options, output, "ray", ray_config)
    with start_python(*arguments, limit_s=_LIMIT_S) as program:
        kill_one(output, lambda: program.process.poll() is None, random.Random(seed))
        ended = program.read()
    assert ended.returncode == 2, ended.stderr
    assert "not scored yet" in ended.stderr
    kept = scored(output)
    assert has_whole_share(kept)
    assert len(kept) < 13
    ended = run_python(*arguments, limit_s=_LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    assert kept.items() <= scored(output).items()
    assert contents(output) == contents(whole)
