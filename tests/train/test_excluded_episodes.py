"""Episodes that LeRobot is told to leave out (0.6.2 and later) have no weights."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.policies.act.configuration_act import ACTConfig
from patched_runs import WEIGHTED, Runs, TableWeighter, table

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.lerobot_features import excludes_episodes
from lerobot_topreward.train.lerobot_patch import patch_trainer
from lerobot_topreward.train.trainer_config import training_episodes

can_exclude = pytest.mark.skipif(
    not excludes_episodes(), reason="the installed LeRobot cannot exclude episodes"
)
EXCLUDED = "--dataset.exclude_episodes=[1]"


def dry_run(runs: Runs, *more: str) -> int:
    options = runs.options("run", "--steps=3", "--dry-run", *more, policy="act")
    with pytest.raises(SystemExit) as stopped:
        main(["train", *options])
    return int(stopped.value.code or 0)


@can_exclude
@pytest.mark.parametrize("held_out", [0.0, 0.4])
@pytest.mark.parametrize("episodes", [None, [2, 0], [0, 9, 1]])
@pytest.mark.parametrize("excluded", [None, [], [1], [0, 2, 99]])
def test_what_is_left_is_what_lerobot_leaves(
    runs: Runs, held_out: float, episodes: list[int] | None, excluded: list[int] | None
) -> None:
    options: dict[str, Any] = {"exclude_episodes": excluded}
    dataset = DatasetConfig(
        repo_id="local/x", root=str(runs.root), eval_split=held_out, episodes=episodes, **options
    )
    policy = ACTConfig(device="cpu", push_to_hub=False)
    source = open_source(repo_id=None, root=runs.root, revision=None)
    try:
        lerobots: Any = make_train_eval_datasets(TrainPipelineConfig(dataset, policy=policy))
    except ValueError:  # nothing is left
        with suppress(UserError):
            assert training_episodes(source, dataset) == []
    else:
        assert training_episodes(source, dataset) == lerobots[0].episodes


@can_exclude
def test_the_table_of_a_dry_run_leaves_them_out(
    runs: Runs, write_labels: Callable[..., Path], capfd: pytest.CaptureFixture
) -> None:
    labeled = Runs(write_labels(runs.root), runs.folder)
    assert dry_run(labeled, EXCLUDED) == 0
    assert "19 in 2 episodes" in capfd.readouterr().out
    assert dry_run(labeled, EXCLUDED, "--dataset.episodes=[2,1]") == 0
    assert "10 in 1 episodes" in capfd.readouterr().out.replace("episode ", "episodes ")
    assert dry_run(labeled, "--dataset.exclude_episodes=[0,1,2]") == 2
    assert "--dataset.exclude_episodes leaves no episode" in capfd.readouterr().err


@can_exclude
def test_they_are_neither_weighed_nor_seen(runs: Runs) -> None:
    weighter = TableWeighter(table())
    seen: list[int] = []
    weighter.on_step = lambda _, batch, __: seen.extend(batch["index"].tolist())
    with patch_trainer(weighter):
        runs.train("run", "--steps=5", *WEIGHTED, EXCLUDED, policy="act")
    assert weighter.dataset.episodes == [0, 2]
    assert set(seen) <= {*range(9), *range(21, 31)}


@pytest.mark.skipif(excludes_episodes(), reason="the installed LeRobot can exclude episodes")
def test_a_lerobot_that_cannot_says_which_can(runs: Runs, capfd: pytest.CaptureFixture) -> None:
    assert dry_run(runs, EXCLUDED) == 2
    printed = " ".join(capfd.readouterr().err.split())
    assert "exclude" in printed
    assert "of LeRobot 0.6.2 and later" in printed


@can_exclude
def test_streaming_which_would_show_them_is_refused(
    runs: Runs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(runs, EXCLUDED, "--dataset.streaming=true", "--num_workers=1") == 2
    assert "--dataset.exclude_episodes has no effect" in capfd.readouterr().err
