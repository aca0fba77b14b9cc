"""The two stages of the label command as steps of datatrove's pipelines."""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence

from datatrove.pipeline.base import PipelineStep

from lerobot_topreward.console import make_console, quiet_libraries
from lerobot_topreward.errors import UserError
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.finish import finish_shares, print_labels
from lerobot_topreward.label.job import open_job
from lerobot_topreward.label.plan import Plan, find_success, make_plan
from lerobot_topreward.label.score import score_share
from lerobot_topreward.scoring.launch.config import Share

_POLL_S = 1.0


class ScoreStep(PipelineStep):
    """Scores the share of its rank."""

    name = "score"
    type = "topreward"

    def __init__(self, config: LabelConfig, shares: Sequence[Sequence[int]], *, key: str) -> None:
        """Take the options, the episodes of each rank and the digest of the launcher's key."""
        super().__init__()
        self.config, self.shares, self.key = config, shares, key

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Score what this rank's share lacks.

        Raises:
            UserError: see `score_share`.
        """
        _end_with_parent()
        plan = _repeat_plan(self.config, self.key)
        share = Share(rank, world_size)
        outcome = score_share(plan, share, self.shares[rank], console=make_console())
        self.stat_update("episodes", value=outcome.answered)


class FinishStep(PipelineStep):
    """Makes labels of the scores of all ranks."""

    name = "finish"
    type = "topreward"

    def __init__(self, config: LabelConfig, *, key: str, broken: Mapping[int, str]) -> None:
        """Take the options, the digest of the launcher's key, and which recordings are broken."""
        super().__init__()
        self.config, self.key, self.broken = config, key, dict(broken)

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Write sidecar and columns, and push them if asked to.

        Raises:
            UserError: see `finish_shares`.
        """
        plan = _repeat_plan(self.config, self.key)
        console, began = make_console(), time.monotonic()
        success = find_success(self.config, plan.job.source, console=console)
        result = finish_shares(
            plan, success=success, broken=self.broken, began=began, console=console
        )
        print_labels(result, write=self.config.write, console=console)


def _repeat_plan(config: LabelConfig, key: str) -> Plan:
    """Make the plan of whoever launched this, on this machine.

    Raises:
        UserError: it comes out as another.
    """
    quiet_libraries(verbose=False)
    plan = make_plan(config, open_job(config))
    if plan.key.digest() != key:
        raise UserError(
            "the VLM or its server is not the one that this run was launched for, and their scores "
            "do not mix; give all machines the same"
        )
    return plan


def _end_with_parent() -> None:
    """Finish the episode at hand and stop when the process that started this one has died."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent").start()
