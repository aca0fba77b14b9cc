import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lerobot_topreward.watch.command
from lerobot_topreward.cli import main
from lerobot_topreward.console import SafeConsole
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.watch.command import watch_dataset
from lerobot_topreward.watch.config import WatchConfig
from lerobot_topreward.watch.follow import Clock, Follower

# For the module beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from recorder import TASK, Recorder, script, stop

LENGTHS = (12, 9, 15)


class Watching:
    """A watch of a recording in `root`, whose scores go to `output`."""

    def __init__(self, folder: Path, vlm: Path) -> None:
        self.root, self.output, self.vlm = folder / "recorded", folder / "labels", vlm
        self.said = ""

    def run(self, clock: Clock, **options: Any) -> Follower:
        out = io.StringIO()
        config = WatchConfig(
            root=self.root,
            output=self.output,
            vlm=VlmConfig(vlm=str(self.vlm), device="cpu"),
            **{"min_success": -1.0, **options},
        )
        console = SafeConsole(file=out, width=300, highlight=False, soft_wrap=True, markup=False)
        found = watch_dataset(config, console=console, clock=clock)
        self.said = out.getvalue()
        assert found is not None
        return found

    def label(self, output: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
        capsys.readouterr()
        options = ["--root", str(self.root), "--vlm", str(self.vlm), "--output", str(output), *more]
        with pytest.raises(SystemExit) as stopped:
            main(["label", *options, "--skip-check"])
        assert stopped.value.code == 0
        return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def watching(tmp_path: Path, tiny_vlm: Path) -> Watching:
    return Watching(tmp_path, tiny_vlm)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The episodes that a scorer was asked about by watches, one after another."""
    episodes: list[int] = []
    load: Callable[..., Any] = lerobot_topreward.watch.command.load_scorer

    def load_counting(*args: Any, **options: Any) -> Any:
        scorer = load(*args, **options)
        score = scorer.score

        def count(clip: Any, *more: Any) -> Any:
            episodes.append(clip.segment.episode_index)
            return score(clip, *more)

        scorer.score = count
        return scorer

    monkeypatch.setattr(lerobot_topreward.watch.command, "load_scorer", load_counting)
    return episodes


def shards(output: Path) -> dict[str, bytes]:
    found = sorted(output.glob("topreward/*/episode_??????.parquet"))
    return {path.name: path.read_bytes() for path in found}


def test_label_after_a_watch_scores_nothing_and_gets_the_same(
    watching: Watching, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[int]
) -> None:
    recorder = Recorder(watching.root)
    saves = [lambda i=i, n=n: recorder.save(n, seed=i) for i, n in enumerate(LENGTHS)]
    found = watching.run(script(*saves, recorder.close))
    assert sorted(found.opinions) == [0, 1, 2]
    assert found.settled is not None
    assert (found.settled.moved, found.settled.outcome.answered) == (3, 0)
    assert asked == [0, 1, 2]
    before = [watching.said.index(f"episode {i}") for i in range(3)]
    assert before == sorted(before)
    assert not list(watching.output.glob("topreward/*/watch"))
    assert "episodes scored now 0" in watching.label(watching.output, capsys)
    watching.label(tmp_path / "alone", capsys)
    assert shards(watching.output) == shards(tmp_path / "alone")
    assert len(shards(watching.output)) == 3
    run, alone = (
        json.loads(next(folder.glob("topreward/*/run.json")).read_text())
        for folder in (watching.output, tmp_path / "alone")
    )
    assert run["shown"] == alone["shown"]


def test_an_episode_is_judged_before_the_recorder_closes_its_files(
    watching: Watching, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(watching.root)
    found = watching.run(
        script(lambda: recorder.save(12), lambda: recorder.discard(5), lambda: recorder.save(9)),
    )
    assert sorted(found.opinions) == [0, 1]
    assert found.settled is None
    assert not shards(watching.output)
    # label takes over what a watch left behind.
    recorder.close()
    assert "episodes scored now 0" in watching.label(watching.output, capsys)
    assert not list(watching.output.glob("topreward/*/watch"))


def test_what_was_saved_unseen_is_judged_in_the_end(watching: Watching, asked: list[int]) -> None:
    recorder = Recorder(watching.root)

    def save_two() -> None:
        recorder.save(12)
        recorder.save(9, seed=1)

    found = watching.run(
        script(save_two, lambda: None, lambda: recorder.save(15, seed=2), recorder.close)
    )
    assert "episodes 0..1: cannot tell yet" in watching.said
    assert asked == [2, 0, 1]
    assert sorted(found.opinions) == [0, 1, 2]
    assert found.settled is not None
    assert (found.settled.moved, found.settled.outcome.answered) == (1, 2)


def test_a_watch_that_was_stopped_goes_on_where_it_was(
    watching: Watching, asked: list[int]
) -> None:
    recorder = Recorder(watching.root)
    watching.run(script(lambda: recorder.save(12)))
    recorder.save(9, seed=1)  # unseen, but the only one: its neighbors were seen
    found = watching.run(script(lambda: recorder.save(15, seed=2), recorder.close))
    assert asked == [0, 1, 2]
    assert sorted(found.opinions) == [0, 1, 2]


def test_a_resumed_recording_is_watched(watching: Watching, asked: list[int]) -> None:
    recorder = Recorder(watching.root)
    recorder.save(12)
    recorder.close()

    def resume() -> None:
        nonlocal recorder
        recorder = Recorder(watching.root, resume=True)
        recorder.save(9, seed=1)

    found = watching.run(script(resume, lambda: recorder.close()))
    assert sorted(found.opinions) == [0, 1]
    assert asked == [0, 1]


def test_several_tasks(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    steps = [
        lambda: recorder.save(12),
        lambda: recorder.save(9, "open the drawer", seed=1),  # a new one, so this is it
        lambda: recorder.save(9, "open the drawer", seed=2),
        lambda: None,
    ]
    found = watching.run(script(*steps))
    assert sorted(found.opinions) == [0, 1]
    assert (
        "episode 2: cannot tell yet, it has one of 2 tasks; say which with --task" in watching.said
    )
    found = watching.run(script(recorder.close), task="open the drawer")
    assert sorted(found.opinions) == [0, 1, 2]
    assert found.settled is not None
    assert (found.settled.moved, found.settled.outcome.answered) == (3, 0)


def test_a_wrong_task_is_scored_again(watching: Watching, asked: list[int]) -> None:
    recorder = Recorder(watching.root)
    steps = [
        lambda: recorder.save(12),
        lambda: recorder.save(9, "open the drawer", seed=1),
        lambda: recorder.save(9, "open the drawer", seed=2),
        recorder.close,
    ]
    found = watching.run(script(*steps), task=TASK)
    assert asked == [0, 1, 2, 2]
    assert found.settled is not None
    assert (found.settled.moved, found.settled.outcome.answered) == (2, 1)


def test_images_in_data_are_judged_in_the_end(watching: Watching) -> None:
    recorder = Recorder(watching.root, video=False)
    found = watching.run(script(lambda: recorder.save(12), lambda: None, recorder.close))
    assert "its images lie in data/" in watching.said
    assert sorted(found.opinions) == [0]


def test_what_is_half_written_is_read_later(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    info = watching.root / "meta/info.json"
    video = watching.root / "videos/observation.images.front/chunk-000/file-000.mp4"
    kept: dict[Path, bytes] = {}

    def cut(path: Path, share: float) -> None:
        kept[path] = path.read_bytes()
        path.write_bytes(kept[path][: int(share * len(kept[path]))])

    def restore() -> None:
        for path, content in kept.items():
            path.write_bytes(content)

    def save_and_cut(path: Path, share: float) -> None:
        recorder.save(12, seed=len(kept))
        cut(path, share)

    found = watching.run(
        script(
            lambda: save_and_cut(info, 0.5),
            lambda: None,
            restore,
            lambda: save_and_cut(video, 0.9),
            lambda: None,
            restore,
        )
    )
    assert "waiting: " in watching.said
    assert sorted(found.opinions) == [0, 1]
    assert found.failed == {}


def test_a_dataset_that_goes_is_waited_for(watching: Watching) -> None:
    recorders = [Recorder(watching.root)]

    def begin_again() -> None:
        recorders.append(Recorder(watching.root))

    found = watching.run(
        script(
            lambda: recorders[0].save(12),
            lambda: shutil.rmtree(watching.root),
            lambda: None,
            begin_again,
            lambda: recorders[1].save(9, seed=1),
        )
    )
    assert "waiting: " in watching.said
    assert sorted(found.opinions) == [0]
    assert found.total == 1


@pytest.mark.parametrize("damage", ["marks", "link", "shard", "other"])
def test_what_a_stranger_left_is_not_believed(
    watching: Watching, tmp_path: Path, asked: list[int], damage: str
) -> None:
    recorder = Recorder(watching.root)
    watching.run(script(lambda: recorder.save(12), lambda: recorder.save(9, seed=1)))
    (marks,) = watching.output.glob("topreward/*/watch/marks.json")
    shard = marks.with_name("episode_000001.parquet")
    if damage == "marks":
        for text in ("{", "[]", '{"format": 1, "marks": {"0": [0, 0], "1": [-5, 1]}}', "[" * 10**5):
            marks.write_text(text)
            watching.run(script(lambda: None))
        marks.write_text('{"format": 1, "marks": {"1": [10, 1], "x": 1}}')
    elif damage == "link":
        shard.unlink()
        shard.symlink_to(tmp_path)
    elif damage == "shard":
        shard.write_bytes(b"PAR1" * 100)
    else:
        shutil.copy(marks.with_name("episode_000000.parquet"), shard)
    found = watching.run(script(lambda: None, recorder.close))
    assert sorted(found.opinions) == [0, 1]
    assert asked == ([0, 1] if damage == "marks" else [0, 1, 1])


def test_the_bell_rings_once_for_good_and_three_times_for_bad(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    watching.run(script(lambda: recorder.save(12)), sound=True, min_success=0.0)
    assert watching.said.count("\a") == 3
    watching.run(script(), sound=True, min_success=-1000.0)
    assert watching.said.count("\a") == 1


def test_without_a_line_nothing_is_judged(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    found = watching.run(
        script(lambda: recorder.save(12), stop), min_success=None, until_episodes=1
    )
    assert [opinion.word for opinion in found.opinions.values()] == ["cannot tell"]
    assert "give --min-success or a --reference" in watching.said


def test_a_reference_draws_the_line(
    watching: Watching, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(watching.root)
    for i in range(12):
        recorder.save(12, seed=i)
    recorder.close()
    reference = tmp_path / "reference"
    watching.label(reference, capsys)
    outcomes = tmp_path / "success.csv"
    rows = "\n".join(f"{i},{i % 2}" for i in range(12))
    outcomes.write_text(f"episode_index,success\n{rows}\n")
    shutil.rmtree(watching.root)
    recorder = Recorder(watching.root)
    found = watching.run(
        script(lambda: recorder.save(12)),
        min_success=None,
        reference=reference,
        success_file=outcomes,
    )
    assert [opinion.word for opinion in found.opinions.values()] == ["cannot tell"]
    with pytest.raises(Exception, match=r"scored otherwise.*sample_fps 2.0 there and 5.0 here"):
        watching.run(
            script(),
            min_success=None,
            reference=reference,
            scoring=ScoringConfig(sample_fps=5.0),
        )


def test_options_are_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        ((), "which dataset?"),
        (("--root", "x", "--min-success", "1"), "--min-success is in nats"),
        (("--root", "x", "--min-success", "-1", "--reference", "y"), "leave out one"),
        (("--root", "x", "--success-file", "y"), "about the --reference"),
        (("--root", "x", "--interval", "0"), "--interval must be > 0"),
        (("--root", "x", "--output", "x/y"), "must not lie within the dataset"),
        (("--root", "x", "--output", str(tmp_path)), "is not empty"),
    ):
        (tmp_path / "mine").write_text("")
        with pytest.raises(SystemExit) as stopped:
            main(["watch", *options])
        assert stopped.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_console_is_not_needed(watching: Watching) -> None:
    recorder = Recorder(watching.root)
    config = WatchConfig(root=watching.root, vlm=VlmConfig(vlm=str(watching.vlm), device="cpu"))
    found = watch_dataset(config, console=Console(quiet=True), clock=script(recorder.close))
    assert found is not None
    assert found.total == 0
