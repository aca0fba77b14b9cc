"""SO-101 pick-and-place as an environment of LeRobot's: ``--env.type=so101_pick_place``.

`lerobot-eval` and `lerobot-train` find it with
``--env.discover_packages_path=lerobot_topreward.simulation``. Needs the extra `sim`.
"""

# mujoco's compiled module has no types.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE

from lerobot_topreward.simulation.headless import opengl_errors
from lerobot_topreward.simulation.tasks import COLORS

with opengl_errors():
    import mujoco
    from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv

    from lerobot_topreward.simulation.rendering import SIZE, SceneRenderer

ACTION_SCALE = 0.025  # meters per unit of action
_TASK = "SO101PickPlace-v0"
_NAMESPACE = "lerobot_topreward"
_MIDDLE = np.array([0.225, 0.0])  # meters, of the area in which the simulation places things
_SIDE = np.array([0.0, 0.065])  # meters; the cube starts on one side, the goal lies on the other


class PickPlaceEnv(SO101PickPlaceGymEnv):
    """SO-101 above a table, a cube and a goal at random places.

    What it adds to the simulation: places in a smaller area and the demo dataset's camera on
    request, and ``is_success`` in its info, which LeRobot's evaluation counts.
    """

    def __init__(
        self,
        *,
        spread: float = 1.0,
        action_scale: float = ACTION_SCALE,
        pixels: bool = False,
        **options: Any,
    ) -> None:
        """Load the simulation.

        Args:
            spread: 1 places cube and goal anywhere in reach, as the simulation does. Below 1 the
                cube starts on the right and the goal lies on the left, each within this share
                of the whole area: an easier task, learned from fewer demonstrations.
            action_scale: meters per unit of action.
            pixels: observe through the demo dataset's camera, too, a cube of any of its colors.
            options: of the simulation's environment.

        Raises:
            ValueError: spread is not in (0, 1].
            UserError: pixels are asked for and the OpenGL backend does not work.
        """
        if not 0 < spread <= 1:
            raise ValueError(f"spread must be > 0 and <= 1; got {spread}")
        self._spread = spread
        self._camera: SceneRenderer | None = None
        self._color = min(COLORS)
        super().__init__(random_block_position=True, action_scale=action_scale, **options)
        if pixels:
            self._camera = SceneRenderer(self)
            front = spaces.Box(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            self.observation_space = spaces.Dict(
                {**self.observation_space.spaces, "pixels": spaces.Dict({"front": front})}
            )

    def reset(
        self, seed: int | None = None, **options: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Put the arm back and place the cube and the goal."""
        observation, info = super().reset(seed=seed, **options)
        if self._spread < 1:
            # The cube on the right, the goal on the left, both nearer to the middle of their side.
            for place, side in ((self._data.jnt("block").qpos, -_SIDE), (self._goal_pos, _SIDE)):
                place[:2] = _MIDDLE + side + self._spread * (place[:2] - _MIDDLE)
            mujoco.mj_forward(self._model, self._data)
        if self._camera is not None:
            self._color = str(self.np_random.choice(sorted(COLORS)))
        if self._spread < 1 or self._camera is not None:
            observation = self._compute_observation()
        return observation, info | {"is_success": False}

    @property
    def color(self) -> str:
        """Of the cube, a key of COLORS."""
        return self._color

    def _compute_observation(self) -> dict[str, Any]:
        observation = super()._compute_observation()
        if self._camera is not None:
            observation["pixels"] = {"front": self.render()}
        return observation

    def render(self) -> np.ndarray:
        """Draw what the camera of the observations sees, or else the simulation's own view."""
        if self._camera is None:
            return super().render()
        return self._camera.render(self._data.qpos, goal=self._goal_pos, color=self._color)

    def close(self) -> None:
        """Release what draws."""
        super().close()
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act for 0.1 s."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, info | {"is_success": info["succeed"]}


@EnvConfig.register_subclass("so101_pick_place")
@dataclass
class PickPlaceEnvConfig(EnvConfig):
    """SO-101 pick-and-place, observed as the demo dataset records it: see `PickPlaceEnv`.

    ``obs_type=agent_pos`` saves policies without images the rendering.
    """

    task: str | None = _TASK
    fps: int = 10
    episode_length: int = 150  # steps
    spread: float = 1.0
    obs_type: Literal["pixels_agent_pos", "agent_pos"] = "pixels_agent_pos"
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(4,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(14,)),
            "environment_state": PolicyFeature(type=FeatureType.ENV, shape=(6,)),
            "pixels/front": PolicyFeature(type=FeatureType.VISUAL, shape=(SIZE, SIZE, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            "environment_state": OBS_ENV_STATE,
            "pixels/front": f"{OBS_IMAGES}.front",
        }
    )

    def __post_init__(self) -> None:
        """Leave out the camera where it is not asked for."""
        if self.obs_type == "agent_pos":
            self.features.pop("pixels/front", None)

    @property
    def package_name(self) -> str:
        """The namespace under which gymnasium knows it."""
        return _NAMESPACE

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What `PickPlaceEnv` is made with."""
        return {
            "spread": self.spread,
            "pixels": self.obs_type == "pixels_agent_pos",
            "max_episode_steps": self.episode_length,
        }


gym.register(id=f"{_NAMESPACE}/{_TASK}", entry_point=PickPlaceEnv, max_episode_steps=150)
