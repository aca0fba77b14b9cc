import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import draccus
import pytest
from cups import GOOD, contents, decisions, labelled, write_labels
from lerobot.configs.default import DatasetConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward import CurateConfig, curate_dataset
from lerobot_topreward.judging.rules import Drops
from lerobot_topreward.lerobot_features import excludes_episodes
from lerobot_topreward.records import EpisodeMetrics

Run = Callable[..., str]


def test_without_an_output_it_only_says_what_would_go(run: Run, dataset: Path):
    before = contents(dataset.parent)
    said = run("--root", dataset)
    assert contents(dataset.parent) == before
    assert "rules final progress at least 0.8" in said
    assert "2 episodes go" in said
    assert said.index("1 2.1 -4.00") < said.index("2 3.0 -3.50")  # the worst first
    assert "final progress 0.31 < 0.80" in said
    assert "3 of 5 0.1 of 0.2 all" in said
    assert "nothing was written" in said


def test_a_persons_decisions_win(run: Run, dataset: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", dataset, {"0": "drop", "1": "keep"})
    said = run("--root", dataset, "--decisions", path, "--output", tmp_path / "good")
    assert "decided by a person" in said
    assert "drops 1, and keeps 1 that a rule drops" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert list(record["kept"]) == ["1", "3", "4"]
    assert "already curated" in run("--root", tmp_path / "good", "--decisions", path)
    assert "must be about this dataset" in run(
        *("--root", tmp_path / "good", "--decisions", path, "--keep-top", "1"), code=2
    )


def test_a_threshold_learnt_from_success(run: Run, dataset: Path, tmp_path: Path):
    said = run("--root", dataset, "--auto", "--output", tmp_path / "good")
    assert "chosen automatically, by the column success of meta/episodes of 5 episodes" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["rules"]["limits"] == {"min_success": "auto"}
    assert -3.5 < record["threshold"] < -0.2
    assert list(record["kept"]) == ["0", "3", "4"]
    assert "already curated" in run("--root", tmp_path / "good", "--auto")
    success = tmp_path / "success.csv"
    success.write_text("episode_index,success\n0,false\n1,true\n2,false\n3,true\n")
    said = run("--root", dataset, "--auto", "--success-file", success)
    assert f"by --success-file {success} of 4 episodes" in said


@pytest.mark.slow
def test_what_becomes_of_episodes_without_labels_is_asked(run: Run, recorded: Path, tmp_path: Path):
    source = write_labels(recorded, tmp_path / "cups", unlabelled=(3, 4))
    outputs = ("--output", tmp_path / "no", "--episodes-file", tmp_path / "no.json")
    said = run("--root", source, *outputs, code=2)
    assert "2 of 5 episodes are not labeled, so no rule about rewards can judge them (3, 4)" in said
    assert "--unlabelled keep or --unlabelled drop" in said
    assert not list(tmp_path.glob("no*"))
    said = run("--root", source, "--unlabelled", "keep")
    assert "2 episodes, of which 2 stay and 0 go" in said
    path = decisions(tmp_path / "decisions.json", source, {"3": "drop", "4": "keep"})
    said = run("--root", source, "--decisions", path)
    assert "2 episodes, of which 1 stay and 1 go" in said
    said = run("--root", source, "--unlabelled", "drop", "--output", tmp_path / "good")
    assert "2 episodes, of which 0 stay and 2 go" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["dropped"]["3"] == ["not labeled"]
    assert list(record["kept"]) == ["0", "1"]
    run("--root", source, "--unlabelled", "keep", "--output", tmp_path / "more")
    assert labelled(tmp_path / "more").episodes == [0, 1]
    assert LeRobotDataset("local/more", root=tmp_path / "more").num_episodes == 4


def test_rules_in_a_preset(run: Run, dataset: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", dataset, {"4": "drop"})
    preset = tmp_path / "strict.yaml"
    preset.write_text(f"curate:\n  min-success: -0.18\n  decisions: {path}\n  trim-margin: 1\n")
    said = run("--root", dataset, "--config", preset)
    rules = "success score at least -0.18 nats; nothing broken in the recording; manual decisions"
    assert rules in said
    assert "1 of 5" in said
    preset.write_text("curate:\n  min_succes: -1\n")
    assert "did you mean min_success?" in run("--root", dataset, "--config", preset, code=2)


def test_a_dry_run_writes_nothing(run: Run, dataset: Path, tmp_path: Path):
    outputs = ("--output", tmp_path / "new", "--episodes-file", tmp_path / "kept.json")
    said = run("--root", dataset, "--keep-top", "0.5", *outputs, "--dry-run")
    assert "nothing was written, as --dry-run asks" in said
    assert not list(tmp_path.glob("*"))


def test_rules_that_drop_much_are_warned_of(run: Run, dataset: Path):
    said = run("--root", dataset, "--min-success", "-0.12")
    assert "warning: --min-success drops 2 of the 3 episodes of 'stack the cups'" in said
    assert "warning: --min-success drops every episode of 'pour'" in said
    assert "warning: nothing remains of the task 'pour'" in said


def test_a_task_that_never_succeeds_is_warned_of(run: Run, recorded: Path, tmp_path: Path):
    source = write_labels(recorded, tmp_path / "cups", ends=(-0.1, -3, -0.1, -4, -0.1))
    said = run("--root", source)
    assert "warning: in no episode of 'pour' does the VLM find success likelier than not" in said
    assert "of 'stack the cups'" not in said


def test_the_list_of_episodes_is_what_lerobot_takes(run: Run, dataset: Path, tmp_path: Path):
    path = tmp_path / "lists" / "kept.json"
    said = run("--root", dataset, "--episodes-file", path)
    assert f'--dataset.episodes="$(cat {path})"' in said
    text = path.read_text().strip()
    config = draccus.parse(DatasetConfig, args=["--repo_id=a/b", f"--episodes={text}"])
    assert config.episodes == GOOD


def test_the_flags_that_train_on_what_is_kept(
    run: Run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = run("--root", dataset)
    flags = dict(re.findall(r"--dataset\.(\w+)=(\S+)", said))
    assert json.loads(flags["episodes"]) == GOOD
    config = draccus.parse(DatasetConfig, args=["--repo_id=a/b", f"--episodes={flags['episodes']}"])
    assert config.episodes == GOOD
    if excludes_episodes():
        assert json.loads(flags["exclude_episodes"]) == [1, 2]
    else:
        assert "exclude_episodes" not in flags
    whole = decisions(tmp_path / "decisions.json", dataset, {"1": "keep", "2": "keep"})
    assert "--dataset." not in run("--root", dataset, "--decisions", whole)
    monkeypatch.setattr("lerobot_topreward.curate.command._LONGEST_FLAG", 10)
    said = run("--root", dataset)
    assert "--episodes-file lists the episodes, which are too many to name" in said


def test_rules_of_your_own_are_applied_recorded_and_repeatable(dataset: Path, tmp_path: Path):
    def no_pouring(metrics: Sequence[EpisodeMetrics]) -> Drops:
        return {each.episode_index: "pours" for each in metrics if each.task == "pour"}

    before = contents(dataset)
    config = CurateConfig(root=dataset, output=tmp_path / "good")
    plan = curate_dataset(config, custom=[no_pouring])
    reasons = {verdict.episode_index: verdict.reasons for verdict in plan.dropped}
    assert set(reasons) == {1, 2, 3}  # the default rule drops 1 and 2, ours 1 and 3
    assert reasons[3] == ("pours",)
    assert reasons[1][-1] == "pours"
    assert "pours" not in reasons[2]
    assert plan.kept == [0, 4]
    assert LeRobotDataset("local/good", root=tmp_path / "good").num_episodes == 2
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["dropped"]["3"] == ["pours"]
    assert record["rules"]["custom"][0].endswith("no_pouring")
    assert contents(dataset) == before
    # The same rules find nothing more in what they left.
    again = curate_dataset(CurateConfig(root=tmp_path / "good"), custom=[no_pouring])
    assert again.repeated
    assert again.kept == [0, 1]


def test_notes_stand_beside_the_verdict_and_in_the_record(run: Run, dataset: Path, tmp_path: Path):
    notes = {"1": {"text": "[bold]slips[/] <b>once</b>", "tags": ["grasp"]}, "3": {"text": "slow"}}
    path = decisions(tmp_path / "decisions.json", dataset, {"1": "drop"}, notes=notes)
    said = run("--root", dataset, "--decisions", path, "--output", tmp_path / "good")
    assert "decided by a person ([bold]slips[/] <b>once</b> #grasp)" in " ".join(said.split())
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["notes"] == {
        "1": {"text": "[bold]slips[/] <b>once</b>", "tags": ["grasp"]},
        "3": {"text": "slow", "tags": []},
    }
    assert record["dropped"]["1"] == ["decided by a person"]
