"""The path by which LeRobot finds `lerobot_topreward.plugin`; see there.

The policies come before the trainer, which uses them, so this module must not import it by an import
statement: it only passes LeRobot's import on, by name.
"""

from importlib import import_module

import_module("lerobot_topreward.plugin")
