import sys
from pathlib import Path

# For the modules beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from hub_fixtures import client, client_process, hub, hub_server
from pushes import labelled, labelled_by_us, others, push, source

__all__ = [
    "client",
    "client_process",
    "hub",
    "hub_server",
    "labelled",
    "labelled_by_us",
    "others",
    "push",
    "source",
]
