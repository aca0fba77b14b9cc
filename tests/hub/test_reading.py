"""Reading a dataset from the Hub: what is fetched, and from which commit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_state import Hub

PROGRAM = """if True:
    import json
    from lerobot_topreward.errors import UserError
    from lerobot_topreward.data.dataset import fetch_videos, open_source

    def here():
        files = [path for path in source.root.rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(source.root)) for path in files)

    def refusal(**options):
        try:
            return str(open_source(root=None, **options).revision)
        except UserError as error:
            return str(error)

    source = open_source(repo_id="alice/cubes", root=None, revision=None)
    found = {"revision": source.revision, "root": str(source.root), "opened": here()}
    found["frames"] = len(source.frames.index)
    fetch_videos(source, "observation.images.front", [1])
    found["front"] = here()
    fetch_videos(source)
    found["all"] = here()
    found["main"] = refusal(repo_id="alice/cubes", revision="main")
    found["nope"] = refusal(repo_id="alice/cubes", revision="nope")
    found["old"] = refusal(repo_id="alice/old", revision="main")
    print(json.dumps(found))
"""

META = [
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/info.json",
    "meta/stats.json",
    "meta/tasks.parquet",
]
DATA = "data/chunk-000/file-000.parquet"
VIDEOS = [
    f"videos/observation.images.{camera}/chunk-000/file-000.mp4" for camera in ("front", "wrist")
]


@pytest.mark.slow
def test_only_what_is_needed_is_fetched(hub: Hub, record_dataset, tmp_path: Path):
    folder = record_dataset(lengths=(5, 4), size=(64, 64))
    hub.add("alice/cubes", folder, tag="v3.0")
    old = shutil.copytree(folder, tmp_path / "old")
    info = json.loads((old / "meta/info.json").read_text())
    (old / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    hub.add("alice/old", old)
    reader = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert reader.returncode == 0, reader.stderr
    found = json.loads(reader.stdout)
    commit = Path(found["root"]).name
    assert len(commit) == 40
    assert found["revision"] == found["main"] == commit
    assert found["opened"] == META
    assert found["frames"] == 9
    assert found["front"] == [DATA, *META, VIDEOS[0]]
    assert found["all"] == [DATA, *META, *VIDEOS]
    assert "has no such revision 'nope'" in found["nope"]
    assert found["old"].endswith("convert_dataset_v21_to_v30 --repo-id=alice/old")
