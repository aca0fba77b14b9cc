"""SO-101 pick-and-place episodes, good ones and the ways demonstrations go bad.

A scripted expert moves a cube onto a disc. Every kind of episode drives the same expert in another
way; the simulator says how far each got. Only physics happens here, see `rendering` for images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv
from lerobot_env_so101.scripted.pick_place import GRASP_HEIGHT, Phase, PickPlaceController

from lerobot_topreward.simulation.environment import ACTION_SCALE
from lerobot_topreward.simulation.tasks import COLORS, SUCCEEDING, instruction, kind_of

_REACHABLE = np.array([[0.15, -0.1], [0.3, 0.1]])  # meters, where the gripper can point down
_AWAY = 0.08  # meters from the disc that nobody would call "on the disc"
_LIFTED = 0.03  # meters above the table
_MAX_ATTEMPTS = 40
_MAX_FRAMES = 200
_CARRYING = (Phase.LIFT, Phase.TRAVERSE, Phase.LOWER, Phase.OPEN)

Point = Float64[np.ndarray, " 3"]  # meters, in the world


@dataclass(frozen=True, slots=True)
class Episode:
    """One simulated demonstration at 10 Hz and what truly happened in it."""

    seed: int
    kind: str  # one of KINDS
    color: str  # of the cube, a key of COLORS
    goal: Point  # center of the cube when placed
    qpos: Float64[np.ndarray, "frames joints"]  # the simulator's positions, for rendering
    agent_pos: Float32[np.ndarray, "frames 14"]
    environment_state: Float32[np.ndarray, "frames 6"]  # cube and goal, meters
    action: Float32[np.ndarray, "frames 4"]  # dx, dy, dz in units of ACTION_SCALE, grasp 0..1
    progress: Float32[np.ndarray, " frames"]  # 0..1, see `Progress`
    succeeded: Bool[np.ndarray, " frames"]  # the cube rests on the disc, released

    @property
    def success(self) -> bool:
        """Whether the task is accomplished when the episode ends."""
        return bool(self.succeeded[-1])

    @property
    def instruction(self) -> str:
        """The task text."""
        return instruction(self.color)


class Progress:
    """Stage-wise truth: reach to .3, lift to .5, carry to .85, set down .9, success 1.

    It is the furthest stage so far, except that undoing a success lowers it again.
    """

    def __init__(self, env: SO101PickPlaceGymEnv) -> None:
        """Remember where everything starts."""
        block = env.data.sensor("block_pos").data.copy()
        self._table = float(block[2])
        self._reach = float(np.linalg.norm(env.ik_point_pos - block))
        self._carry = float(np.linalg.norm(env.goal_pos[:2] - block[:2]))
        self._value = 0.0
        self._succeeded = False
        self._undone = False

    def update(self, env: SO101PickPlaceGymEnv, *, success: bool) -> float:
        """Return the progress after one more step, 0..1."""
        block = env.data.sensor("block_pos").data
        rise = float(block[2]) - self._table
        away = float(np.linalg.norm(env.goal_pos[:2] - block[:2]))
        self._succeeded |= success
        # A cube that still trembles on the disc is no longer a success for a frame or two; it is
        # undone only when it is lifted or leaves the disc.
        self._undone |= self._succeeded and not success and (rise > 0.005 or away > 0.03)
        carried = 1.0 - min(away / self._carry, 1.0)
        if self._undone:
            self._value = min(self._value, 0.85 * carried)
            return self._value
        if success:
            now = 1.0
        elif rise > _LIFTED:
            now = 0.5 + 0.35 * carried
        elif away < 0.03 and self._value > 0.5:
            now = 0.9 if rise < 0.005 else 0.85
        elif rise > 0.005:
            now = 0.3 + 0.2 * rise / _LIFTED
        else:
            grasp = block + np.array([0.0, 0.0, GRASP_HEIGHT])
            gap = float(np.linalg.norm(env.ik_point_pos - grasp))
            now = 0.3 * (1.0 - min(gap / self._reach, 1.0))
        self._value = max(self._value, now)
        return self._value


class Attempt:
    """An episode while it is made: steps the environment and remembers everything."""

    def __init__(self, env: SO101PickPlaceGymEnv, rng: np.random.Generator) -> None:
        """Start from a fresh random scene."""
        self.env = env
        self.rng = rng
        # So that time alone does not say how far an episode is.
        self.speed = float(rng.uniform(0.45, 0.9))
        self._observation, _ = env.reset(seed=int(rng.integers(2**31)))
        self._progress = Progress(env)
        self._success = False
        # qpos, agent_pos, environment_state, action, progress, success of every frame
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, bool]] = []

    def step(self, move: Float[np.ndarray, " 3"], grasp: float) -> None:
        """Apply one action (units of ACTION_SCALE, grasp 0 closed .. 1 open) for 0.1 s."""
        action = np.array([*move, grasp], dtype=np.float32)
        progress = self._progress.update(self.env, success=self._success)
        agent, state = (self._observation[name] for name in ("agent_pos", "environment_state"))
        qpos = self.env.data.qpos.copy()
        self.rows.append((qpos, agent, state, action, progress, self._success))
        self._observation, _, _, _, info = self.env.step(action)
        self._success = info["succeed"]

    def hold(self, frames: int, grasp: float | None = None) -> None:
        """Stay where the arm is, with the last grasp unless one is given."""
        grasp = float(self.rows[-1][3][3]) if grasp is None else grasp
        for _ in range(frames):
            self.step(np.zeros(3), grasp)

    def move_to(self, point: Point, grasp: float) -> None:
        """Move the grasp point to a place."""
        for _ in range(40):
            error = point - self.env.ik_point_pos
            if np.linalg.norm(error) < 0.012:
                return
            self.step(np.clip(error / ACTION_SCALE, -1, 1) * self.speed, grasp)

    def follow(
        self,
        expert: PickPlaceController,
        *,
        until: Phase = Phase.DONE,
        steps: int = _MAX_FRAMES,
        goal: Point | None = None,
        miss: Point | None = None,
        pause_chance: float = 0.0,
    ) -> None:
        """Let the scripted expert act until a phase; `miss` makes it grasp beside the cube."""
        # The expert is told where the cube is. For a miss it is told a place beside the cube and,
        # once it should be carrying, that the cube is between its jaws.
        believed = None if miss is None else self.block + miss
        for _ in range(steps):
            if expert.phase is until or len(self.rows) >= _MAX_FRAMES:
                return
            grasp_point = self.env.ik_point_pos
            block = self.block if believed is None else believed
            if believed is not None and expert.phase in _CARRYING:
                block = grasp_point - np.array([0.0, 0.0, GRASP_HEIGHT])
            action = expert.act(grasp_point, block, self.env.goal_pos if goal is None else goal)
            self.step(action[:3] * self.speed, float(action[3]))
            if pause_chance and self.rng.random() < pause_chance:
                self.hold(int(self.rng.integers(3, 8)), float(action[3]))

    def follow_into(self, expert: PickPlaceController, phase: Phase) -> None:
        """Let the expert act until a phase and up to three steps into it."""
        self.follow(expert, until=phase)
        for _ in range(int(self.rng.integers(0, 4))):
            if expert.phase is phase:
                self.follow(expert, steps=1)

    @property
    def block(self) -> Point:
        """Where the cube's center is."""
        return self.env.data.sensor("block_pos").data.copy()

    def choose_elsewhere(self) -> Point:
        """Choose a place on the table away from the disc and from the cube."""
        while True:
            point = self.rng.uniform(*_REACHABLE)
            gaps = [np.linalg.norm(point - p[:2]) for p in (self.env.goal_pos, self.block)]
            if gaps[0] > _AWAY and gaps[1] > 0.05:
                return np.array([*point, self.env.goal_pos[2]])

    def choose_above(self) -> Point:
        """Choose a point in the air over the table."""
        return np.array([*self.rng.uniform(*_REACHABLE), self.rng.uniform(0.08, 0.12)])


def _expert() -> PickPlaceController:
    return PickPlaceController(action_scale=ACTION_SCALE)


def _good(attempt: Attempt) -> None:
    attempt.follow(_expert())


def _slow(attempt: Attempt) -> None:
    attempt.speed *= 0.7
    attempt.follow(_expert(), pause_chance=0.04)


def _detour(attempt: Attempt) -> None:
    if attempt.rng.random() < 0.5:
        attempt.move_to(attempt.choose_above(), 1.0)
    expert = _expert()
    attempt.follow(expert, until=Phase.TRAVERSE)
    attempt.move_to(attempt.choose_above(), 0.0)
    attempt.follow(expert)


def _retry(attempt: Attempt) -> None:
    attempt.follow_into(_expert(), Phase.TRAVERSE)
    attempt.hold(8, 1.0)
    attempt.move_to(attempt.env.ik_point_pos + np.array([0.0, 0.0, 0.04]), 1.0)
    attempt.follow(_expert())


def _missed(attempt: Attempt) -> None:
    # The jaws close along y, so a miss along x or above leaves the cube where it is.
    misses = ([0.05, 0.0, 0.0], [-0.05, 0.0, 0.0], [0.0, 0.0, 0.045])
    miss = np.array(misses[int(attempt.rng.integers(len(misses)))])
    attempt.follow(_expert(), miss=miss)


def _wrong_place(attempt: Attempt) -> None:
    attempt.follow(_expert(), goal=attempt.choose_elsewhere())


def _undone(attempt: Attempt) -> None:
    attempt.follow(_expert())
    attempt.follow(_expert(), goal=attempt.choose_elsewhere())


def _idle(attempt: Attempt) -> None:
    stops = (Phase.DESCEND, Phase.CLOSE, Phase.LIFT, Phase.TRAVERSE, Phase.LOWER)
    attempt.follow_into(_expert(), stops[int(attempt.rng.integers(len(stops)))])
    attempt.hold(int(attempt.rng.integers(20, 45)))


_BEHAVIORS: dict[str, Callable[[Attempt], None]] = {
    behave.__name__[1:]: behave
    for behave in (_good, _slow, _detour, _retry, _missed, _wrong_place, _undone, _idle)
}


def act_out(attempt: Attempt, kind: str) -> None:
    """Drive an attempt as one of KINDS goes."""
    _BEHAVIORS[kind](attempt)


def _is_typical(episode: Episode) -> bool:
    """Whether what happened is what its kind means."""
    if episode.success != (episode.kind in SUCCEEDING) or len(episode.qpos) >= _MAX_FRAMES:
        return False
    if episode.success and (np.diff(episode.succeeded.astype(int)) < 0).any():
        return False  # for example a cube that was dropped on the disc and then taken up again
    cube, goal = episode.environment_state[:, :3], episode.goal
    away = float(np.linalg.norm(cube[-1, :2] - goal[:2]))
    carried = bool((cube[:, 2] - cube[0, 2] > _LIFTED).any())
    if episode.kind == "missed":
        return not carried and float(np.linalg.norm(cube[-1] - cube[0])) < 0.01
    if episode.kind in ("wrong_place", "undone"):
        ever = bool(episode.succeeded.any())
        return carried and away > 0.06 and ever == (episode.kind == "undone")
    return episode.kind == "idle" or carried


def simulate_episode(env: SO101PickPlaceGymEnv, seed: int) -> Episode:
    """Simulate the episode of a seed; the seed also fixes its kind and color.

    Physics does not always do what a kind means (a dropped cube may roll away), so attempts are
    repeated until one does. The state of `env`, a `PickPlaceEnv`, is overwritten.

    Raises:
        RuntimeError: no attempt went as its kind means; a bug in this module.
    """
    kind = kind_of(seed)
    for number in range(_MAX_ATTEMPTS):
        rng = np.random.default_rng([seed, number])
        color = sorted(COLORS)[int(rng.integers(len(COLORS)))]
        attempt = Attempt(env, rng)
        act_out(attempt, kind)
        attempt.hold(int(rng.integers(1, 5)))
        qpos, agent, state, action, progress, succeeded = zip(*attempt.rows, strict=True)
        episode = Episode(
            seed=seed,
            kind=kind,
            color=color,
            goal=env.goal_pos,
            qpos=np.stack(qpos),
            agent_pos=np.stack(agent).astype(np.float32),
            environment_state=np.stack(state).astype(np.float32),
            action=np.stack(action),
            progress=np.array(progress, dtype=np.float32),
            succeeded=np.array(succeeded),
        )
        if _is_typical(episode):
            return episode
    raise RuntimeError(f"seed {seed}: no {kind} episode in {_MAX_ATTEMPTS} attempts")
