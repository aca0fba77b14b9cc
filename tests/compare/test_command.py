"""The compare command on tiny checkpoints: what is asked, kept, said and refused."""

import gc
import json
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm_server import serve

from lerobot_topreward.cli import main
from lerobot_topreward.compare import asking
from lerobot_topreward.compare.command import compare_judges
from lerobot_topreward.compare.config import CompareConfig
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.scoring.control_scores import spread_episodes
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.storage.store import list_stores
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]
LENGTHS = (14, 9, 21, 12, 17, 11)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    tasks = ("pick up the cube", "open the drawer")
    return record_dataset(lengths=LENGTHS, tasks=tasks, cameras=("front",))


@pytest.fixture(scope="module")
def other_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlm") / "other"
    return build_tiny_vlm(folder, config=TinyConfig(spread=0.2, seed=1))


@pytest.fixture(scope="module")
def scored(
    recorded: Path, tiny_vlm: Path, other_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of a comparison of two checkpoints on four episodes."""
    output = tmp_path_factory.mktemp("compared") / "out"
    options = ("--sample", "4", "--output", str(output), "--device", "cpu")
    assert run(recorded, "--judges", str(tiny_vlm), str(other_vlm), *options) == 0
    return output


@pytest.fixture
def output(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "out"))


def run(root: Path, *options: str, command: str = "compare") -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--root", str(root), *options])
    return int(stopped.value.code or 0)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")


def find_shards(output: Path) -> dict[str, bytes]:
    paths = sorted(output.glob("topreward/*/episode_*.parquet"))
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def config_of(root: Path, output: Path, *judges: Path | str, **options: Any) -> CompareConfig:
    names = tuple(map(str, judges))
    return CompareConfig(root=root, output=output, judges=names, sample=4, device="cpu", **options)


def test_every_judge_is_asked_about_the_same(recorded: Path, scored: Path) -> None:
    stores = list_stores(scored, fps=10.0)
    assert len(stores) == 2
    names = [{path.name for path in store.folder.glob("*.parquet")} for store in stores]
    assert names[0] == names[1]
    assert len(names[0]) == 4 * 3  # none, static, reversed
    assert {store.key.prefixes for store in stores} == {15}
    sample = spread_episodes(
        {i: [["pick up the cube", "open the drawer"][i % 2]] for i in range(6)}, 4, success={}
    )
    episodes = {int(name[8:14]) for name in names[0]}
    assert sorted(episodes) == sample
    made = json.loads((stores[0].folder / "run.json").read_text())
    assert made["shown"] == ["96x64 of 96x64"]
    assert made["dataset"] == open_source(repo_id=None, root=recorded, revision=None).repo_id


def test_label_finds_the_scores_of_the_one_that_was_chosen(
    recorded: Path, tiny_vlm: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = find_shards(output)
    options = ("--vlm", str(tiny_vlm), "--device", "cpu", "--prefixes", "15")
    assert run(recorded, *options, "--output", str(output), command="label") == 0
    said = capsys.readouterr().out
    assert "episodes labelled    6" in said
    assert "of these scored now  2" in said
    after = find_shards(output)
    assert len(after) == len(before) + 2
    assert before.items() <= after.items()


def test_labels_come_first_and_compare_finds_their_scores(
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    options = ("--device", "cpu", "--prefixes", "15", "--output", str(output))
    vlm = ("--vlm", str(tiny_vlm), "--control", "static")
    assert run(recorded, *vlm, *options, command="label") == 0
    (store,) = list_stores(output, fps=10.0)
    made = json.loads((store.folder / "run.json").read_text())
    assert run(recorded, "--judges", str(tiny_vlm), *options, "--sample", "3") == 0
    assert f"A  {tiny_vlm}: 3 videos to score" in capsys.readouterr().out  # backwards
    assert json.loads((store.folder / "run.json").read_text()) == made


def test_a_second_run_loads_no_model_and_finds_the_same(
    recorded: Path,
    tiny_vlm: Path,
    other_vlm: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(asking, "load_scorer", refuse)
    options = ("--sample", "4", "--output", str(output), "--json")
    judges = ("--judges", str(tiny_vlm), str(other_vlm))
    found = []
    for _ in range(2):
        assert run(recorded, *judges, *options) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    first = found[0]["judges"][0]
    assert first["scored_now"] == 0
    assert first["seconds_per_video"] is None
    assert first["judgment"]["level"]
    assert set(first["controls"]) == {"static", "reversed"}
    assert Path(first["scores"]).is_dir()
    assert len(found[0]["episodes"]) == 4
    assert found[0]["agreement"][0]["judges"] == ["A", "B"]
    assert -1 <= found[0]["agreement"][0]["value"] <= 1
    assert "--prefixes" in (found[0]["label"] or "--prefixes")
    assert found[0]["advice"]["sentence"]


def test_a_larger_sample_costs_only_what_is_new(
    recorded: Path, tiny_vlm: Path, output: Path
) -> None:
    before = find_shards(output)
    config = CompareConfig(
        root=recorded, output=output, judges=(str(tiny_vlm),), sample=6, device="cpu"
    )
    (found,) = compare_judges(config).results
    assert found.scored == 2 * 3
    assert found.seconds > 0
    assert before.items() <= find_shards(output).items()


def test_a_judge_that_cannot_be_loaded_fails_alone(
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Path(shutil.copytree(tiny_vlm, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    empty = tmp_path / "empty"
    empty.mkdir()
    judges = (str(broken), str(empty), str(tiny_vlm), "gone@http://127.0.0.1:9")
    options = ("--sample", "4", "--output", str(output), "--device", "cpu", "--json")
    assert run(recorded, "--judges", *judges, *options) == 1
    found = json.loads(capsys.readouterr().out)["judges"]
    reasons = [judge["reason"] for judge in found]
    assert "cannot be loaded" in reasons[0]
    assert "no readable config.json" in reasons[1]
    assert reasons[2] is None
    assert "does not answer" in reasons[3]
    assert found[2]["voc"]["defined"] == 4
    assert run(recorded, "--judges", *judges, *options[:-1]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^ D +-  ", printed, re.MULTILINE)
    assert "D  gone@http://127.0.0.1:9: failed: " in printed


def test_nothing_is_scored_where_no_judge_can_be_asked(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--judges", "gone@http://127.0.0.1:9", "--output", str(tmp_path / "out"))
    assert run(recorded, *options) == 2
    assert "no judge can be asked" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_model_is_in_memory_at_a_time(
    recorded: Path, tiny_vlm: Path, other_vlm: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = asking.load_scorer

    def load_and_look(*arguments: Any, **options: Any) -> Any:
        assert [each() for each in loaded] == [None] * len(loaded)
        scorer: Any = load(*arguments, **options)
        loaded.append(weakref.ref(scorer.vlm.model))
        return scorer

    monkeypatch.setattr(asking, "load_scorer", load_and_look)
    gc.disable()  # what goes must not go by chance
    try:
        compare_judges(config_of(recorded, tmp_path / "out", tiny_vlm, other_vlm))
    finally:
        gc.enable()
    assert len(loaded) == 2
    assert loaded[1]() is None


def test_a_server_is_a_judge_like_the_model_that_it_serves(
    recorded: Path, tiny_vlm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with serve(load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu"))) as state:
        served = f"{tiny_vlm}@{state.url}"
        found = compare_judges(config_of(recorded, output, tiny_vlm, served, concurrency=2))
        label = ("--vlm", str(tiny_vlm), "--server", state.url, "--prefixes", "15")
        capsys.readouterr()
        assert run(recorded, *label, "--output", str(output), command="label") == 0
        assert "of these scored now  2" in capsys.readouterr().out
        # Other words are likelier than True, so the server returns bounds alone.
        images = config_of(recorded, output, f"tiny@{state.url}", server_video="images")
        (bounds,) = compare_judges(images).results
    assert "so no reward can be made of them" in str(bounds.reason)
    assert found.agreement["A", "B"].value == pytest.approx(1, abs=0.01)
    here, there = found.results
    assert here.summary is not None
    assert there.summary is not None
    np.testing.assert_allclose(here.summary.curves.rise, there.summary.curves.rise, atol=1e-3)
    assert there.key is not None
    assert there.key.server_video == "exact"


def test_outcomes_spread_the_sample_and_give_the_auc(
    recorded: Path, tiny_vlm: Path, output: Path, tmp_path: Path
) -> None:
    file = tmp_path / "success.csv"
    file.write_text("episode_index,success\n0,true\n1,true\n2,true\n3,true\n5,false\n")
    config = CompareConfig(
        root=recorded,
        output=output,
        judges=(str(tiny_vlm),),
        sample=3,
        success_file=file,
        device="cpu",
    )
    found = compare_judges(config)
    assert {5, 4} < set(found.episodes)  # the one that failed, and the one that is not known
    assert sorted(found.success.values()) == [False, True]
    assert found.results[0].summary is not None
    assert found.results[0].summary.auc.value in (0, 0.5, 1)


def test_a_table_has_80_columns_whatever_the_numbers(
    recorded: Path,
    tiny_vlm: Path,
    other_vlm: Path,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "success.csv"
    file.write_text("episode_index,success\n0,true\n1,true\n2,false\n3,false\n4,true\n5,false\n")
    options = ("--success-file", str(file), "--sample", "6", "--output", str(output))
    judges = ("--judges", str(tiny_vlm), str(other_vlm))
    assert run(recorded, *judges, *options, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "asked after 15 prefixes" in printed
    table = printed[printed.index("Static") : printed.index("static: ")]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    assert re.search(r"^ A +-?[.\d]+ \[", table, re.MULTILINE)


def test_a_run_that_is_stopped_goes_on(
    recorded: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    score = asking.score_shards

    def stop(source: Any, store: Any, todo: Any, scorer: Any, **options: Any) -> Any:
        outcome = score(source, store, todo[:6], scorer, **options)
        outcome.interrupted = True
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(asking, "score_shards", stop)
        with pytest.raises(KeyboardInterrupt):
            compare_judges(config_of(recorded, output, tiny_vlm))
    kept = find_shards(output)
    assert len(kept) == 6
    (found,) = compare_judges(config_of(recorded, output, tiny_vlm)).results
    assert found.scored == 6
    assert kept.items() <= find_shards(output).items()


def test_a_damaged_run_file_is_said_with_what_to_do(
    recorded: Path, tiny_vlm: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store, _) = list_stores(output, fps=10.0)
    (store.folder / "run.json").write_text("{")
    assert run(recorded, "--judges", str(tiny_vlm), "--output", str(output)) == 2
    assert "Delete it and run the command again" in capsys.readouterr().err


def test_scores_of_another_dataset_are_not_mixed_in(
    record_dataset: RecordDataset, tiny_vlm: Path, output: Path, capsys: Any
) -> None:
    another = record_dataset(lengths=(8, 7), cameras=("front",), seed=5)
    assert run(another, "--judges", str(tiny_vlm), "--output", str(output)) == 2
    assert "no recording in common" in capsys.readouterr().err
    taken = output / "elsewhere"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert run(another, "--judges", str(tiny_vlm), "--output", str(taken)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert sorted(path.name for path in taken.iterdir()) == ["mine.txt"]
    assert run(another, "--judges", str(tiny_vlm), "--output", str(another)) == 2
    assert "is the dataset itself" in capsys.readouterr().err


def test_two_names_of_one_judge_are_refused(
    recorded: Path, tiny_vlm: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judges = (str(tiny_vlm), f"{tiny_vlm}/")
    assert run(recorded, "--judges", *judges, "--output", str(output), "--device", "cpu") == 2
    assert "are the same judge" in capsys.readouterr().err
