import sys
from pathlib import Path

# For the modules beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from hub_fixtures import client, client_process, hub, hub_server
from job_plans import job_console, make_plan, online_and_impatient
from pushes import labelled, labelled_by_us, others, push, source

__all__ = [
    "client",
    "client_process",
    "hub",
    "hub_server",
    "job_console",
    "labelled",
    "labelled_by_us",
    "make_plan",
    "online_and_impatient",
    "others",
    "push",
    "source",
]
