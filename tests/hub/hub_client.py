"""A process that talks to the Hub named in its environment: one JSON request and answer a line.

huggingface_hub reads its environment once, at import, so the tests' own process cannot do it.
"""

import json
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

# For the modules beside conftest.py: there is no package of tests.
sys.path.append(str(Path(__file__).parents[1]))

from huggingface_hub import HfApi, constants, repocard, snapshot_download
from huggingface_hub.utils import get_session
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from shortcuts import take_shortcuts

from lerobot_topreward.cli import main
from lerobot_topreward.console import spell_options
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import limit_waiting, translate_errors
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.publish.push import Destination, push


class CardSession:
    """Where a card is validated: the one address of huggingface_hub's that ignores HF_ENDPOINT."""

    def post(self, url: str, **options: Any) -> Any:
        return get_session().post(
            url.replace("https://huggingface.co", constants.ENDPOINT), **options
        )


setattr(repocard, "get_session", CardSession)  # noqa: B010
WAITED_S: list[float] = []  # since the last request; nobody has waited so long


def run_push(*, folder: str, facts: dict[str, Any], **options: Any) -> dict[str, Any]:
    made = facts["provenance"]
    source = {"source_repo_id": made["dataset"], "source_revision": made["revision"]}
    to = Destination(**source, **options)
    return asdict(push(Path(folder), to, facts=CardFacts(**facts)))


def run_load(*, repo_id: str, revision: str | None = None) -> dict[str, Any]:
    """Open a dataset as a user of LeRobot does, and decode its last frame."""
    with translate_errors(repo_id=repo_id, revision=revision):
        dataset = LeRobotDataset(repo_id, revision=revision, video_backend="pyav")
        last: Any = dataset[len(dataset) - 1]
    return {
        "revision": dataset.revision,
        "frames": len(dataset),
        "columns": sorted(dataset.features),
        "rewards": {key: float(last[key]) for key in last if key.startswith("topreward.")},
    }


def run_fetch(*, repo_id: str, endpoint: str | None = None, option: str = "repo_id") -> str:
    with translate_errors(repo_id=repo_id, option=option):
        return snapshot_download(repo_id, repo_type="dataset", endpoint=endpoint)


def run_labels(*, repo_id: str, revision: str | None = None, source: str = "auto") -> Any:
    """Read the labels that a training run on this dataset would be weighted by."""
    from lerobot.configs.default import DatasetConfig

    from lerobot_topreward.train.config import from_params
    from lerobot_topreward.train.labels import read_labels
    from lerobot_topreward.train.trainer_config import open_dataset

    opened = open_dataset(DatasetConfig(repo_id=repo_id, revision=revision))
    config = from_params({"source": source})
    labels = read_labels(opened, episodes=None, config=config)
    return {
        "progress": labels.progress.tolist(),
        "labelled": int(labels.labelled.sum()),
        "knows_prefixes": labels.prefix_end is not None,
    }


def run_refs(*, repo_id: str) -> list[str]:
    with translate_errors(repo_id=repo_id):
        refs = HfApi().list_repo_refs(repo_id, repo_type="dataset")
    return [ref.name for ref in [*refs.branches, *refs.tags]]


def run_home() -> str:
    """Where LeRobot records datasets in this process."""
    return os.environ["HF_LEROBOT_HOME"]


def run_waited() -> list[float]:
    return WAITED_S


def run_command(*, arguments: list[str]) -> dict[str, Any]:
    """Run the command line; gives its exit code and what it printed."""
    out, errors, code = StringIO(), StringIO(), None
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    return {"code": code, "out": out.getvalue(), "errors": errors.getvalue()}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    os.environ.pop("HF_TOKEN", None)
    if request["token"] is not None:
        os.environ["HF_TOKEN"] = request["token"]
    if request["call"] != "waited":
        WAITED_S.clear()
    try:
        return {"result": globals()[f"run_{request['call']}"](**request["options"])}
    except UserError as error:
        return {"error": spell_options(str(error))}  # as it is printed


if __name__ == "__main__":
    take_shortcuts()
    time.sleep = WAITED_S.append
    limit_waiting(limit_s=2)  # a busy machine needs more than half a second for some answers
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
