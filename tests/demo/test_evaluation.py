import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lerobot_topreward.demo.evaluation import evaluate
from lerobot_topreward.demo.figure import Panel, draw_figure, strip_indices
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.simulation.truth import TRUTH_FILE, Truth, read_truth


def _scores(episode: int, values: list[float]) -> PrefixScores:
    n = len(values)
    return PrefixScores(
        segment=Segment(episode, 0, n, "put it there"),
        control="none",
        prefix_length=np.arange(1, n + 1),
        frame_index=np.arange(n),
        log_prob_true=np.array(values, dtype=np.float32),
        log_prob_false=np.full(n, -1.0, dtype=np.float32),
    )


def _truth(*, success: bool) -> Truth:
    kind = "good" if success else "missed"
    return Truth(kind, success, np.linspace(0, success, 4, dtype=np.float32))


def test_evaluate_averages_successes_and_counts_failures() -> None:
    truth = {0: _truth(success=True), 1: _truth(success=True), 2: _truth(success=False)}
    real = [
        _scores(0, [-4, -3, -2, -1]),
        _scores(1, [-4, -2, -3, -1]),
        _scores(2, [-4, -3, -3, -3]),
    ]
    static = [
        _scores(0, [-4, -4, -4, -4]),
        _scores(1, [-4, -4.1, -4.2, -4.3]),
        _scores(2, [-4, -3.9, -3.9, -3.9]),
    ]
    result = evaluate(real, static, truth)
    assert (result.successes, result.failures) == (2, 1)
    assert result.voc == pytest.approx((1.0 + 0.8) / 2)
    assert result.auc == 1.0
    # The constant control has no order; the others fall and rise.
    assert result.static_voc == pytest.approx((-1.0 + 0.7745966692414834) / 2)
    assert result.static_rise == pytest.approx(((0 - 0.2 + 0.1) / 3) / 2, abs=1e-5)


def test_evaluate_says_what_is_undefined() -> None:
    result = evaluate([_scores(0, [-2, -2])], [], {0: _truth(success=True)})
    assert math.isnan(result.voc)
    assert math.isnan(result.auc)
    assert math.isnan(result.static_voc)
    assert math.isnan(result.static_rise)


def test_evaluate_refuses_episodes_without_truth() -> None:
    with pytest.raises(ValueError, match=r"episodes \[3\] have no truth"):
        evaluate([_scores(3, [-2, -1])], [], {0: _truth(success=True)})
    with pytest.raises(ValueError, match="at least one scored episode"):
        evaluate([], [], {})


def test_truth_is_read_in_order(tmp_path: Path) -> None:
    table = {
        "episode_index": [1, 0, 0],
        "frame_index": [0, 1, 0],
        "progress": [0.5, 1.0, 0.0],
        "success": [False, True, True],
        "kind": ["idle", "good", "good"],
    }
    pd.DataFrame(table).to_parquet(tmp_path / TRUTH_FILE)
    truth = read_truth(tmp_path)
    assert sorted(truth) == [0, 1]
    assert truth[0].success
    assert truth[0].progress.tolist() == [0.0, 1.0]
    assert truth[1].kind == "idle"


def test_missing_truth_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"simulation\.simulate"):
        read_truth(tmp_path)
    pd.DataFrame({"episode_index": [0]}).to_parquet(tmp_path / TRUTH_FILE)
    with pytest.raises(UserError, match="lacks frame_index, progress, success, kind"):
        read_truth(tmp_path)


def test_strips_show_the_middle_of_equal_spans() -> None:
    assert strip_indices(80, count=4).tolist() == [10, 30, 50, 70]
    assert strip_indices(1, count=3).tolist() == [0, 0, 0]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    frames = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    panels = [
        Panel(_scores(i, [-3, -2, -1]), _truth(success=i == 0), frames, 10.0) for i in range(3)
    ]
    draw_figure(panels, tmp_path / "demo.png", caption="three episodes")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one"):
        draw_figure([], tmp_path / "demo.png", caption="")
