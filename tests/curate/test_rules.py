import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.rules import MANUAL, Drops, RulesConfig, find_drops, judge, robust_z
from lerobot_topreward.records import EpisodeMetrics

GOOD = EpisodeMetrics(
    episode_index=0,
    task="stack the cups",
    frames=100,
    seconds=10.0,
    voc=0.9,
    success_score=-0.1,
    final_progress=0.95,
    max_progress=1.0,
    seconds_to_90=8.0,
    negative_share=0.1,
    longest_stall=1.0,
    regress=0.05,
    log_odds=2.0,
)


def episodes(*changes: dict[str, Any]) -> list[EpisodeMetrics]:
    return [replace(GOOD, episode_index=i, **change) for i, change in enumerate(changes)]


@pytest.mark.parametrize(
    ("limit", "bad", "reason"),
    [
        ({"min_final_progress": 0.8}, {"final_progress": 0.45}, "final progress 0.45 < 0.80"),
        ({"min_final_progress": 0.8}, {"final_progress": 0.7996}, "final progress 0.7996 < 0.8000"),
        ({"min_success": -0.5}, {"success_score": -1.2}, "success score -1.20 < -0.50 nats"),
        ({"min_voc": 0.5}, {"voc": -0.1}, "VOC -0.10 < 0.50"),
        ({"max_stall": 3}, {"longest_stall": 4.2}, "stall 4.20 > 3.00 s"),
        ({"max_regress": 0.5}, {"regress": 0.97}, "regress 0.97 > 0.50"),
    ],
)
def test_a_limit_drops_what_breaks_it_and_says_why(
    limit: dict[str, Any], bad: dict[str, float], reason: str
):
    good, dropped = judge(episodes({}, bad), RulesConfig(**limit))
    assert good.keep
    assert not dropped.keep
    assert dropped.reasons == (reason,)


def test_a_value_at_the_limit_is_kept():
    rules = RulesConfig(min_final_progress=0.95, min_success=-0.1, max_stall=1, max_regress=0.05)
    assert judge(episodes({}), rules)[0].keep


def test_without_a_rule_the_final_progress_decides():
    half = {"final_progress": 0.5, "regress": 0.9}
    assert judge(episodes(half), RulesConfig())[0].reasons == ("final progress 0.50 < 0.80",)
    assert judge(episodes(half), RulesConfig(max_regress=0.4))[0].reasons == (
        "regress 0.90 > 0.40",
    )


def test_every_broken_rule_is_named():
    rules = RulesConfig(min_final_progress=0.8, max_regress=0.5)
    metrics = episodes({"final_progress": 0.1, "regress": 0.9}, {"regress": 0.6})
    both, single = judge(metrics, rules)
    assert both.reasons == ("final progress 0.10 < 0.80", "regress 0.90 > 0.50")
    assert single.reasons == ("regress 0.60 > 0.50",)
    assert {name: list(found) for name, found in find_drops(metrics, rules).items()} == {
        "min_final_progress": [0],
        "max_regress": [0, 1],
    }


def test_an_undefined_voc_passes():
    assert judge(episodes({"voc": math.nan}), RulesConfig(min_voc=1))[0].keep


def test_a_person_beats_every_rule():
    metrics = episodes({"final_progress": 0.1}, {}, {"final_progress": 0.2})
    verdicts = judge(metrics, RulesConfig(), decisions={0: True, 1: False})
    assert [verdict.reasons for verdict in verdicts] == [
        (),
        (MANUAL,),
        ("final progress 0.20 < 0.80",),
    ]


def test_a_custom_rule_is_applied_beside_the_others():
    def too_short(metrics: Sequence[EpisodeMetrics]) -> Drops:
        return {m.episode_index: "under 2 s" for m in metrics if m.seconds < 2}

    metrics = episodes({"seconds": 1.0}, {"seconds": 1.0, "final_progress": 0.1}, {})
    verdicts = judge(metrics, RulesConfig(), custom=[too_short])
    assert [verdict.reasons for verdict in verdicts] == [
        ("under 2 s",),
        ("final progress 0.10 < 0.80", "under 2 s"),
        (),
    ]


def test_the_best_of_each_task_stay():
    scores = [-0.1, -0.4, -0.2, -0.3, -5.0, -6.0]
    tasks = ["a", "a", "a", "a", "b", "b"]
    metrics = episodes(
        *({"success_score": s, "task": t} for s, t in zip(scores, tasks, strict=True))
    )
    verdicts = judge(metrics, RulesConfig(keep_top=0.5))
    assert [verdict.keep for verdict in verdicts] == [True, False, True, False, True, False]
    assert verdicts[1].reasons == (
        "success score is number 4 of 4 in its task, the best 2 are kept",
    )
    assert all(verdict.keep for verdict in judge(metrics, RulesConfig(keep_top=1)))
    assert sum(verdict.keep for verdict in judge(metrics, RulesConfig(keep_top=0.01))) == 2


def test_the_share_that_is_kept_is_not_rounded_up_by_its_last_bit():
    metrics = episodes(*({"success_score": -float(i)} for i in range(10)))
    assert sum(verdict.keep for verdict in judge(metrics, RulesConfig(keep_top=0.3))) == 3


def test_episodes_as_good_as_the_last_one_kept_stay_too():
    metrics = episodes(*({"success_score": s} for s in (-1.0, -1.0, -1.0, -2.0)))
    verdicts = judge(metrics, RulesConfig(keep_top=0.25))
    assert [verdict.keep for verdict in verdicts] == [True, True, True, False]


def test_outliers_are_far_from_the_others_of_their_task():
    lengths = [9.0, 10.0, 11.0, 10.5, 9.5, 40.0]
    scores = [-0.1, -0.12, -3.0, -0.11, -0.09, -0.1]
    metrics = episodes(
        *({"seconds": s, "success_score": p} for s, p in zip(lengths, scores, strict=True)),
        *({"seconds": 500.0, "task": "another"} for _ in range(4)),
    )
    verdicts = judge(metrics, RulesConfig(outliers=3.5))
    assert [v.episode_index for v in verdicts if not v.keep] == [2, 5]
    assert verdicts[5].reasons[0].startswith("length 40.0 s is an outlier, |z| ")
    assert verdicts[2].reasons[0].startswith("success score -3.00 nats is an outlier, -z ")


def test_an_unusually_successful_episode_is_no_outlier():
    metrics = episodes(*({"success_score": s} for s in (-2.0, -2.1, -1.9, -2.05, -1.95, -0.01)))
    assert all(verdict.keep for verdict in judge(metrics, RulesConfig(outliers=3.5)))


def test_robust_z():
    np.testing.assert_allclose(
        robust_z(np.array([1.0, 2.0, 3.0, 4.0, 10.0]))[[0, 4]], [-1.349, 4.7215]
    )
    np.testing.assert_allclose(robust_z(np.array([2.0, 2.0, 2.0, 2.0, 7.0]))[4], 5 / 1.2533)
    assert not robust_z(np.array([3.0, 3.0])).any()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("min_final_progress", 1.5, "`min_final_progress` must be in 0..1; got 1.5"),
        ("min_success", 0.5, "`min_success` must be at most 0; got 0.5"),
        ("min_voc", -2, "`min_voc` must be in -1..1; got -2"),
        ("keep_top", 0, "`keep_top` must be more than 0"),
        ("max_stall", -1, "`max_stall` must be at least 0; got -1"),
        ("max_regress", math.nan, "`max_regress` must be in 0..1; got nan"),
        ("outliers", 0, "`outliers` must be more than 0"),
    ],
)
def test_a_limit_out_of_range_is_refused(option: str, value: Any, said: str):
    with pytest.raises(UserError, match=said):
        RulesConfig(**{option: value})
