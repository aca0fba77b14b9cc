"""Every command that judges a reward says the same of the same labels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import embedded
from rich.console import Console

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.plan import make_plan
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.evaluate.command import evaluate_dataset
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.judging.judgment import Judgment, judgment_to_json
from lerobot_topreward.label.command import label_dataset
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.report.command import report
from lerobot_topreward.report.config import ReportConfig
from lerobot_topreward.rewards import Debias
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import judge_source
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.one_pass import OnePassScorer

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]


def see_progress(_: OnePassScorer, clip: Clip, prefixes: Any, asked: Any) -> LogProbs:
    """Answer by how far the image shown last is, for the true task, and a little by time."""
    images = np.asarray(prefixes)
    far = clip.shown[images - 1] / max(len(clip.frames) - 1, 1)
    own = np.array([[text == clip.segment.instruction] for text in asked])
    true = (-5 + 3 * own * far + 0.01 * images).astype(np.float32)
    return LogProbs(true=true, false=true * 0 - 1)


def say(judgment: Judgment | None) -> Mapping[str, Any]:
    assert judgment is not None
    return judgment_to_json(judgment)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=(31, 18, 25, 44, 20, 27), tasks=("pick it", "place it"), cameras=("front",)
    )


@pytest.mark.parametrize("debias", ["none", "static", "blank", "contrast"])
def test_five_commands_judge_alike(
    debias: Debias,
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OnePassScorer, "score", see_progress)
    root = tmp_path / "out"
    vlm = VlmConfig(vlm=str(tiny_vlm), device="cpu")
    config = LabelConfig(root=recorded, output=root, vlm=vlm, debias=debias)

    def judge_by_all() -> dict[str, Mapping[str, Any]]:
        source = open_source(repo_id=None, root=root, revision=None)
        trained = judge_source(source, WeightingConfig())
        assert isinstance(trained, Judgment)
        page = tmp_path / "report.html"
        report(ReportConfig(root=root, output=page, videos="none"), console=Console(quiet=True))
        return {
            "label": say(label_dataset(config).judgment),
            "evaluate": say(evaluate_dataset(EvaluateConfig(root=root)).judgment),
            "curate": say(make_plan(CurateConfig(root=root)).judgment),
            "train": say(trained),
            "report": embedded(page.read_text("utf-8"))["judgment"],
        }

    label_dataset(config)
    found = judge_by_all()
    for command, judgment in found.items():
        assert judgment == found["evaluate"], command
    level = "usable" if debias == "static" else "usable with care"
    assert found["evaluate"]["level"] == level
    # What is scored later counts everywhere, also where only a part of it is asked for again.
    controls = EvaluateConfig(root=root, controls="static,reversed", vlm=str(tiny_vlm))
    before = say(evaluate_dataset(controls).judgment)
    assert {"static", "reversed"} <= {each["name"] for each in before["evidence"]}
    again = EvaluateConfig(root=root, controls="reversed", vlm=str(tiny_vlm))
    assert say(evaluate_dataset(again).judgment) == before
    for command, judgment in judge_by_all().items():
        assert judgment == before, command
