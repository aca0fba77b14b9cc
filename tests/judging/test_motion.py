"""The numbers of a movement against movements whose numbers are known."""

from dataclasses import replace

import numpy as np
import pytest
from recordings import FPS, SIGNALS, make_recording, make_recordings

from lerobot_topreward.judging.motion import (
    count_reversals,
    fill_gaps,
    find_runs_of,
    find_still,
    longest_run,
    measure_agreement,
    measure_jerk,
    measure_path,
    task_z,
)
from lerobot_topreward.judging.profile import measure_profile
from lerobot_topreward.records import Signals


def test_z_is_that_of_the_issue() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    scale = max(1.4826 * 1.0, 0.1 * 3.0)
    np.testing.assert_allclose(task_z(values), (np.array(values) - 3) / scale)
    # Nearly alike: a tenth of the median is the scale.
    np.testing.assert_allclose(task_z([10.0, 10.0, 10.0, 13.0])[3], 3.0)
    assert np.isnan(task_z([np.nan, 1.0, 1.0])[0])
    assert task_z([0.0, 0.0, 0.0, 0.2])[3] == np.inf
    assert not task_z([0.0, 0.0]).any()
    assert np.isnan(task_z([np.nan, np.nan])).all()


def test_a_minimum_jerk_movement_has_the_jerk_that_it_must_have() -> None:
    # x = 10 s^3 - 15 s^4 + 6 s^5: integral of jerk^2 is 720 / T^5, the greatest speed 1.875 / T.
    seconds, fps = 2.0, 1000.0
    s = np.arange(0, 1, 1 / (seconds * fps))
    path = (10 * s**3 - 15 * s**4 + 6 * s**5)[:, None]
    assert measure_jerk(path, fps=fps) == pytest.approx(np.log(720 / 1.875**2), abs=0.02)
    shaken = path + 0.001 * np.sin(40 * np.pi * s)[:, None]
    assert measure_jerk(shaken, fps=fps) > measure_jerk(path, fps=fps)
    assert np.isnan(measure_jerk(path[:3], fps=fps))
    assert np.isnan(measure_jerk(np.zeros((50, 2)), fps=fps))


def test_paths_and_reversals() -> None:
    line = np.linspace([0, 0], [3, 4], 20)
    assert measure_path(line) == pytest.approx(1)
    there_and_back = np.concatenate([line, line[::-1]])
    assert measure_path(there_and_back) == pytest.approx(2)
    assert np.isnan(measure_path(np.zeros((5, 2))))
    assert count_reversals(there_and_back) == 2  # both joints turn once
    wave = np.sin(np.linspace(0, 6 * np.pi, 300))[:, None]
    assert count_reversals(wave) == 6
    assert count_reversals(wave * 0.01) == 0  # below 3 % of the range


def test_runs() -> None:
    mask = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=bool)
    assert find_runs_of(mask) == [(1, 2), (4, 6), (8, 8)]
    assert longest_run(mask) == (4, 6)
    assert longest_run(~np.ones(3, dtype=bool)) is None
    assert find_runs_of(np.ones(2, dtype=bool)) == [(0, 1)]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_still_frames_are_found_through_noise(noise: float) -> None:
    rng = np.random.default_rng(0)
    recordings = make_recordings(10)
    for recording in recordings:
        recording.values[60:100] = recording.values[60]
        recording.values[:] += rng.normal(0, noise, recording.values.shape)
    profile = measure_profile(recordings, SIGNALS, fps=FPS)
    for recording in recordings:
        still = find_still(recording.values, profile)
        assert still[62:98].all()
        assert still.mean() < 0.6


@pytest.mark.parametrize("name", ["x.vel", "joint_velocity_0", "theta.VEL", "shoulder.pos"])
def test_driving_on_at_one_speed_is_not_standing_still(name: str) -> None:
    """A mobile base may have no other signal; its speed is 0 for a second and 1 for the others."""
    names = (f"action.{name}", f"observation.state.{name}")
    signals = Signals(names, commands=(0,), readings=(1,), pairs=((0, 1),), grippers=())
    speed = np.repeat([0.0, 0.1, -0.1], 30)[:, None]
    recordings = [
        replace(make_recording(episode, frames=90), values=np.hstack([speed, speed + 0.0004]))
        for episode in range(10)
    ]
    profile = measure_profile(recordings, signals, fps=FPS)
    still = find_still(recordings[0].values, profile)
    assert still[5:25].all()
    assert still[40:].any() == (name == "shoulder.pos")


def test_agreement_is_the_mean_correlation_of_what_overlaps() -> None:
    profile = measure_profile(iter(make_recordings(4)), SIGNALS, fps=FPS)
    values = make_recording(1, frames=90, lag=3).values
    agreement, reach = measure_agreement(values, profile), int(FPS)
    for lag in range(-reach, reach + 1):
        joints = []
        for command, reading in SIGNALS.pairs:
            if not profile.two_valued[command]:
                ahead = values[max(0, -lag) : 90 - max(0, lag), command]
                behind = values[max(0, lag) : 90 - max(0, -lag), reading]
                joints.append(np.corrcoef(ahead, behind)[0, 1])
        assert agreement[lag + reach] == pytest.approx(np.mean(joints), abs=1e-9)


def test_agreement_is_greatest_at_the_lag() -> None:
    recordings = [make_recording(episode, lag=5) for episode in range(8)]
    profile = measure_profile(recordings, SIGNALS, fps=FPS)
    for recording in recordings:
        agreement = measure_agreement(recording.values, profile)
        assert len(agreement) == 2 * FPS + 1
        assert int(np.nanargmax(agreement)) - FPS == 5
        assert agreement.max() > 0.99
    assert np.isnan(measure_agreement(np.zeros((40, 12)), profile)).all()


def test_gaps_are_filled_with_what_came_before() -> None:
    given = np.array([[np.nan, 1.0], [2.0, np.inf], [np.nan, 3.0]])
    np.testing.assert_array_equal(fill_gaps(given), [[0, 1], [2, 1], [2, 3]])
