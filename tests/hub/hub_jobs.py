"""Hugging Face Jobs of the Hub on 127.0.0.1, as huggingface_hub's client asks for them.

https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/hf_api.py
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

from hub_state import Hub, RefusalError

ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
HARDWARE: list[dict[str, Any]] = [
    {
        "name": "cpu-basic",
        "prettyName": "CPU Basic",
        "cpu": "2 vCPU",
        "ram": "16 GB",
        "accelerator": None,
        "unitCostMicroUSD": 167,
        "unitCostUSD": 0.000167,
        "unitLabel": "minute",
    },
    {
        "name": "a10g-small",
        "prettyName": "Nvidia A10G - small",
        "cpu": "4 vCPU",
        "ram": "15 GB",
        "accelerator": {
            "type": "gpu",
            "model": "A10G",
            "quantity": "1",
            "vram": "24 GB",
            "manufacturer": "Nvidia",
        },
        "unitCostMicroUSD": 16667,
        "unitCostUSD": 0.016667,
        "unitLabel": "minute",
    },
]


@dataclass(slots=True)
class Job:
    """A job as it was submitted, and what it has said; what it runs is up to the test."""

    id: str
    owner: str
    spec: dict[str, Any]
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[str] = field(default_factory=list)
    hangs: bool = False  # its log's connections stay open when it has ended

    def end(self, *lines: str, stage: str = "COMPLETED", message: str | None = None) -> None:
        self.lines += lines
        self.message = message
        if self.stage not in ENDED:
            self.stage = stage


class Jobs(BaseHTTPRequestHandler):
    """Each method answers one page, as those of `Pages`."""

    hub: Hub
    headers: Message
    body: bytes

    def user(self) -> tuple[str, bool] | None:
        raise NotImplementedError

    def job_hardware(self) -> Any:
        return HARDWARE

    def submit_job(self, owner: str) -> Any:
        user = self.user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        if user != (owner, True):
            raise RefusalError(403, "You need the permission job.write")
        spec = json.loads(self.body)
        if spec["flavor"] not in [machine["name"] for machine in HARDWARE]:
            raise RefusalError(400, "Invalid flavor")
        job = Job(f"687fb701029421ae5549{len(self.hub.jobs):04x}", owner, spec)
        self.hub.jobs[job.id] = job
        threading.Thread(target=self.start, args=(job,), daemon=True).start()
        return self.describe(job)

    def start(self, job: Job) -> None:
        job.stage = "RUNNING"
        self.hub.run_job(job)

    def describe(self, job: Job) -> dict[str, Any]:
        owner = {"id": "5e9ecfc04957053f60648a3e", "name": job.owner, "type": "user"}
        return {
            "id": job.id,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "dockerImage": job.spec["dockerImage"],
            "command": job.spec["command"],
            "arguments": [],
            "environment": job.spec["environment"],
            "secrets": [*job.spec.get("secrets", {})],
            "flavor": job.spec["flavor"],
            "labels": job.spec.get("labels"),
            "status": {"stage": job.stage, "message": job.message},
            "owner": owner,
            "initiator": owner,
        }

    def find_job(self, owner: str, job: str) -> Job:
        user = self.user()
        if user is None or user[0] != owner or job not in self.hub.jobs:
            raise RefusalError(404, "Job not found")
        return self.hub.jobs[job]

    def inspect_job(self, owner: str, job: str) -> Any:
        return self.describe(self.find_job(owner, job))

    def cancel_job(self, owner: str, job: str) -> Any:
        self.find_job(owner, job).end(stage="CANCELED")
        return {}

    def job_logs(self, owner: str, job: str) -> tuple[int, dict[str, str], bytes]:
        """All that was said so far; where no fault cuts it, `stream_logs` goes on."""
        found = self.find_job(owner, job)
        body = b"".join(map(event, ["===== Job started at 2026-01-01 =====", *found.lines]))
        return 200, {"Content-Type": "text/event-stream"}, body

    def stream_logs(self, job: Job) -> None:
        """Send what was not sent, until the job has ended."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        sent, events = 0, [event("===== Job started at 2026-01-01 =====")]
        try:
            while True:
                over = job.stage in ENDED and not job.hangs
                events += map(event, job.lines[sent:])
                sent = len(job.lines)
                self.wfile.write(b"".join(events) or b": keep-alive\n\n")
                self.wfile.flush()
                if over:
                    return
                events = []
                time.sleep(0.02)
        except OSError:  # nobody listens any more
            return


def event(line: str) -> bytes:
    data = json.dumps({"timestamp": "2026-01-01T00:00:00.000Z", "data": line})
    return f"event: log\ndata: {data}\n\n".encode()


def say(*lines: str, stage: str = "COMPLETED", message: str | None = None) -> Callable[[Job], None]:
    """What a job runs that says some lines and ends."""

    def run(job: Job) -> None:
        job.end(*lines, stage=stage, message=message)

    return run
