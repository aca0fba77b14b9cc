"""``python -m lerobot_topreward``, the same as the installed command."""

from lerobot_topreward.cli import main

main()
