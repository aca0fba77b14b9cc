import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lerobot_topreward.demo.headless import require_simulation
from lerobot_topreward.errors import UserError

pytestmark = pytest.mark.slow


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

    from lerobot_topreward.demo.environment import PickPlaceEnvConfig

    made = make_env(PickPlaceEnvConfig(spread=0.3, episode_length=90), n_envs=2)
    yield made["so101_pick_place"][0]
    close_envs(made)


def test_lerobot_evaluates_the_scripted_expert_as_successful(envs: Any) -> None:
    from lerobot_env_so101.scripted.pick_place import PickPlaceController

    from lerobot_topreward.demo.environment import ACTION_SCALE

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
    from lerobot_topreward.demo.episodes import make_environment

    env = make_environment(spread=0.3)
    places = np.array(
        [env.reset(seed=seed)[0]["environment_state"][[0, 1, 3, 4]] for seed in range(8)]
    )
    low, high = [0.2025, -0.095, 0.2025, 0.035], [0.2475, -0.035, 0.2475, 0.095]
    assert ((places > np.array(low) - 1e-3) & (places < np.array(high) + 1e-3)).all()
    assert (np.ptp(places, axis=0) > 0.01).all()
    assert not env.reset(seed=0)[1]["is_success"]


def test_a_spread_beyond_the_table_is_refused() -> None:
    from lerobot_topreward.demo.environment import PickPlaceEnv

    with pytest.raises(ValueError, match="spread must be > 0 and <= 1; got 2"):
        PickPlaceEnv(spread=2)


@pytest.mark.timeout(1200)
def test_the_proof_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "benchmarks/so101_weighted_bc.py", "--quick"),
        *("--work", str(tmp_path), "--figure", str(tmp_path / "result.png")),
    ]
    root = Path(__file__).parent.parent
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=900)
    results = sorted((tmp_path / "results").iterdir())
    assert len(results) == 14
    assert len(json.loads(results[0].read_text())["success"]) == 2
    assert (tmp_path / "result.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in results}
    results[0].unlink()
    again = subprocess.run(
        command, check=True, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "| oracle |" in again.stdout
    after = {path: path.stat().st_mtime_ns for path in results}
    assert {path for path in results if after[path] == before[path]} == set(results[1:])
