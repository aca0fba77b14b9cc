"""Rewards while a simulated SO-101 moves, through the loop of LeRobot's HIL-SERL.

    python examples/online_rewards.py              # 10 steps a second, as a robot would
    python examples/online_rewards.py --unpaced    # each step once the last score is there

Scripted episodes, good and bad, pass LeRobot's own processors and one more step, which asks the
demo's VLM in a thread of its own. The physics and the pictures come first: without a GPU they take
longer than a tick. Needs the extra `sim`.

Episodes are shown to their end, while training ends one at its first success: so one that is undone
after that is said to be a success.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from lerobot.envs import HILSerlRobotEnvConfig
from lerobot.lerobot_types import TransitionKey
from lerobot.rl.gym_manipulator import (
    make_processors,
    reset_and_build_transition,
    step_env_and_process_transition,
)
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.robot_utils import precise_sleep

from lerobot_topreward import OnlineScorer, VlmConfig, load_scorer
from lerobot_topreward.online.step import INFO, OnlineRewardStep
from lerobot_topreward.simulation.environment import PickPlaceEnv
from lerobot_topreward.simulation.episodes import Attempt, act_out
from lerobot_topreward.simulation.tasks import COLORS, KINDS, instruction
from lerobot_topreward.vlm.identity import BUILTIN

HZ = 10


class Recorded(PickPlaceEnv):
    """Remembers what it returned."""

    def reset(self, seed: int | None = None, **options: Any) -> Any:
        self.returned, self.actions = [super().reset(seed=seed, **options)], []
        return self.returned[0]

    def step(self, action: np.ndarray) -> Any:
        self.actions.append(torch.from_numpy(action))
        self.returned.append(super().step(action))
        return self.returned[-1]


class Replayed:
    """Returns it again, as an environment of LeRobot's loop."""

    def __init__(self, env: Recorded) -> None:
        self.returned = iter(env.returned)

    def reset(self) -> Any:
        return next(self.returned)

    def step(self, action: np.ndarray) -> Any:
        return next(self.returned)


def run_episode(env: Recorded, step: OnlineRewardStep, *, paced: bool) -> tuple[str, np.ndarray]:
    replay: Any = Replayed(env)
    observer, actor = make_processors(replay, None, HILSerlRobotEnvConfig(name="gym_hil", fps=HZ))
    observer.steps.insert(3, step)  # where the images are there, without a batch dimension
    transition = reset_and_build_transition(replay, observer, actor)
    rewards, ages, took = [], [], []
    for action in env.actions:
        began = time.perf_counter()
        transition = step_env_and_process_transition(replay, transition, action, observer, actor)
        rewards.append(transition[TransitionKey.REWARD])
        ages.append(transition[TransitionKey.INFO][INFO].get("age", np.nan))
        took.append(time.perf_counter() - began)
        if paced:
            precise_sleep(max(1 / HZ - took[-1], 0.0))
        else:
            step.background.wait()
    said = "success" if transition[TransitionKey.INFO][TeleopEvents.SUCCESS] else "failure"
    skipped = transition[TransitionKey.INFO][INFO]["skipped"]
    line = (
        f"reward {rewards[0]:.2f} -> {rewards[-1]:.2f}  said {said}  age {np.nanmedian(ages):.2f} s"
        f"  {skipped} images skipped  {len(took)} steps, at most {1000 * max(took):.0f} ms"
    )
    return line, np.array(took)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--unpaced", action="store_true")
    parser.add_argument("--episodes", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the VLM is tiny, and the loop needs a core
    scorer = load_scorer(VlmConfig(vlm=BUILTIN, device="cpu"))
    steps = {
        color: OnlineRewardStep(
            instruction=instruction(color),
            fps=HZ,
            success_threshold=0.85,
            scorer=OnlineScorer(scorer, instruction(color), beyond="thin"),
        )
        for color in COLORS
    }
    env = Recorded(pixels=True)
    took = []
    for number in range(options.episodes):
        kind = KINDS[number % len(KINDS)]
        attempt = Attempt(env, np.random.default_rng([7, number]))
        act_out(attempt, kind)
        attempt.hold(10)
        truth = "success" if env.returned[-1][4]["is_success"] else "failure"
        line, seconds = run_episode(env, steps[env.color], paced=not options.unpaced)
        took.append(seconds)
        print(f"{kind:<11} truth {truth}  {line}", flush=True)
    if not options.unpaced:
        every = np.concatenate(took)
        missed = int((every > 1 / HZ).sum())
        print(f"{missed} of {len(every)} ticks of {1000 // HZ} ms missed")
    for step in steps.values():
        step.close()
    env.close()


if __name__ == "__main__":
    main()
