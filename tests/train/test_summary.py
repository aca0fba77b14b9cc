from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lerobot_topreward.train.histogram import save_histogram
from lerobot_topreward.train.records import FrameLabels, FrameWeights
from lerobot_topreward.train.schemes import Awr, Filter, Rabc, Scheme, TopAwr, Uniform
from lerobot_topreward.train.summary import QUANTILES, percent, summarize, summary_table


def dataset_of(
    *episodes: Sequence[float] | np.ndarray, tasks: Sequence[int] | None = None, cap: float = np.inf
) -> tuple[FrameLabels, FrameWeights]:
    """Episodes by the weights of their frames; those without a label have the weight NaN."""
    lengths = [len(episode) for episode in episodes]
    given = np.concatenate(episodes).astype(np.float32)
    frames = len(given)
    weight = np.nan_to_num(given)
    labels = FrameLabels(
        index=np.arange(frames),
        episode_index=np.repeat(np.arange(len(episodes)), lengths),
        task_index=np.repeat(tasks or [0] * len(episodes), lengths).astype(np.int64),
        progress=np.zeros(frames, dtype=np.float32),
        log_prob=np.zeros(frames, dtype=np.float32),
        labelled=~np.isnan(given),
        prefix_end=None,
        tasks={0: "pick up the cube", 1: "place the cube on the plate [gently]", 2: "wave"},
        fps=10.0,
    )
    return labels, FrameWeights(index=labels.index, raw=weight, weight=weight, capped=weight >= cap)


def printed(dataset: tuple[FrameLabels, FrameWeights], *, scheme: Scheme) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(summary_table(summarize(*dataset, scheme=scheme)))
    return captured.get()


def test_the_summary_of_all_frames() -> None:
    weight = [0.0, 0.5, 2.0, 1.0, 2.0, 0.5]
    overall = summarize(*dataset_of(weight[:4], weight[4:], cap=2.0), scheme=Awr()).overall
    assert overall.frames == 6
    assert overall.effective == pytest.approx(6**2 / (0.5 + 8 + 1))
    assert overall.effective_share == pytest.approx(overall.effective / 6)
    assert (overall.zero_share, overall.capped_share) == pytest.approx((1 / 6, 2 / 6))
    assert (overall.minimum, overall.mean, overall.maximum) == pytest.approx((0, 1, 2))
    np.testing.assert_allclose(overall.quantiles, np.quantile(weight, QUANTILES))
    assert overall.relative == pytest.approx(1)


def test_tasks_and_episodes_have_their_share_of_the_weight() -> None:
    summary = summarize(*dataset_of([3, 3], [1, 0, 1], [2], tasks=[1, 0, 1]), scheme=Awr())
    assert [task.name for task in summary.tasks] == [
        "pick up the cube",
        "place the cube on the plate [gently]",
    ]
    assert [task.frames for task in summary.tasks] == [3, 3]
    assert [task.relative for task in summary.tasks] == pytest.approx([0.4, 1.6])
    assert summary.tasks[0].effective == pytest.approx(2)
    assert [episode.key for episode in summary.episodes] == [0, 1, 2]
    assert [episode.relative for episode in summary.episodes] == pytest.approx([1.8, 0.4, 1.2])
    assert sum(episode.frames for episode in summary.episodes) == summary.overall.frames


@pytest.mark.parametrize(
    ("scheme", "fix"),
    [
        (Awr(), "lower `weighting.beta`"),
        (TopAwr(), "the paper's defaults do this: give a longer `weighting.span`"),
        (Rabc(), "raise `weighting.kappa`"),
        (Filter(quantile=0.5), "raise `weighting.threshold` or `weighting.quantile`"),
    ],
)
def test_equal_weights_are_plain_behavior_cloning(scheme: Scheme, fix: str) -> None:
    dataset = dataset_of([1.99, 2.0, 2.0, 1.98])
    (warning,) = summarize(*dataset, scheme=scheme).warnings
    assert "nearly equal (effective sample size >99.9% of the frames)" in warning
    assert fix in warning
    assert summarize(*dataset, scheme=Uniform()).warnings == ()


@pytest.mark.parametrize(
    "weight", [[0.0] * 19 + [1.0, 0.5], [0.001] * 40 + [9.0], [0.0] * 95 + [1.0] * 5]
)
def test_next_to_nothing_is_warned_of(weight: list[float]) -> None:
    (warning,) = summarize(*dataset_of(weight), scheme=Awr()).warnings
    assert f"almost nothing is left: {len(weight)} frames count as" in warning
    assert "raise `weighting.beta`" in warning


def test_a_heavy_cap_is_warned_of_but_for_rabc() -> None:
    dataset = dataset_of([2.0] * 7 + [0.3] * 3, cap=2.0)
    (warning,) = summarize(*dataset, scheme=TopAwr()).warnings
    assert warning.startswith("70.0% of the frames are at the cap")
    assert "lower `weighting.tau` below `weighting.delta_max`" in warning
    assert summarize(*dataset, scheme=Rabc()).warnings == ()


def test_a_task_without_weight_is_warned_of() -> None:
    dataset = dataset_of([1, 3], [0, 0], [0], tasks=[0, 1, 2])
    task, episodes = summarize(*dataset, scheme=Awr()).warnings
    assert "will not learn: 2 of 3 ('place the cube on the plate [gently]', 'wave')" in task
    assert "`weighting.per=task`" in task
    assert episodes == "episodes without any weight: 2 of 3 (1, 2)"


def test_episodes_that_were_to_weigh_nothing_are_not_warned_of() -> None:
    dropped = dataset_of([1, 1], [0, 0])
    assert summarize(*dropped, scheme=Filter(quantile=0.5)).warnings == ()
    unlabelled = dataset_of([1, 3], [np.nan, np.nan])
    assert summarize(*unlabelled, scheme=Awr()).warnings == ()


def test_a_span_of_more_than_a_third_of_the_episodes_is_warned_of() -> None:
    dataset = dataset_of([1, 3] * 15, [2, 1] * 15, [1, 2] * 20)  # 30, 30 and 40 frames
    assert summarize(*dataset, scheme=Awr(), chunk=10).warnings == ()
    (warning,) = summarize(*dataset, scheme=Awr(), chunk=11).warnings
    assert "over 11 frames (1.1 s), more than a third of the median episode (30 frames)" in warning
    (warning,) = summarize(*dataset, scheme=Awr(horizon=1.2), chunk=2).warnings
    assert "over 12 frames" in warning
    assert "`weighting.horizon=episode`" in warning
    (warning,) = summarize(*dataset, scheme=TopAwr(span=2.0), chunk=2).warnings
    assert "over 20 frames" in warning
    for scheme in (
        Awr(horizon="episode", baseline="stage"),
        Filter(quantile=0.5),
        TopAwr(span="prefix"),
        Uniform(),
    ):
        assert summarize(*dataset, scheme=scheme, chunk=100).warnings == ()


def test_weights_that_follow_length_are_warned_of() -> None:
    lengths = range(10, 30)
    dataset = dataset_of(*([30 / n, 33 / n] * (n // 2) for n in lengths))
    (warning,) = summarize(*dataset, scheme=Awr(), chunk=2).warnings
    assert "weights follow the length of episodes (rank correlation -1.00)" in warning
    assert "shorter ones weigh more" in warning
    assert "give a shorter `weighting.horizon`" in warning
    (warning,) = summarize(*dataset, scheme=Filter(quantile=0.5)).warnings
    assert "static control" in warning
    few = dataset_of(*([30 / n, 33 / n] * (n // 2) for n in (10, 12, 20)))
    assert summarize(*few, scheme=Awr(), chunk=2).warnings == ()
    rng = np.random.default_rng(0)
    apart = dataset_of(*(rng.uniform(0.5, 1.5, n) for n in rng.integers(10, 30, 40)))
    assert summarize(*apart, scheme=Awr(), chunk=2).warnings == ()


def test_what_is_below_a_hundredth_of_the_mean_weighs_nothing() -> None:
    dataset = dataset_of([2.0, 2.0], [0.0, 0.005], [0.02, 2.0], [0.001, 0.007])
    summary = summarize(*dataset, scheme=Awr())
    assert summary.overall.zero_share == pytest.approx(4 / 8)
    assert [episode.zero_share for episode in summary.episodes] == [0, 1, 0, 1]
    assert "episodes without any weight: 2 of 4 (1, 3)" in summary.warnings
    assert "weigh nothing (<.01 mean)  50.0% of the frames; whole episodes: 2" in printed(
        dataset, scheme=Awr()
    )


def test_labels_and_weights_must_be_of_the_same_frames() -> None:
    labels, _ = dataset_of([1, 2, 3])
    _, weights = dataset_of([1, 2])
    with pytest.raises(ValueError, match="same frames"):
        summarize(labels, weights, scheme=Awr())
    with pytest.raises(ValueError, match="all are zero"):
        summarize(*dataset_of([0, 0]), scheme=Awr())


def test_the_table_of_a_big_dataset_fits_and_lists_the_ends() -> None:
    rng = np.random.default_rng(0)
    episodes = [rng.random(12) * e for e in range(300)]
    text = printed(dataset_of(*episodes, tasks=[e % 2 for e in range(300)]), scheme=Awr())
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 40
    assert "the 5 lowest and the 5 highest of 300 episodes" in text
    listed = [line.split()[0] for line in text.splitlines() if line[:7].strip().isdigit()]
    assert len(listed) == 10
    assert listed[0] == "0"
    assert "place the cube on the plate [gent…" in text  # brackets are no markup
    assert "3600 in 300 episodes" in text


def test_what_does_not_differ_is_not_listed() -> None:
    text = printed(dataset_of([1, 1], [1, 1, 1]), scheme=Uniform())
    assert "episode  " not in text
    assert "Warning" not in text
    text = printed(dataset_of([1, 2], [2, 1], [0, 0]), scheme=Awr())
    assert "task  " not in text
    assert "Warning: episodes without any weight: 1 of 3 (2)" in text


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, "0%"),
        (1, "100%"),
        (1e-5, "<0.1%"),
        (0.9999, ">99.9%"),
        (0.123, "12.3%"),
        (1 - 1e-12, "100%"),
    ],
)
def test_a_percentage_is_nought_or_all_only_if_it_is(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_the_histogram_is_a_png_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.png"
    weight = np.concatenate([np.zeros(20), np.linspace(0.1, 3, 50), np.full(9, 3.0)])
    _, weights = dataset_of(weight.tolist(), cap=3.0)
    for title in ("awr", "awr again"):
        save_histogram(path, weights, title=title)
        assert [entry.name for entry in path.parent.iterdir()] == ["weights.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 20) or []}
    # Frames, weight, cap and zero are all there, in colours that are told apart.
    assert {(86, 180, 233), (213, 94, 0), (230, 159, 0), (153, 153, 153)} <= colours


@pytest.mark.parametrize("weight", [[1.0, 1.0], [2.0, 0.0], [1e-3, 1e-3, 900.0]])
def test_odd_weights_can_be_drawn(tmp_path: Path, weight: list[float]) -> None:
    _, weights = dataset_of(weight)
    save_histogram(tmp_path / "weights.png", weights, title="odd")
    assert (tmp_path / "weights.png").stat().st_size > 1000


def test_a_failed_drawing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.png"
    _, weights = dataset_of([1, 2])
    save_histogram(path, weights, title="first")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_histogram(path, weights, title="second")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.png"]
