"""Curating a dataset of a Hub, and giving it back: its card says what was left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]
Client = Callable[..., Any]


def test_a_curated_dataset_goes_to_the_hub(
    hub: Hub, client: Client, record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    def run(*arguments: str | Path) -> dict[str, Any]:
        return client("command", arguments=list(map(str, arguments)))

    hub.add("alice/stacked", record_dataset(lengths=(9, 12, 17), file_per_episode=True), tag="v3.0")
    labelled = run("label", "--repo-id", "alice/stacked", "--vlm", tiny_vlm, "--push-to-hub")
    assert labelled["code"] == 0, labelled["errors"]

    repo = hub.dataset("alice/stacked")
    main, labels = repo.resolve("main"), repo.resolve("topreward")
    read = ("curate", "--repo-id", "alice/stacked", "--revision", "topreward", "--keep-top", "0.5")
    new = (*read, "--output", tmp_path / "good", "--push-to-hub")
    made = run(*new, "--hub-repo-id", "alice/stacked-good")
    assert made["code"] == 0, made["errors"]
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert len(record["kept"]) == 2
    [dropped] = record["dropped"]
    card = hub.dataset("alice/stacked-good").resolve("main").files["README.md"].data.decode()
    assert "curation.json" in hub.dataset("alice/stacked-good").resolve("main").files
    assert "**Curated.** 2 of the 3 episodes" in card
    assert "the best 0.5 of each task by success score" in card
    assert f"| {dropped} | success score is number 3 of 3" in card
    assert "Episodes labeled: 2 of 2" in card

    loaded = client("load", repo_id="alice/stacked-good")
    lengths = (9, 12, 17)
    assert loaded["frames"] == 38 - lengths[int(dropped)]
    weighed = client("labels", repo_id="alice/stacked-good")
    assert (weighed["labelled"], weighed["knows_prefixes"]) == (loaded["frames"], True)
    again = run(*new, "--hub-repo-id", "alice/stacked-good")
    assert "nothing changed" in again["out"]
    assert "(unchanged)" in again["out"]

    # In the dataset's own repository it goes to a branch, and nobody's readers notice.
    branch = run(*new)
    assert branch["code"] == 0, branch["errors"]
    assert f"{hub.url}/datasets/alice/stacked/tree/curated" in branch["out"]
    assert client("load", repo_id="alice/stacked", revision="curated")["frames"] == loaded["frames"]
    assert (repo.resolve("main"), repo.resolve("topreward")) == (main, labels)
    refused = run(*new, "--create-pr")
    assert refused["code"] == 2
    assert "must not hold another dataset on 'main'" in refused["errors"]
