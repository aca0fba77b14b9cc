"""Makes stock `lerobot-train` weight its samples, by being imported.

LeRobot imports every module of the package that `--policy.discover_packages_path` names, which is
`lerobot_topreward.policies`; `policies/plugin.py` then imports this one. Nothing else may, since it
changes LeRobot's trainer for the rest of the process.
"""

from typing import Any

from lerobot_topreward.train.lerobot_patch import BatchWeighter, install


def _make_weighter(*args: Any, **options: Any) -> BatchWeighter:
    from lerobot_topreward.train.sample_weighter import make_weighter  # only where it is asked for

    return make_weighter(*args, **options)


install(_make_weighter)
