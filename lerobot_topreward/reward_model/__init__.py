"""The built-in scorer as a reward model of LeRobot's: ``--reward_model.type=topreward_exact``.

LeRobot finds it with ``--reward_model.discover_packages_path=lerobot_topreward.reward_model``; importing
this package registers it. The names of files and classes are what LeRobot looks for.
"""

import lerobot_topreward.reward_model.configuration_topreward_exact  # noqa: F401
