"""`lerobot-topreward check` on real datasets: what it prints, how it exits, what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import change_rows, make_recordings, record_arm

from lerobot_topreward.check.command import check_dataset
from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.cli import main
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.defects import DEFECTS
from lerobot_topreward.records import EpisodeRecording, Finding

RecordDataset = Callable[..., Path]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["check", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clean episodes of an arm, recorded with LeRobot."""
    return record_arm(tmp_path_factory.mktemp("arm") / "dataset", make_recordings(10))


@pytest.fixture
def own_arm(arm: Path, tmp_path: Path) -> Path:
    return shutil.copytree(arm, tmp_path / "arm")


def test_the_docs_name_every_defect_and_what_to_do() -> None:
    page = (Path(__file__).parents[2] / "docs/recording.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if len(row) == 5]  # the measured ones have other columns
    told = {row[0].strip(): row[-1].strip() for row in rows}
    assert {defect: told.get(defect) for defect in DEFECTS} == DEFECTS
    assert {*told} - {*DEFECTS} == {"defect"}


def test_a_clean_recording_exits_with_0_and_stays_as_it_is(
    arm: Path, hashes: Callable[[Path], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(arm)
    assert run("--root", arm) == 0
    printed = capsys.readouterr().out
    assert "10 episodes, 1.3 minutes at 20 fps" in printed
    assert "says nothing of whether a task succeeded" in printed
    assert "0 broken, 0 suspect" in printed
    assert "completes the following task: pick up the cube Decide whether" in printed
    assert hashes(arm) == before


def test_what_is_broken_exits_with_3_and_is_listed(
    own_arm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_two(values: np.ndarray, episode: np.ndarray) -> None:
        values[np.flatnonzero(episode == 2)[10], 1] = np.nan
        values[np.flatnonzero(episode == 7)[20:23], 0] = np.inf

    change_rows(own_arm, "action", break_two)
    assert run("--root", own_arm) == 3
    printed = capsys.readouterr().out
    assert "not finite" in printed
    assert "2: 2, 7" in printed
    assert "2 broken, 0 suspect" in printed
    assert run("--root", own_arm, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"broken": 2, "suspect": 0, "note": 1}
    first = found["findings"][1]
    assert {key: first[key] for key in ("episode_index", "level", "defect", "frames")} == {
        "episode_index": 2, "level": "broken", "defect": "not finite", "frames": [10, 10],
    }  # fmt: skip
    assert first["seconds"] == [0.5, 0.5]
    assert "action.lift.pos not finite in 1 frames, first in frame 10" in first["text"]
    assert run("--root", own_arm, "--episodes", "0:2,3:7") == 0


def test_the_level_that_fails_is_an_option(own_arm: Path) -> None:
    change_rows(own_arm, "task_index", lambda values, episode: None)
    tasks = own_arm / "meta/tasks.parquet"
    table = pq.read_table(tasks)
    place = table.column_names.index("task")
    pq.write_table(table.set_column(place, "task", pa.array(["test"])), tasks)
    assert run("--root", own_arm) == 0
    assert run("--root", own_arm, "--fail-on", "suspect") == 3
    assert run("--root", own_arm, "--fail-on", "note") == 3


def test_a_wrong_frame_rate_is_a_sentence(
    own_arm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(own_arm, "timestamp", lambda values, episode: np.multiply(values, 2, out=values))
    assert run("--root", own_arm) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "wrong frame rate" in printed
    assert "100.0 ms" in printed


@pytest.mark.parametrize(
    "options",
    [
        {"state": 3},
        {"state": 1, "lengths": (1,)},
        {"lengths": (2, 1, 40)},
        {"fps": 1},
        {"video": False, "cameras": ("front",)},
        {"tasks": (("a b c", "d e f"),)},
    ],
)
def test_unusual_datasets_end_in_sentences(record_dataset: RecordDataset, options: dict) -> None:
    root = record_dataset(**{"cameras": (), **options})
    assert run("--root", root) == 0
    assert run("--root", root, "--json") == 0


def test_chunks_of_a_policy(arm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--root", arm, "--chunk-size", 155, "--fail-on", "suspect", "--json") == 3
    assert "fewer than a chunk of 155" in capsys.readouterr().out
    for name in ("chunk_size", "horizon"):
        (tmp_path / "config.json").write_text(json.dumps({name: 155}))
        assert run("--root", arm, "--policy-path", tmp_path, "--fail-on", "suspect") == 3
        assert run("--root", arm, "--policy-path", tmp_path) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "must be the folder of a policy"),
        ("{}", "must say chunk_size or horizon, a number of frames; got None"),
        ('{"chunk_size": true}', "got True"),
        ('{"horizon": -3}', "got -3"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_a_policy_that_does_not_say_its_chunk_is_refused(
    arm: Path, tmp_path: Path, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert run("--root", arm, "--policy-path", tmp_path) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chunk-size", "0"], "--chunk-size must be at least 1 frame; got 0"),
        (["--chunk-size", "9", "--policy-path", "x"], "--policy-path says the chunk size"),
        (["--camera", "front"], "--camera is for --video"),
        (["--sample-fps", "0"], "--sample-fps must be above 0"),
        (["--video", "--sample-fps", "1"], "needs a --sample-fps of at least 2; got 1"),
        (["--episodes", "9:12"], "is out of range: the dataset has episodes 0..9"),
        (["--episodes", "3:3"], "is empty"),
        (["--fail-on", "everything"], "--fail-on must be"),
        (["--min-luminance", "300"], "--min-luminance must be in 0..255"),
        (["--video"], "must have a color camera"),
    ],
)
def test_mistakes_are_refused_in_a_line(
    arm: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--root", arm, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") <= 2


def test_what_is_no_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--root", tmp_path) == 2
    assert "must hold a LeRobot dataset" in capsys.readouterr().err
    assert run() == 2
    assert "which dataset?" in capsys.readouterr().err


def test_pictures_are_looked_at(
    record_dataset: RecordDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    root = record_dataset(lengths=(20, 20), cameras=("front", "wrist"))
    assert run("--root", root, "--video", "--json", "--camera", "wrist") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["cameras"] == ["observation.images.wrist"]
    assert run("--root", root, "--video", "--json", "--min-luminance", 250) == 0
    out = json.loads(capsys.readouterr().out)
    assert len(out["cameras"]) == 2
    assert sum(f["defect"] == "dark" for f in out["findings"]) == 4


def test_a_video_that_is_missing_breaks_its_episodes(
    record_dataset: RecordDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(record_dataset(cameras=("front",)), tmp_path / "d")
    for path in (root / "videos").rglob("*.mp4"):
        path.unlink()
    assert run("--root", root) == 0
    capsys.readouterr()
    assert run("--root", root, "--video", "--json") == 3
    found = json.loads(capsys.readouterr().out)["findings"]
    broken = {f["episode_index"]: f["text"] for f in found if f["level"] == "broken"}
    assert sorted(broken) == [0, 1, 2]
    assert "is missing" in broken[0]


def test_own_checks_run_beside_ours(arm: Path) -> None:
    class Warm:
        def find(self, recording: EpisodeRecording, profile: object) -> list[Finding]:
            return [Finding(recording.episode_index, "note", "warm", "motors are warm")]

    result = check_dataset(CheckConfig(root=arm), checks=[Warm()])
    assert sum(found.defect == "warm" for found in result.inspection.findings) == 10
    assert not result.reaches("suspect")
    assert result.reaches("note")
    with pytest.raises(UserError, match="which dataset"):
        check_dataset(CheckConfig())
