import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lerobot_topreward.demo
from lerobot_topreward.cli import main
from lerobot_topreward.errors import UserError
from lerobot_topreward.simulation.headless import require_simulation

pytestmark = pytest.mark.slow

ASSETS = Path(lerobot_topreward.demo.__file__).parent / "assets"


@pytest.fixture(scope="module", autouse=True)
def _simulation() -> None:
    try:
        require_simulation()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def envs() -> Iterator[Any]:
    """Two environments, as LeRobot's evaluation makes them."""
    from lerobot.envs import close_envs, make_env

    from lerobot_topreward.simulation.environment import PickPlaceEnvConfig

    made = make_env(PickPlaceEnvConfig(spread=0.3, episode_length=90), n_envs=2)
    yield made["so101_pick_place"][0]
    close_envs(made)


def test_lerobot_evaluates_the_scripted_expert_as_successful(envs: Any) -> None:
    from lerobot_env_so101.scripted.pick_place import PickPlaceController

    from lerobot_topreward.simulation.environment import ACTION_SCALE

    envs.reset(seed=[1, 2])
    experts = [PickPlaceController(action_scale=ACTION_SCALE) for _ in envs.envs]
    succeeded = np.zeros(2, dtype=bool)
    for _ in range(90):
        actions = []
        for expert, env in zip(experts, envs.envs, strict=True):
            world = env.unwrapped
            block = world.data.sensor("block_pos").data
            actions.append(expert.act(world.ik_point_pos, block, world.goal_pos))
        _, _, terminated, _, info = envs.step(np.stack(actions))
        if "final_info" in info:
            succeeded |= np.asarray(info["final_info"]["is_success"]) & terminated
        if succeeded.all():
            break
    assert succeeded.all()


def test_cube_and_goal_lie_within_their_share_of_the_table() -> None:
    from lerobot_topreward.simulation.environment import PickPlaceEnv

    env = PickPlaceEnv(spread=0.3)
    places = np.array(
        [env.reset(seed=seed)[0]["environment_state"][[0, 1, 3, 4]] for seed in range(8)]
    )
    low, high = [0.2025, -0.095, 0.2025, 0.035], [0.2475, -0.035, 0.2475, 0.095]
    assert ((places > np.array(low) - 1e-3) & (places < np.array(high) + 1e-3)).all()
    assert (np.ptp(places, axis=0) > 0.01).all()
    assert not env.reset(seed=0)[1]["is_success"]


def test_a_spread_beyond_the_table_is_refused() -> None:
    from lerobot_topreward.simulation.environment import PickPlaceEnv

    with pytest.raises(ValueError, match="spread must be > 0 and <= 1; got 2"):
        PickPlaceEnv(spread=2)


def test_the_camera_is_that_of_the_demo_dataset() -> None:
    import av

    from lerobot_topreward.simulation.environment import PickPlaceEnv, PickPlaceEnvConfig

    assert PickPlaceEnvConfig().gym_kwargs["pixels"]
    env = PickPlaceEnv(pixels=True)
    seen = [env.reset(seed=seed)[0]["pixels"]["front"] for seed in range(2)]
    assert (seen[0] != seen[1]).any()
    assert env.observation_space.contains(env.reset(seed=1)[0])
    np.testing.assert_array_equal(env.render().shape, seen[0].shape)
    [video] = ASSETS.glob("dataset/videos/observation.images.front/*/*.mp4")
    recorded = np.zeros(0)
    with av.open(str(video)) as container:
        recorded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert recorded.shape == seen[0].shape
    # Table and arm look the same at the beginning; cube and disc lie elsewhere.
    differ = np.abs(seen[0].astype(int) - recorded.astype(int)).max(axis=2) > 40
    assert differ.mean() < 0.1
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again["pixels"]["front"], seen[0])
    env.close()


def test_states_alone_are_not_rendered() -> None:
    from lerobot_topreward.simulation.environment import PickPlaceEnvConfig

    config = PickPlaceEnvConfig(obs_type="agent_pos")
    assert not config.gym_kwargs["pixels"]
    assert "pixels/front" not in config.features


def test_unknown_observations_are_refused(
    capfd: pytest.CaptureFixture[str], kept_process: None
) -> None:
    environment = (
        "--env.discover_packages_path=lerobot_topreward.simulation",
        "--env.type=so101_pick_place",
        "--env.obs_type=pixels",
    )
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--dataset.repo_id=a/b", "--policy.type=act", *environment])
    assert stopped.value.code == 2
    assert (
        "--env.obs_type: invalid choice: 'pixels' (choose from 'pixels_agent_pos', 'agent_pos')"
        in capfd.readouterr().err
    )


@pytest.mark.timeout(600)
def test_a_policy_trained_on_the_demo_dataset_is_evaluated(
    write_labels: Callable[..., Path], tmp_path: Path, kept_process: None
) -> None:
    root = write_labels(ASSETS / "dataset")
    small = ("dim_model=32", "n_heads=2", "dim_feedforward=32", "n_encoder_layers=1")
    with pytest.raises(SystemExit) as trained:
        main(
            [
                *("train", "--config", "act_so101", "--dataset.repo_id=local/demo"),
                *(f"--dataset.root={root}", "--dataset.episodes=[0,1]", "--policy.device=cpu"),
                *("--steps=1", "--batch_size=1", "--num_workers=0", f"--output_dir={tmp_path}/act"),
                *(f"--policy.{option}" for option in small),
                "--policy.pretrained_backbone_weights=null",
            ]
        )
    assert trained.value.code == 0
    command = [
        str(Path(sys.executable).with_name("lerobot-eval")),
        f"--policy.path={tmp_path}/act/checkpoints/last/pretrained_model",
        *(
            "--env.type=so101_pick_place",
            "--env.discover_packages_path=lerobot_topreward.simulation",
        ),
        *("--eval.n_episodes=2", "--eval.batch_size=1", "--eval.use_async_envs=false"),
        *("--env.episode_length=3", f"--output_dir={tmp_path}/eval"),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    info = json.loads((tmp_path / "eval/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2
    nothing = os.environ | {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/none"}
    broken = subprocess.run(
        command, check=False, cwd=tmp_path, env=nothing, capture_output=True, text=True
    )
    last = broken.stderr.strip().splitlines()[-1]
    assert "Try apt-get install libegl1 libgl1-mesa-dri, or MUJOCO_GL=osmesa" in last


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("egl", "Try apt-get install libegl1 libgl1-mesa-dri, or MUJOCO_GL=osmesa"),
        ("nonsense", "MUJOCO_GL='nonsense' (invalid value for environment variable"),
    ],
)
def test_opengl_that_does_not_work_is_one_line(backend: str, expected: str, tmp_path: Path) -> None:
    environment = os.environ | {"MUJOCO_GL": backend, "__EGL_VENDOR_LIBRARY_FILENAMES": "/none"}
    output = ("--output", str(tmp_path / "dataset"))
    done = subprocess.run(
        [sys.executable, "-m", "lerobot_topreward.simulation.simulate", "--seeds", "0:1", *output],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


def test_the_proofs_kinematics_move_the_arm_as_the_simulation_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    quick_kinematics = import_module("weighted_bc.run").quick_kinematics

    from lerobot_topreward.simulation.environment import PickPlaceEnv

    def move() -> np.ndarray:
        env, rng = PickPlaceEnv(spread=0.3), np.random.default_rng(0)
        env.reset(seed=1)
        joints = []
        for _ in range(60):
            env.step(rng.uniform(-1, 1, 4).astype(np.float32))
            joints.append(env.data.qpos.copy())
        env.close()
        return np.array(joints)

    slow = move()
    with quick_kinematics():
        quick = move()
    assert np.ptp(slow[:, :5], axis=0).max() > 0.1
    np.testing.assert_allclose(quick, slow, rtol=0, atol=1e-9)


@pytest.mark.timeout(1200)
def test_the_proof_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "benchmarks/so101_weighted_bc.py", "--quick"),
        *("--work", str(tmp_path), "--figure", str(tmp_path / "result.png")),
    ]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=900)
    outcomes = tmp_path / "outcomes.jsonl"
    lines = outcomes.read_text().splitlines()
    assert len(lines) == 8  # curate keeps the good ones, so that its runs are the oracle's
    assert len(json.loads(lines[0])["success"]) == 2
    assert (tmp_path / "result.png").stat().st_size > 10_000
    outcomes.write_text("\n".join(lines[1:]) + "\n")
    again = subprocess.run(
        command, check=True, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "1/1  " in again.stdout
    assert "| oracle |" in again.stdout
    assert outcomes.read_text().splitlines()[:-1] == lines[1:]
    only = (*command, "--only-print")
    printed = subprocess.run(
        only, check=True, cwd=root, capture_output=True, text=True, timeout=100
    )
    assert printed.stdout.strip().startswith("act: 1 seeds x 2 scenes")
