"""Training on a dataset of the Hub: which labels are found, and what is fetched for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_state import Hub

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

PROGRESS = np.linspace(0, 1, 16)
SCORING = {"instruction": None, "sample_fps": 2.0, "final_frame": True, "prefixes": None}


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(9, 7))


@pytest.mark.parametrize("sidecar", [True, False])
def test_labels_of_the_hub(
    hub: Hub,
    client: Callable[..., Any],
    recorded: Path,
    write_labels: WriteLabels,
    sidecar: bool,
) -> None:
    root = write_labels(recorded, progress=PROGRESS, scoring=SCORING, sidecar=sidecar)
    name = f"alice/{'both' if sidecar else 'columns'}"
    hub.add(name, root, tag="v3.0")
    found = client("labels", repo_id=name)
    np.testing.assert_allclose(found["progress"], PROGRESS, atol=1e-6)
    assert found["labelled"] == 16
    assert found["knows_prefixes"]
    assert not [path for path in hub.asked("GET", "/resolve/") if "videos/" in path]
    if not sidecar:
        said = client("labels", repo_id=name, source="sidecar")
        assert "--weighting.source=sidecar needs topreward_progress.parquet" in said


def test_an_unlabelled_dataset_of_the_hub(
    hub: Hub, client: Callable[..., Any], recorded: Path
) -> None:
    hub.add("alice/plain", recorded, tag="v3.0")
    said = client("labels", repo_id="alice/plain")
    assert "lerobot-topreward label --repo-id alice/plain" in said
    said = client("labels", repo_id="alice/plain", revision="nowhere")
    assert "--dataset.repo_id must be read at a branch, tag or commit that exists" in said
