"""`check` on a dataset that LeRobot's own recording loop wrote, from a leader and a follower arm."""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.pipeline_features import (
    aggregate_pipeline_dataset_features,
    create_initial_features,
)
from lerobot.processor import make_default_processors
from lerobot.robots import Robot, RobotConfig
from lerobot.scripts import lerobot_record
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot.utils.feature_utils import combine_feature_dicts

from lerobot_topreward.cli import main
from lerobot_topreward.data.recording import open_recorded

FPS = 30
SECONDS = 4
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
MOTORS: dict[str, type] = {f"{joint}.pos": float for joint in JOINTS}
TICK = 360 / 4096  # degrees: one step of the encoder of an STS3215
FROZEN = (60, 100)  # frames for which a disconnected leader repeats what it said last


def encode(degrees: np.ndarray) -> dict[str, float]:
    ticks = np.round(degrees / TICK) * TICK
    return dict(zip(MOTORS, ticks.tolist(), strict=True))


class _Device:
    """What both arms have in common; nothing has to be connected or calibrated."""

    is_connected = is_calibrated = True
    action_features = MOTORS

    def connect(self, calibrate: bool = True) -> None: ...
    def calibrate(self) -> None: ...
    def configure(self) -> None: ...
    def disconnect(self) -> None: ...


class Follower(_Device, Robot):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Goes a part of the way to its target in every frame."""

    config_class, name = RobotConfig, "follower"
    degrees = np.zeros(6)

    @property
    def observation_features(self) -> dict[str, type]:
        return MOTORS

    def get_observation(self) -> dict[str, Any]:
        return encode(self.degrees)

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.degrees = self.degrees + 0.4 * (np.array([*action.values()]) - self.degrees)
        return action


class Leader(_Device, Teleoperator):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Is moved by a hand through five poses, and can lose its cable for a while."""

    config_class, name = TeleoperatorConfig, "leader"

    @property
    def feedback_features(self) -> dict[str, type]:
        return {}

    def start(self, episode: int, *, loses_its_cable: bool) -> None:
        rng = np.random.default_rng(episode)
        poses = rng.uniform(-40, 40, size=(6, 6))
        poses[[0, -1]] = 0
        phase = np.linspace(0, 5, 2 * FPS * SECONDS)[: FPS * SECONDS + 9] * 1.9
        phase = np.minimum(phase, 4.999)
        before = phase.astype(int)
        smooth = (1 - np.cos(np.pi * (phase - before)))[:, None] / 2
        path = poses[before] + (poses[before + 1] - poses[before]) * smooth
        path += rng.normal(0, 0.1, path.shape)  # a hand is never still
        if loses_its_cable:
            path[FROZEN[0] : FROZEN[1]] = path[FROZEN[0]]
        self.path = iter(path)

    def get_action(self) -> dict[str, Any]:
        return encode(next(self.path))

    def send_feedback(self, feedback: dict[str, Any]) -> None: ...


Record = Callable[..., Path]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Record episodes with LeRobot's loop, whose clock does not wait."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    loop: list[Any] = [lerobot_record]
    if find_spec("lerobot.utils.cycle_timer"):  # which keeps the loop's time from 0.6.2 on
        loop.append(import_module("lerobot.utils.cycle_timer"))
    for module in loop:
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
        monkeypatch.setattr(module, "precise_sleep", sleep, raising=False)

    def run(*, disconnected: tuple[int, ...] = ()) -> Path:
        robot = Follower(RobotConfig(calibration_dir=tmp_path / "calibration"))
        leader = Leader(TeleoperatorConfig(calibration_dir=tmp_path / "calibration"))
        of_leader, to_robot, of_robot = make_default_processors()
        features = combine_feature_dicts(
            aggregate_pipeline_dataset_features(
                pipeline=of_leader,
                initial_features=create_initial_features(action=robot.action_features),
                use_videos=True,
            ),
            aggregate_pipeline_dataset_features(
                pipeline=of_robot,
                initial_features=create_initial_features(observation=robot.observation_features),
                use_videos=True,
            ),
        )
        root = tmp_path / "recorded"
        dataset = LeRobotDataset.create(
            "local/recorded", FPS, root=root, robot_type=robot.name, features=features
        )
        for episode in range(9):
            robot.degrees = np.zeros(6)
            leader.start(episode, loses_its_cable=episode in disconnected)
            lerobot_record.record_loop(
                robot=robot,
                events={"exit_early": False},
                fps=FPS,
                teleop_action_processor=of_leader,
                robot_action_processor=to_robot,
                robot_observation_processor=of_robot,
                dataset=dataset,
                teleop=leader,
                control_time_s=SECONDS,
                single_task="put the cube into the cup",
            )
            dataset.save_episode()
        dataset.finalize()
        return root

    return run


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--root", str(root), "--json"])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, json.loads(capsys.readouterr().out)


def test_what_lerobot_records_passes(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    root = record()
    signals = open_recorded(root, repo_id="local/recorded", option="`root`").signals
    assert [(signals.names[i], signals.names[j]) for i, j in signals.pairs] == [
        (f"action.{motor}", f"observation.state.{motor}") for motor in MOTORS
    ]
    assert [signals.names[i] for i in signals.grippers] == [
        "action.gripper.pos",
        "observation.state.gripper.pos",
    ]
    code, found = check(root, capsys)
    assert code == 0
    assert found["episodes"] == 9
    assert found["counts"]["broken"] == 0
    assert {f["defect"] for f in found["findings"] if f["level"] == "suspect"} <= {"idle", "jerky"}


def test_a_leader_that_lost_its_cable_is_found(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = check(record(disconnected=(4,)), capsys)
    assert code == 3
    broken = [finding for finding in found["findings"] if finding["level"] == "broken"]
    assert [(f["episode_index"], f["defect"]) for f in broken] == [(4, "frozen recording")]
    first, last = broken[0]["frames"]
    assert FROZEN[0] <= first < last < FROZEN[1]
