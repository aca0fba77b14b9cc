"""What `evaluate` says of the recording beside the rewards."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import lerobot_topreward.evaluate.command
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.findings import LEVELS
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.records import Finding

Run = Callable[..., tuple[int, str, str]]


def test_json_has_the_findings_as_check_gives_them(demo_dataset: Path, run: Run) -> None:
    code, out, _ = run("evaluate", "--root", str(demo_dataset), "--json")
    assert code == 0
    recording = json.loads(out)["recording"]
    levels = [finding["level"] for finding in recording["findings"]]
    assert recording["counts"] == {level: levels.count(level) for level in LEVELS}
    assert recording["reason"] is None
    assert {"episode_index", "level", "defect", "text", "frames", "seconds"} == {
        *recording["findings"][0]
    }
    _, out, _ = run("check", "--root", str(demo_dataset), "--json")
    checked = json.loads(out)
    assert (checked["counts"], checked["findings"]) == (recording["counts"], recording["findings"])


def test_what_the_recording_says_is_one_line(
    demo_dataset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*findings: Finding) -> tuple[int, str]:
        inspection = Inspection(findings, {}, {}, ())
        monkeypatch.setattr(
            lerobot_topreward.evaluate.command, "try_inspecting", lambda *_, **__: inspection
        )
        code, out, _ = run("evaluate", "--root", str(demo_dataset))
        return code, out

    broken = Finding(2, "broken", "jump", "x jumps", (1, 2))
    code, out = find(broken, replace(broken, level="suspect"), replace(broken, level="suspect"))
    assert code == 0
    assert "recording: 1 broken, 2 suspect; lerobot-topreward check says more" in out
    assert "recording:" not in find(replace(broken, level="note"))[1]


def test_a_recording_that_cannot_be_inspected_costs_its_findings_only(
    demo_dataset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = UserError("meta/episodes cannot be read")
    monkeypatch.setattr(
        lerobot_topreward.evaluate.command, "try_inspecting", lambda *_, **__: reason
    )
    code, out, _ = run("evaluate", "--root", str(demo_dataset))
    assert code == 0
    assert "recording: not checked, since meta/episodes cannot be read" in out
    _, out, _ = run("evaluate", "--root", str(demo_dataset), "--json")
    assert json.loads(out)["recording"] == {
        "counts": None,
        "findings": [],
        "reason": "meta/episodes cannot be read",
    }
