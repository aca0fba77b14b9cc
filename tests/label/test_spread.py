"""Labels of scores that many processes made are those of one process, byte for byte."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from programs import run_python, start_python
from spreading import KILLS, contents, for_clusters, has_whole_share, kill_one, scored

import lerobot_topreward.label.spread as spread_module
from lerobot_topreward.cli import main
from lerobot_topreward.files.atomic import output_lock

RecordDataset = Callable[..., Path]
_LIMIT_S = 500  # of a run with many processes on a busy machine
SLOWLY = ("--engine", "per-prefix", "--sample-fps", "10")  # so that there is time to be killed


def run(*options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


def refused(capfd: pytest.CaptureFixture, *options: str | Path) -> str:
    assert run("--root", "nowhere", *options) == 2
    return " ".join(capfd.readouterr().err.split())


@pytest.fixture(scope="module")
def dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=[20, 9, 31, 20, 12, 16], tasks=("pick up the cube", "open the drawer")
    )


@pytest.fixture(scope="module")
def long_dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=[20] * 12, cameras=("front",), file_per_episode=True)


@pytest.fixture(scope="module")
def whole(long_dataset: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels made by one process."""
    output = tmp_path_factory.mktemp("whole") / "labelled"
    options = ("--vlm", tiny_vlm, "--dtype", "float32", "--control", "blank", *SLOWLY)
    assert run("--root", long_dataset, *options, "--output", output) == 0
    return output


@pytest.fixture
def options(long_dataset: Path, tiny_vlm: Path) -> tuple[str | Path, ...]:
    return (
        *("--root", long_dataset, "--vlm", tiny_vlm, "--dtype", "float32"),
        *("--control", "blank", *SLOWLY),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--workers", "0"), "--workers must be 1..1000 or auto; got 0"),
        (("--workers", "many"), "--workers must be a whole number or auto; got 'many'"),
        (("--share", "5/4"), "--share must be a part of a whole, as 1/4 to 4/4; got 5/4"),
        (("--share", "0/4"), "got 0/4"),
        (("--share", "a"), "got a"),
        (("--share", "1/2"), "--dtype auto may be another on each machine"),
        (("--share", "1/2", "--workers", "2"), "--workers and --share do not go together"),
        (("--launch", "slurm"), "--launch needs --launch-config"),
        (("--launch-config", "x.yaml"), "--launch-config needs --launch"),
        (("--launch", "slurm", "--launch-config", "x.yaml"), "x.yaml must be a YAML file"),
        (("--launch", "lsf"), "--launch must be"),
        (("--workers", "2", "--device-map", "auto"), "--device-map auto spreads one VLM"),
        (("--workers", "2", "--device", "cuda:1"), "use --device cuda"),
    ],
)
def test_what_cannot_be_spread_is_refused_at_once(
    capfd: pytest.CaptureFixture, given: tuple[str, ...], said: str
) -> None:
    assert said in refused(capfd, *given)


@pytest.mark.parametrize(
    ("launch", "content", "said"),
    [
        ("slurm", "partition: gpu", "must say 'tasks: VALUE'"),
        ("slurm", "tasks: 4", "must say 'partition: VALUE'"),
        ("slurm", "tasks: 0\npartition: gpu", "tasks must be 1..1000; got 0"),
        ("slurm", "tasks: 4\npartition: gpu\ntime: 12:00:00", "put it in quotes"),
        ("slurm", "tasks: 4\npartition: gpu\ntime: soon", "time must be like 12:00:00"),
        ("slurm", "tasks: 4\npartition: gpu\nsbatch: [--account=x]", "without dashes"),
        ("slurm", 'tasks: 4\npartition: gpu\nsbatch: ["account=x\\n#SBATCH"]', "without dashes"),
        ("slurm", 'tasks: 4\npartition: "gpu\\nrm -r"', "must be a name without spaces"),
        ("slurm", "tasks: 4\npartition: gpu\ngpus_per_tusk: 1", "did you mean gpus_per_task?"),
        ("slurm", "tasks: 4\npartition: gpu\ngpus_per_task: -1", "gpus_per_task must be >= 0"),
        ("slurm", "- tasks", "must be a mapping"),
        ("slurm", "tasks: [", "cannot be read"),
        ("ray", "partition: gpu\ntasks: 4", "partition is no option"),
        ("ray", "tasks: four", "tasks must be a whole number"),
    ],
)
def test_a_launch_configuration_is_checked_before_anything_is_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture, launch: str, content: str, said: str
) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text(content)
    printed = refused(capfd, "--dtype", "float32", "--launch", launch, "--launch-config", file)
    assert said in printed
    assert f"--launch-config {file}" in printed


def test_a_missing_extra_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_module, "find_spec", lambda _: None)
    assert "pip install 'lerobot-topreward[scale]'" in refused(capfd, "--workers", "2")
    file = tmp_path / "ray.yaml"
    file.write_text("tasks: 2")
    launch = ("--dtype", "float32", "--launch", "ray", "--launch-config", file)
    assert "pip install 'lerobot-topreward[ray]'" in refused(capfd, *launch)


def test_slurm_is_looked_for_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datatrove", reason="it needs the extra scale")
    file = tmp_path / "slurm.yaml"
    file.write_text("tasks: 2\npartition: main\n")
    launch = ("--dtype", "float32", "--launch", "slurm", "--launch-config", file)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Slurm's sbatch, which is not here" in refused(capfd, *launch)
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert "cannot run in a job array itself" in refused(capfd, *launch)


@pytest.mark.slow
def test_shares_scored_apart_make_the_labels_of_one_run(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    one, apart = tmp_path / "one", tmp_path / "apart"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--dtype", "float32", "--control", "all")
    assert run(*options, "--output", one) == 0
    assert run(*options, "--output", apart, "--share", "2/2") == 0
    assert "run without --share to write the labels" in capfd.readouterr().out
    assert not (apart / "meta").exists()
    half = scored(apart)
    assert 0 < len(half) < len(scored(one))
    assert run(*options, "--output", apart, "--share", "1/2") == 0
    both = scored(apart)
    assert half.items() <= both.items()
    assert both.keys() == scored(one).keys()
    assert run(*options, "--output", apart) == 0
    assert scored(apart) == both
    assert contents(apart) == contents(one)


def test_a_share_goes_beside_shares_alone(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot_topreward.label.score._WAIT_S", 0)
    options = ("--root", dataset, "--vlm", tiny_vlm, "--dtype", "float32")
    output = tmp_path / "labelled"
    with output_lock(output):
        assert run(*options, "--output", output, "--share", "1/6") == 2
    assert run(*options, "--output", output, "--share", "1/6") == 0
    with output_lock(output, shared=True):
        assert run(*options, "--output", output, "--share", "2/6") == 0
        assert run(*options, "--output", output) == 2


def _options(arguments: tuple[str | Path, ...]) -> list[str]:
    return ["-m", "lerobot_topreward", "label", *map(str, arguments)]


@for_clusters
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_on_one_folder_make_the_labels_of_one(
    options: tuple[str | Path, ...], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    arguments = (*options, "--output", output)
    with (
        start_python(*_options((*arguments, "--share", "1/2")), limit_s=_LIMIT_S) as first,
        start_python(*_options((*arguments, "--share", "2/2")), limit_s=_LIMIT_S) as second,
    ):
        for program in (first, second):
            ended = program.read()
            assert ended.returncode == 0, ended.stderr
            assert "episodes scored now  6" in ended.stdout
    times = scored(output)
    assert run(*arguments) == 0
    assert scored(output) == times
    assert contents(output) == contents(whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=for_clusters)])
def test_workers_make_the_labels_of_one_process(
    options: tuple[str | Path, ...], whole: Path, tmp_path: Path, workers: int
) -> None:
    output = tmp_path / "labelled"
    given = (*options, "--output", output, "--workers", str(workers))
    ended = run_python(*_options(given), limit_s=_LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    assert f"processes            {workers}, with" in ended.stdout
    assert "scored 12 of 12 episodes" in ended.stdout
    assert contents(output) == contents(whole)
    times = scored(output)
    assert run(*given) == 0
    assert scored(output) == times


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", KILLS or [0])
def test_a_killed_worker_costs_one_episode(
    options: tuple[str | Path, ...], whole: Path, tmp_path: Path, seed: int
) -> None:
    output, chance = tmp_path / "labelled", random.Random(seed)
    given = (*options, "--output", output, "--workers", "2")
    with start_python(*_options(given), limit_s=_LIMIT_S) as program:
        kill_one(output, lambda: program.process.poll() is None, chance)
        ended = program.read()
    assert ended.returncode == 2
    assert "was killed (SIGKILL)" in ended.stdout
    assert "not scored yet" in ended.stderr
    kept = scored(output)
    # The other worker did its share; nothing of a killed one is half there.
    assert has_whole_share(kept)
    assert len(kept) < 13
    assert not (output / "meta" / "info.json").exists()
    assert run(*given) == 0
    assert kept.items() <= scored(output).items()
    assert contents(output) == contents(whole)


@for_clusters
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_stop_with_the_command_that_started_them(
    options: tuple[str | Path, ...], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    given = (*options, "--output", output, "--workers", "2")
    with start_python(*_options(given), limit_s=_LIMIT_S) as program:
        while len(scored(output)) < 2:
            assert program.process.poll() is None
            time.sleep(0.01)
        workers = psutil.Process(program.process.pid).children(recursive=True)
        program.process.kill()
        program.process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    kept = scored(output)
    assert 2 <= len(kept) < 14
    assert run(*given) == 0
    assert kept.items() <= scored(output).items()
    assert contents(output) == contents(whole)


@for_clusters
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_lets_workers_finish_their_episodes(
    options: tuple[str | Path, ...], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    given = (*options, "--output", output, "--workers", "2")
    with start_python(*_options(given), limit_s=_LIMIT_S, takes_ctrl_c=True) as program:
        while len(scored(output)) < 2:
            assert program.process.poll() is None
            time.sleep(0.01)
        program.process.send_signal(signal.SIGINT)
        ended = program.read()
    assert ended.returncode == 130, ended.stderr
    kept = scored(output)
    episodes = sum(name.startswith("episode") for name in kept)
    assert f"stopped: {episodes} episodes are scored and kept" in ended.stdout
    assert run(*given) == 0
    assert contents(output) == contents(whole)
